"""The answers, the plausible wrong answers and the solutions' claims of the page on hierarchies."""

import math
import tomllib
from importlib.resources import files

import numpy as np
import pytest
from answers import assert_computed, assert_hints

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/hierarchies.toml").read_text(encoding="utf-8"))


def information(correlation):
    """−½ log det of the correlation matrix of two Gaussians."""
    return float(-0.5 * np.linalg.slogdet(np.array([[1.0, correlation], [correlation, 1.0]]))[1])


def gap(a2, g):
    """½ [Σ log Λ_jj − log det Λ] for the posterior's precision of the two-level chain."""
    a = math.sqrt(a2)
    precision = np.array([[g + 1 / (1 - a2), -a / (1 - a2)], [-a / (1 - a2), 1 / (1 - a2)]])
    return float(0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1]))


def levels(alpha2, start, below=0.001):
    """The first level whose divergence from N(0, 1) is small, by walking the variance."""
    variance, count = start, 0
    while 0.5 * (variance - 1 - math.log(variance)) >= below:
        variance, count = alpha2 * variance + 1 - alpha2, count + 1
    return count


def trap(alpha):
    """(b Cov, Cov/c · b) with the covariance of the two levels given x from the noises of both steps."""
    root = math.sqrt(1 - alpha**2)
    noise = np.array([[root, 0.0], [alpha * root, root]])
    covariance = (noise @ noise.T)[0, 1]
    return alpha * covariance, alpha * covariance / (1 - alpha**2)


COMPUTED = {
    "hierarchy-swap": (-information(0.6), [information(0.6), -2 * information(0.6), -information(0.8)]),
    "hierarchy-mean-field": (gap(0.5, 1.0), [gap(0.5, 0.0), 2 * gap(0.5, 1.0), gap(math.sqrt(0.5), 1.0)]),
    "hierarchy-levels": (levels(0.81, 4.0), [levels(0.81, 4.0) - 1, levels(0.9, 4.0), levels(0.81, 5.0)]),
    "hierarchy-trap": (trap(0.9)[1], [trap(0.9)[0], 0.9]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_levels_the_small_shift():
    """(δ − log(1 + δ))/2 is near δ²/4, and below 0.001 just where δ < 0.065."""
    for delta, small in ((0.0645, True), (0.0655, False)):
        exact = 0.5 * (delta - math.log1p(delta))
        assert (exact < 0.001) == small
        assert exact == pytest.approx(delta**2 / 4, rel=0.05)


def test_solution_of_the_trap_the_optimum_moves():
    """The mean square of h₁ − b h₂ over data, with the levels drawn together and apart, on a grid of b."""
    alpha, grid = 0.9, np.linspace(0.5, 1.0, 5001)
    together, apart = (1 - 2 * grid * c + grid**2 for c in (alpha, alpha**3))
    assert grid[together.argmin()] == pytest.approx(alpha, abs=1e-4)
    assert grid[apart.argmin()] == pytest.approx(alpha**3, abs=1e-4)
