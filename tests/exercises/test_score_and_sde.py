"""The answers, the plausible wrong answers and the solutions' claims of the page on the score."""

import math
import tomllib
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from answers import assert_computed, assert_hints

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/score_and_sde.toml").read_text(encoding="utf-8"))


def least_loss(V, alpha2):
    """min over the slope c of E(c x_t + ε/σ)², as no other score does better for Gaussian data."""
    sigma = math.sqrt(1 - alpha2)
    # E x_t² = α²V + σ², E x_t ε/σ = 1
    found: Any = scipy.optimize.minimize_scalar(
        lambda c: c**2 * (alpha2 * V + sigma**2) + 2 * c + 1 / sigma**2, bracket=(-1, 0), tol=1e-12
    )
    return found.fun


def correlation(kept, alpha):
    """Cov(x_0, x_T) of dx = −½ζ²g²x dt̄ + ζg dW̄ with g = 1, by the ordinary equation of the mean; ζ = kept."""
    clock = -2 * math.log(alpha)
    solved = scipy.integrate.solve_ivp(
        lambda _, m: (0.5 - 0.5 * (1 + kept**2)) * m, (0, clock), [1.0], rtol=1e-11, atol=1e-13
    )
    return solved.y[0, -1]


def flowed(V, x):
    """dx/dt = f x − ½g² score from α = e^{−20} back to data, in the clock with g = 1."""

    def back(s, y):
        kept = math.exp(-(40 - s))
        return 0.5 * y - 0.5 * y / (kept * V + 1 - kept)

    return scipy.integrate.solve_ivp(back, (0, 40), [x], rtol=1e-11, atol=1e-13).y[0, -1]


def kl(mine, theirs):
    """KL(N(0, mine) ‖ N(0, theirs)) by quadrature."""
    x = np.linspace(-30, 30, 60001)
    log_p, log_q = (-(x**2) / (2 * v) - math.log(2 * math.pi * v) / 2 for v in (mine, theirs))
    return float(np.trapezoid(np.exp(log_p) * (log_p - log_q), x))


def entropy(V):
    return math.log(2 * math.pi * math.e * V) / 2


COMPUTED = {
    "dscore-floor": (least_loss(4, 0.5), [1 / 0.5, 1 / 0.5 - least_loss(4, 0.5), 0.0]),
    "dscore-memory": (correlation(0.5, 0.2), [correlation(1, 0.2), correlation(0, 0.2), correlation(0.5**0.5, 0.2)]),
    "dscore-map": (flowed(9, 0.5), [flowed(1, 0.5), 0.5 * 9, 0.0]),
    "dscore-production": (
        kl(0.25, 1),
        [entropy(1) - entropy(0.25), kl(1, 0.25), entropy(1) - entropy(0.25) - kl(0.25, 1)],
    ),
}


def test_the_table_has_these_exercises_and_no_other():
    assert set(TABLE) == set(COMPUTED)


@pytest.mark.parametrize("name", COMPUTED)
def test_answers_are_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", COMPUTED)
def test_hints(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solutions():
    assert 2 - least_loss(4, 0.5) == pytest.approx(1 / (0.5 * 4 + 0.5), abs=1e-9)
    assert [0.2**0.25, correlation(0.5, 0.2)] == pytest.approx([0.669, 0.669], abs=5e-4)
    assert kl(0.25, 1) == pytest.approx((-0.75 + math.log(4)) / 2, abs=1e-9)
    assert [kl(0.25, 1), math.log(4) / 2] == pytest.approx([0.318, 0.693], abs=5e-4)
    assert flowed(9, 1.0) == pytest.approx(3, abs=1e-7)
