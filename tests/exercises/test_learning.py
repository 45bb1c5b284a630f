"""The answers, the plausible wrong answers and the solutions' claims of the page on learning with hidden units."""

import itertools
import math
import tomllib
from importlib.resources import files

import numpy as np
import pytest
from answers import assert_computed, assert_hints

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/learning.toml").read_text(encoding="utf-8"))


def root(g, low, high):
    """The zero of a rising g, by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if g(middle) < 0 else (low, middle)
    return low


def log_sum(units, hidden=1):
    """log Z of `units` bits joined by weights of one to one bit, added up state by state."""
    return math.log(
        sum(math.exp(sum(x) * h) for h in range(hidden + 1) for x in itertools.product((0, 1), repeat=units))
    )


def steps_until(share, w, factor=2):
    """The first k with tanh(w)^{factor k} at most `share`, by counting."""
    return next(k for k in itertools.count(1) if math.tanh(w) ** (factor * k) <= share)


def spread(grid, b=2.0):
    """E[w²]/E[w]² − 1 of one spin with fresh draws at every β of the grid, by sums over its two states."""
    total = 1.0
    for low, high in itertools.pairwise(grid):
        f, g = (np.exp(b * beta * np.array([-1.0, 1.0])) for beta in (low, high))
        p = f / f.sum()
        total *= (p @ (g / f) ** 2) / (p @ (g / f)) ** 2
    return total - 1


def mean_of_x(scale, sigma=3.0, a=1.0, push=0.4):
    """The mean of e^{−½((x−a)/σ)² + x push/scale} on a grid."""
    grid = np.linspace(-80, 90, 40_001)
    f = np.exp(-0.5 * ((grid - a) / sigma) ** 2 + grid / scale * push)
    return f @ grid / f.sum()


COMPUTED = {
    "learning-bond": (
        root(lambda w: math.cosh(2 * w) - math.exp(1.0), 0, 3),
        [
            root(lambda w: math.cosh(w) - math.exp(1.0), 0, 4),
            root(lambda w: math.cosh(2 * w) - math.exp(0.5), 0, 3),
            0.5,
        ],
    ),
    "learning-layer": (
        log_sum(10),
        [10 * math.log(1 + math.e), log_sum(10) - 11 * math.log(2), 11 * math.log(2)],
    ),
    "learning-gaussian": (
        mean_of_x(1.0) - 1.4,
        [mean_of_x(3.0) - 1.4, mean_of_x(1.0) - 1.0, mean_of_x(1.0)],
    ),
    "learning-cd": (
        steps_until(0.01, 2),
        [steps_until(0.01, 2, factor=1), steps_until(0.01, 1), steps_until(0.1, 2)],
    ),
    "learning-ais": (
        spread([0, 1]) / 0.01**2,
        [(spread([0, 1]) + 1) / 0.01**2, spread([0, 1]) / 0.01, spread([0, 0.5, 1]) / 0.01**2],
    ),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_bond_what_the_spin_passes_on():
    w = COMPUTED["learning-bond"][0]
    assert w > 0.5
    assert w == pytest.approx(0.8287, abs=5e-5)
    assert math.tanh(0.5) == pytest.approx(math.tanh(w) ** 2, rel=1e-12)


def test_solution_of_the_layer_has_two_terms():
    assert math.exp(log_sum(10)) == pytest.approx(2**10 + (1 + math.e) ** 10, rel=1e-12)
    assert log_sum(10) == pytest.approx(13.1346, abs=5e-5)
    assert 2**10 == 1024


def test_solution_of_the_gaussian_is_more_than_one_sigma():
    assert COMPUTED["learning-gaussian"][0] == pytest.approx(3.2, rel=1e-10)
    assert COMPUTED["learning-gaussian"][0] > 3


def test_solution_of_the_steps():
    assert math.log(0.01) / (2 * math.log(math.tanh(2))) == pytest.approx(62.9, abs=0.05)
    assert math.log(0.01) / (2 * math.log(math.tanh(1))) == pytest.approx(8.5, abs=0.05)
    assert steps_until(0.01, 1) == 9


def test_solution_of_the_chains():
    assert spread([0, 1]) == pytest.approx(0.9293, abs=5e-5)
    assert spread([0, 0.5, 1]) == pytest.approx(0.7342, abs=5e-5)
    assert [int(spread(grid) / 1e-4 + 0.5) for grid in ([0, 1], [0, 0.5, 1])] == [9293, 7342]
    assert 2 * spread([0, 0.5, 1]) > spread([0, 1])  # chains of twice the length cost more in all
