"""The answers, the plausible wrong answers and the solutions' claims of the page on training."""

import math
import tomllib
from importlib.resources import files

import numpy as np
import pytest
import scipy.integrate
from answers import assert_computed, assert_hints

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/training.toml").read_text(encoding="utf-8"))


def tilted_variance(v, s):
    return 1 / (s / v + 1 - s)


def overshoot(v, s):
    """The sampler's mean over the conditional one, by quadrature."""
    integral, _ = scipy.integrate.quad(
        lambda w: (v + w) ** (-1 - s / 2) * (1 + w) ** ((s - 1) / 2), 0, math.inf, epsrel=1e-12
    )
    return v ** (s / 2) * s / 2 * integral


def averaged(d, a, terms=6000):
    """(1−d)² Σ d^{i+j} a^{|i−j|}, summed along the diagonals."""
    lags = np.arange(1, terms)
    return float((1 - d) ** 2 / (1 - d**2) * (1 + 2 * (d**lags * a**lags).sum()))


def floor(dimensions, *sizes):
    return (dimensions + dimensions * (dimensions + 1) / 4) * sum(1 / n for n in sizes)


def share(k):
    return 2 * math.sqrt(2) / (4**k * math.factorial(k))


def first(values, below=1e-6):
    return next(k for k, value in enumerate(values) if value < below)


COMPUTED = {
    "dtrain-width": (0.25**3, [tilted_variance(0.25, 3), 0.25**1.5, 0.25 / 3]),
    "dtrain-overshoot": (overshoot(0.5, 5), [5 / (5 - 4 * 0.5), overshoot(0.5, 3), 5.0]),
    "dtrain-average": (
        averaged(0.99, 0.9),
        [averaged(0.99, 0.0), math.sqrt(averaged(0.99, 0.9)), averaged(0.99, 0.0) ** 2 / averaged(0.99, 0.9)],
    ),
    "dtrain-floor": (
        floor(10, 1200, 297),
        [10 * (1 / 1200 + 1 / 297), floor(10, 297), (10 + 10 * 11 / 2) * (1 / 1200 + 1 / 297)],
    ),
    "dtrain-rank": (
        first(share(k) for k in range(20)),
        [
            first((share(k) for k in range(20)), below=1e-4),
            first(2 * math.sqrt(2) / 4**k for k in range(20)),
            first(share(k) for k in range(20)) + 1,
        ],
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


def test_solution_of_the_width():
    assert 0.25**3 == 1 / 64
    assert tilted_variance(0.25, 3) == pytest.approx(1 / 10, rel=1e-14)
    assert [0.25 / (1 / 64), 0.25 / tilted_variance(0.25, 3)] == pytest.approx([16, 2.5], rel=1e-14)


def test_solution_of_the_overshoot():
    assert [5 / 4 + 5 / 6 + 1 / 4, overshoot(0.5, 5)] == pytest.approx([7 / 3, 7 / 3], rel=1e-10)
    tilted = 5 / (5 - 4 * 0.5)
    assert tilted == pytest.approx(5 / 3, rel=1e-14)


def test_solution_of_the_average():
    closed = 0.01 / 1.99 * 1.891 / 0.109
    assert averaged(0.99, 0.9) == pytest.approx(closed, rel=1e-12)
    assert [closed, 1 / 199] == pytest.approx([0.0872, 0.0050], abs=5e-5)
    assert closed * 199 == pytest.approx(17.3, abs=0.05)


def test_solution_of_the_floor():
    assert floor(10, 1200, 297) == pytest.approx(0.1575, abs=5e-5)
    assert floor(10, 297) == pytest.approx(0.126, abs=5e-4)
    means = 10 * (1 / 1200 + 1 / 297)
    assert means / floor(10, 1200, 297) == pytest.approx(10 / 37.5, rel=1e-12)
    assert 1 / 5 < 10 / 37.5 < 1 / 3  # a quarter


def test_solution_of_the_rank():
    assert [share(5), share(6), share(7)] == pytest.approx([2.3e-5, 9.6e-7, 3.4e-8], rel=0.02)
    assert share(7) < 2.0**-24
