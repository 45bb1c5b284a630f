"""What is right, what is not, and what is said of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from grading.exchange import DTYPES, dumps, loads
from grading.judge import Case, Mark, Question, compare, failed, judge

RIGHT = [
    (1.0, 1.0),
    (1, 1.0),
    (np.float32(1), 1.0),
    (np.array(1.0), 1.0),
    (torch.tensor(1.0), 1.0),
    ([1.0, 2.0], np.array([1.0, 2.0])),
    ((1.0, [2, 3]), [1.0, [2.0, 3.0]]),
    (np.array([1, 2]), [1.0, 2.0]),
    (1.0 + 1e-9, 1.0),
    (np.array([1e9, 1.0]), np.array([1e9, 0.5])),
    (0.0, 0.0),
    (1e-9, 0.0),
    (float("-inf"), float("-inf")),
    (np.array([1.0, np.nan]), np.array([1.0, np.nan])),
    (np.array([1.0 + 0j]), np.array([1.0])),
    (True, True),
    (np.array([True, False]), np.array([True, False])),
    ("yes", "yes"),
    (None, None),
    ({"a": 1.0, "b": "x"}, {"b": "x", "a": 1.0}),
    (np.zeros((0, 3)), np.zeros((0, 3))),
    (10**30, 1e30),
]
WRONG = [
    (2.0, 1.0, "not the right value"),
    (-1.0, 1.0, "not the right value"),
    (1.0 + 1e-5, 1.0, "not the right value"),
    (1e-5, 0.0, "not the right value"),
    (np.array([1.0]), 1.0, "one number is expected"),
    (1.0, np.array([1.0]), "shape (1,) is expected"),
    (np.ones((3, 1)), np.ones(3), "shape (3,) is expected"),
    ([[1.0], [1.0, 2.0]], np.ones((2, 2)), "shape (2, 2) is expected"),
    ("1.0", 1.0, "one number is expected"),
    (["1.0"], np.ones(1), "shape (1,) is expected"),
    (None, 1.0, "one number is expected"),
    ({"a": 1.0}, 1.0, "one number is expected"),
    (float("nan"), 1.0, "not finite"),
    (float("inf"), 1.0, "not finite"),
    (np.array([1.0, np.nan]), np.ones(2), "not finite"),
    (0.0, float("-inf"), "finite where it should not be"),
    (float("inf"), float("-inf"), "finite where it should not be"),
    (1.0 + 1.0j * 0.1, None, "not None"),
    (np.array([1.0 + 0.1j]), np.array([1.0]), "not the right value"),
    (-1.7e308, 1.7e308, "not the right value"),
    (1, True, "not the right truth values"),
    (np.array([True, True]), np.array([True, False]), "not the right truth values"),
    (True, "yes", "not the right text"),
    ("Yes", "yes", "not the right text"),
    (0, None, "not None"),
    ([1.0], [1.0, 2.0], "2 parts are expected"),
    (1.0, [1.0, 2.0], "not a list or tuple of 2"),
    (np.array(1.0), [1.0], "not a list or tuple of 1"),
    ([1.0, 3.0], [1.0, 2.0], "[1]: not the right value"),
    (np.array([1.0, 3.0]), [1.0, 2.0], "[1]: not the right value"),
    (np.zeros((3, 0)), [1.0, 2.0], "2 parts are expected"),
    ({"a": 1.0}, {"b": 1.0}, "not a dictionary with the keys b"),
    ({"a": 2.0}, {"a": 1.0}, "['a']: not the right value"),
    ({"a": 1.0, "b": 2.0}, {"a": 1.0}, "not a dictionary with the keys a"),
]


def crossed(value: object) -> object:
    return value if isinstance(value, complex) else loads(dumps(value))


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_right(answer, reference):
    assert compare(crossed(answer), reference, 1e-6) == ""


@pytest.mark.parametrize(("answer", "reference", "said"), WRONG)
def test_wrong(answer, reference, said):
    assert compare(crossed(answer), reference, 1e-6) == said


def test_one_wrong_case_costs_the_question():
    question = Question("q", "f(x)", tuple(Case({"x": k}, float(k)) for k in range(3)), points=5)
    assert judge(question, {0: 0.0, 1: 1.0, 2: 2.0}, "") == Mark(5, "right")
    assert judge(question, {0: 0.0, 1: 7.0, 2: 2.0}, "") == Mark(0, "case 2 of 3: not the right value")
    assert judge(question, {0: 0.0, 1: failed("NameError")}, "gone") == Mark(0, "case 2 of 3: raised NameError")
    assert judge(question, {0: 0.0, 1: 1.0}, "gone") == Mark(0, "case 3 of 3: gone")
    assert judge(question, {}, "gone") == Mark(0, "case 1 of 3: gone")


@pytest.mark.parametrize("name", ["<script>", "Evil", 5, None, ["NameError"], "x" * 10**6])
def test_only_known_names_are_quoted(name):
    assert failed(name).reason == "raised an exception"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cases": ()}, "question q has no cases"),
        ({"points": 0}, "points = 0"),
        ({"points": float("nan")}, "points = nan"),
        ({"tolerance": 1}, "tolerance = 1"),
        ({"tolerance": -1e-9}, "tolerance = -1e-09"),
        ({"ask": "f(x"}, "is no expression"),
        ({"ask": "y = f(x)"}, "is no expression"),
        ({"cases": (Case({"x": print}, 1.0),)}, "type builtin_function_or_method does not cross"),
        ({"cases": (Case({"x": 1.0}, {1, 2}),)}, "type set does not cross"),
    ],
)
def test_doors_of_a_question(changed, said):
    with pytest.raises(ValueError, match=said):
        Question(**{"name": "q", "ask": "f(x)", "cases": (Case({"x": 1.0}, 1.0),), **changed})


def test_whatever_crosses_is_judged():
    """Five hundred values of every kind that crosses, arrays of random bytes too, against each reference."""
    rng = np.random.default_rng(5)
    plain = [None, True, -1, 2**63, -(2**63), 10**39, 1e308, float("nan"), float("-inf"), "", "1", "\ud800", [], {}]

    def value(depth: int) -> object:
        kind = rng.integers(4 if depth else 2)
        if kind == 0:
            return plain[rng.integers(len(plain))]
        if kind == 1:
            dtype = np.dtype(DTYPES[rng.integers(len(DTYPES))])
            shape = tuple(int(n) for n in rng.integers(0, 4, rng.integers(4)))
            return np.frombuffer(rng.bytes(dtype.itemsize * math.prod(shape)), dtype).reshape(shape)
        parts = [value(depth - 1) for _ in range(rng.integers(4))]
        return parts if kind == 2 else dict(zip("abcd", parts, strict=False))

    references = [reference for _, reference in RIGHT]
    for _ in range(500):
        answer = loads(dumps(value(3)))
        for reference in references:
            assert isinstance(compare(answer, reference, 1e-6), str)
