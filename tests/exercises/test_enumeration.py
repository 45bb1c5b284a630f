"""The answers, the plausible wrong answers and the solutions' claims of the page on the three-group product."""

import itertools
import json
import math
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from answers import assert_computed, assert_hints
from scipy.optimize import brentq

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/enumeration.toml").read_text(encoding="utf-8"))


def exponentials(n, k, factors=4, with_w=True):
    """Of a row of X and of Y by outer products of halves, row by row, and of the table W."""
    rows = 2 ** (n - 2 * k)
    return float(rows * factors * 2 ** (k // 2) + (4**k if with_w else 0))


def full_tables(n, k):
    return float(2 * 2 ** (n - k) + 4**k)


def margin(smallest=87, n=24, delta=1e-6):
    """The ℓ − log Z̃ at which 2^n exp(ℓ − smallest)/Z̃ is δ, by bisection."""
    low, high = -1000.0, 1000.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle - smallest + n * math.log(2) < math.log(delta) else (low, middle)
    return low


HALF_LOG_2 = 0.5 * math.log(2)


def held(bias=HALF_LOG_2, coupled=0.0, value=1, others=(-1, 1)):
    """P(s₁ = value), by all configurations in which the two others take these values."""
    weights = {
        s: math.exp(0.5 * math.log(3) * s[0] * (s[1] + s[2]) + coupled * s[1] * s[2] + bias * s[0])
        for s in itertools.product((-1, 1), others, others)
    }
    return sum(w for s, w in weights.items() if s[0] == value) / sum(weights.values())


COMPUTED = {
    "groups-exponentials": (
        exponentials(30, 8),
        [full_tables(30, 8), exponentials(30, 8, with_w=False), exponentials(30, 8, factors=2)],
    ),
    "groups-margin": (margin(), [margin(708), margin(n=0), margin(delta=1e6)]),
    "groups-held": (held(), [held(math.log(2)), held(value=-1), held(others=(1,))]),
    "groups-symmetry": (40 - math.log(2), [40 + math.log(2), 20.0]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_exponentials_one_for_a_thousand():
    assert 2**30 / exponentials(30, 8) == pytest.approx(1000, rel=0.05)


def test_solution_of_the_held_unit_does_not_know_the_others_coupling():
    assert [held(coupled=J) for J in np.linspace(-2, 2, 9)] == pytest.approx([2 / 3] * 9, rel=1e-12)


@pytest.mark.parametrize("wanted", [-3.0, -0.1, 0.1, 3.0])
def test_the_trap_a_hidden_spin_makes_a_term_of_three(wanted):
    """log Σ_h exp(h(w(s₁+s₂+s₃) + c)) has the coefficient of s₁s₂s₃ that one asks for, with c = ∓2w."""
    S = np.array(list(itertools.product((-1, 1), repeat=3)))

    def coefficient(w):
        field = w * (S.sum(1) - 2 * np.sign(wanted))
        return float(S.prod(1) @ np.logaddexp(field, -field)) / 8

    w = brentq(lambda w: coefficient(w) - wanted, 0, 20)
    assert coefficient(w) == pytest.approx(wanted, rel=1e-9)
    assert coefficient(0.0) == 0


def test_the_figure_draws_what_the_benchmark_kept():
    """A notebook finds the results beside the package; they are those of benchmarks/results."""
    kept = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "enumeration.json"
    packed = files("lecturecode").joinpath("data", "enumeration.json")
    assert json.loads(packed.read_text(encoding="utf-8")) == json.loads(kept.read_text(encoding="utf-8"))
