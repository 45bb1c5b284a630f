"""The answers, the plausible wrong answers and the solutions' claims of the page on Monte Carlo."""

import math
import tomllib
from importlib.resources import files

import numpy as np
import pytest
from answers import assert_computed, assert_hints

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/monte_carlo.toml").read_text(encoding="utf-8"))


def step_for(excess, variance=lambda tau: 2 * tau / (1 - (1 - tau) ** 2)):
    """The τ in (0, 2) whose stationary variance is 1 + excess, by bisection."""
    low, high = 1e-9, 1.9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if variance(middle) < 1 + excess else (low, middle)
    return low


def time_of(mu, lags=4000):
    """1 + 2 Σ μ^t, term by term."""
    return 1 + 2 * math.fsum(mu**t for t in range(1, lags))


def spin_time(rise, heat_bath=False):
    """The autocorrelation time of one spin from its 2 × 2 matrix; up is lower by `rise`."""
    down = 1 / (1 + math.exp(rise)) if heat_bath else math.exp(-rise)
    up = 1 - down if heat_bath else 1.0
    T = np.array([[1 - up, down], [up, 1 - down]])  # states: down, up
    return time_of(np.sort(np.linalg.eigvals(T).real)[0], 200)


J = math.asinh(1) / 2  # sinh 2J = 1
Q, C = 1 - math.exp(-2 * J), 1 / math.sqrt(2)


def steps_home(size, sign=1):
    """The smallest number of leapfrog steps on N(0, 1) after which the map is `sign` times the identity."""
    one = np.array([[1 - size**2 / 2, size], [-size * (1 - size**2 / 4), 1 - size**2 / 2]])
    whole = np.eye(2)
    for k in range(1, 100):
        whole = one @ whole
        if np.abs(whole - sign * np.eye(2)).max() < 1e-9:
            return k
    raise AssertionError(f"no path of step {size} closes within 100 steps")


COMPUTED = {
    "mc-langevin": (
        step_for(0.05),
        [
            step_for(0.05, lambda tau: 1 + tau / 2),
            step_for(0.05, lambda tau: 1 / (1 - tau)),
            time_of(1 - step_for(0.05)),
        ],
    ),
    "mc-spin": (spin_time(2.0), [1 / spin_time(2.0), spin_time(1.0), spin_time(2.0, heat_bath=True)]),
    "mc-error": (
        math.sqrt(time_of(0.9) / 1e4),
        [
            math.sqrt(1 / 1e4),
            math.sqrt((1 + (time_of(0.9) - 1) / 2) / 1e4),
            time_of(0.9) / 1e4,
            time_of(0.9) / math.sqrt(1e4),
        ],
    ),
    "mc-bonds": (Q * (1 + C) / 2, [Q, Q * C, (1 + C) / 2]),
    "mc-path": (steps_home(1.0), [steps_home(1.0, -1), 2 * math.pi, 2 * steps_home(1.0)]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_step():
    """A bias of 1/k for k steps a draw, for several k."""
    assert step_for(0.05) == pytest.approx(0.0952, abs=5e-5)
    assert time_of(1 - step_for(0.05)) == pytest.approx(20, rel=1e-9)
    for k in (5, 40):
        assert time_of(1 - step_for(1 / k)) == pytest.approx(k, rel=1e-6)


def test_solution_of_the_spin():
    assert spin_time(2.0) == pytest.approx(math.tanh(1), rel=1e-12)
    assert spin_time(2.0) == pytest.approx(0.7616, abs=5e-5)
    assert spin_time(2.0, heat_bath=True) == pytest.approx(1, abs=1e-12)


def test_solution_of_the_error():
    """The finite sum differs from 0.0436 in the fourth digit that is not zero, and no earlier."""
    assert time_of(0.9) == pytest.approx(19, rel=1e-12)
    assert math.sqrt(19) == pytest.approx(4.4, abs=0.05)
    finite = math.sqrt((1 + 2 * math.fsum((1 - t / 1e4) * 0.9**t for t in range(1, 10_000))) / 1e4)
    infinite = math.sqrt(19 / 1e4)
    assert f"{infinite:.4f}" == "0.0436"
    assert f"{finite:.4f}" == f"{infinite:.4f}"
    assert f"{finite:.5f}" != f"{infinite:.5f}"


def test_the_correlation_of_neighbours_at_the_critical_point():
    """∂/∂J of Onsager's log Z per spin is twice the correlation: at J, and about J, where it is continuous."""
    angle = (np.arange(4000) + 0.5) * math.pi / 4000
    waves = np.cos(angle)[:, None] + np.cos(angle)

    def slope(J):
        c, s = math.cosh(2 * J), math.sinh(2 * J)
        return ((4 * c * s - 2 * c * waves) / (c * c - s * waves)).mean() / 2

    assert slope(J) / 2 == pytest.approx(C, rel=1e-12)
    assert (slope(J + 1e-3) + slope(J - 1e-3)) / 4 == pytest.approx(C, abs=1e-4)


def test_solution_of_the_bonds():
    assert math.exp(-2 * J) == pytest.approx(math.sqrt(2) - 1, rel=1e-14)
    assert pytest.approx(2 - math.sqrt(2), rel=1e-14) == Q
    share = Q * (1 + C) / 2
    assert share == pytest.approx((2 - math.sqrt(2)) * (2 + math.sqrt(2)) / 4, rel=1e-14)


def test_solution_of_the_path():
    assert steps_home(1.0) == 6
    assert steps_home(1.0, -1) == 3
    assert 6 * math.acos(1 - 1 / 2) == pytest.approx(2 * math.pi, rel=1e-14)
