"""Compares answers with references: numbers, arrays and strings that crossed, never anything of the student's own.

An array a is right where |a − r| ≤ δ · max |r| in every entry, with the shape of the reference r (for r = 0 the scale
is 1). A question is worth all its points or none. The reasons quote nothing that the student's process sent.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from grading.exchange import dumps, loads

__all__ = ["Case", "Failure", "Mark", "Question", "compare", "judge"]

ERRORS = frozenset(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
)


@dataclass(frozen=True)
class Case:
    """Hidden inputs by name, and the reference answer to them."""

    inputs: Mapping[str, Any]
    answer: Any


@dataclass(frozen=True)
class Question:
    """`name` is the grade_id of the check cell; `ask` an expression in the notebook's names and the inputs'.

    Raises: ValueError for what could not be asked or could not be judged.
    """

    name: str
    ask: str
    cases: tuple[Case, ...]
    points: float = 1.0
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError(f"question {self.name} has no cases")
        if not (0 < self.points < math.inf and 0 <= self.tolerance < 1):
            raise ValueError(f"question {self.name}: points = {self.points}, tolerance = {self.tolerance}")
        try:
            compile(self.ask, self.name, "eval")
        except SyntaxError as error:
            raise ValueError(f"question {self.name}: {self.ask!r} is no expression: {error.msg}") from None
        for number, case in enumerate(self.cases):
            dumps(dict(case.inputs))
            answer = loads(dumps(case.answer))
            if said := compare(answer, answer, 0.0):
                raise ValueError(f"question {self.name}, case {number}: the reference does not equal itself: {said}")


@dataclass(frozen=True)
class Failure:
    """Instead of an answer: what is known of why there is none."""

    reason: str


@dataclass(frozen=True)
class Mark:
    points: float
    reason: str


def judge(question: Question, answers: Mapping[int, Any], without: str) -> Mark:
    """All points where every case is right. `without` says why answers that are not there are missing."""
    for number, case in enumerate(question.cases):
        answer = answers.get(number, Failure(without))
        said = answer.reason if isinstance(answer, Failure) else compare(answer, case.answer, question.tolerance)
        if said:
            which = f"case {number + 1} of {len(question.cases)}: " if len(question.cases) > 1 else ""
            return Mark(0.0, which + said)
    return Mark(question.points, "right")


def failed(name: Any) -> Failure:
    """An exception's name, where it is one of Python's."""
    if name == "Refused":
        return Failure("the answer is no number, array, string or plain collection of these, or it is too large")
    return Failure(f"raised {name}" if isinstance(name, str) and name in ERRORS else "raised an exception")


def compare(answer: Any, reference: Any, tolerance: float) -> str:
    """What is wrong with the answer, or ""."""
    reference = loads(dumps(reference))  # tensors as arrays, tuples as lists
    if reference is None:
        return "" if answer is None else "not None"
    if isinstance(reference, str):
        return "" if isinstance(answer, str) and answer == reference else "not the right text"
    if isinstance(reference, dict):
        if not isinstance(answer, dict) or set(answer) != set(reference):
            return f"not a dictionary with the keys {', '.join(sorted(reference))}"
        parts = [(f"[{key!r}]", answer[key], reference[key]) for key in sorted(reference)]
    elif isinstance(reference, list):
        if not (isinstance(answer, list) or (isinstance(answer, np.ndarray) and answer.ndim)):
            return f"not a list or tuple of {len(reference)}"
        if len(answer) != len(reference):
            return f"{len(reference)} parts are expected"
        parts = [(f"[{k}]", one, other) for k, (one, other) in enumerate(zip(answer, reference, strict=True))]
    else:
        return numbers(answer, np.asarray(reference), tolerance)
    for place, one, other in parts:
        if said := compare(one, other, tolerance):
            return f"{place}: {said}"
    return ""


def numbers(answer: Any, reference: np.ndarray, tolerance: float) -> str:
    kind = f"shape {reference.shape}" if reference.ndim else "one number"
    try:
        array = np.asarray(flat(answer))
    except (ValueError, TypeError):
        return f"{kind} is expected"
    if array.dtype.kind not in "biufc":
        return f"{kind} is expected"
    if array.shape != reference.shape:
        return f"{kind} is expected"
    if reference.dtype.kind == "b":
        right = array.dtype.kind == "b" and bool((array == reference).all())
        return "" if right else "not the right truth values"
    wide = np.complex128 if "c" in array.dtype.kind + reference.dtype.kind else np.float64
    array, reference = array.astype(wide), reference.astype(wide)
    finite = np.isfinite(reference)
    if not np.isfinite(array[finite]).all():
        return "not finite"
    if not np.array_equal(array[~finite], reference[~finite], equal_nan=True):
        return "finite where it should not be"
    scale = np.abs(reference[finite]).max(initial=0.0) or 1.0
    with np.errstate(all="ignore"):  # a difference may overflow, and is then too large
        right = (np.abs(array - reference)[finite] <= tolerance * scale).all()
    return "" if right else "not the right value"


def flat(answer: Any) -> Any:
    """Lists of numbers, where an array is expected; anything else in them is refused."""
    if isinstance(answer, list):
        return [flat(part) for part in answer]
    if isinstance(answer, np.ndarray | np.generic):
        return answer
    if isinstance(answer, bool | int | float):
        return answer if not isinstance(answer, int) or abs(answer) < 2**63 else float(answer)
    raise TypeError
