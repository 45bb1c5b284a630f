"""The answers, the plausible wrong answers and the solutions' claims of the page on flow matching."""

import math
import tomllib
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from answers import assert_computed, assert_hints

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/flow_matching.toml").read_text(encoding="utf-8"))


def covariances(c, t):
    """Var u_t, Cov(u_t, x_t) and Var x_t of independent pairs on the straight path."""
    return 1 + c, t - (1 - t) * c, (1 - t) ** 2 * c + t**2


def least_loss(c, t):
    """What a linear regression of u_t on x_t leaves over."""
    whole, cross, var = covariances(c, t)
    return whole - cross**2 / var


def unknown(c, t):
    """Var[x_0 | x_t] from precisions."""
    return 1 / (1 / c + (1 - t) ** 2 / t**2)


def euler(c, times, x=1.0):
    for t, r in pairwise(times):
        _, cross, var = covariances(c, t)
        x = x + (r - t) * cross / var * x
    return x


def turned_around(c):
    """The second of two steps with the wrong sign."""
    _, cross, var = covariances(c, 0.5)
    return euler(c, (1.0, 0.5)) * (1 + 0.5 * cross / var)


def flowed(c, x=1.0):
    """dx/dt = u_t(x) from t = 1 to 0."""

    def field(t, y):
        _, cross, var = covariances(c, t)
        return cross / var * y

    return scipy.integrate.solve_ivp(field, (1, 0), [x], rtol=1e-11, atol=1e-13).y[0, -1]


def bends(c):
    """∫(ds/dt)² dt − (1 − √c)², s² = (1 − t)²c + t²."""
    energy = scipy.integrate.quad(lambda t: covariances(c, t)[1] ** 2 / covariances(c, t)[2], 0, 1)[0]
    return energy - (1 - math.sqrt(c)) ** 2


def crossings(c):
    return scipy.integrate.quad(lambda t: least_loss(c, t), 0, 1)[0]


def turned(degrees):
    """E|ε − Rε|² = tr (I − R)ᵀ(I − R)."""
    a = math.radians(degrees)
    return float(((np.eye(2) - [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) ** 2).sum())


def larger_of_two():
    """E max of two normal draws, from its density 2φΦ."""
    law = scipy.stats.norm
    return scipy.integrate.quad(lambda x: 2 * x * law.pdf(x) * law.cdf(x), -12, 12)[0]


def paired(rho, c=1.0):
    return 1 + c - 2 * rho * math.sqrt(c)


MEAN = larger_of_two()
HALF = (1.0, 0.5, 0.0)
COMPUTED: dict[str, tuple[float, list[float]]] = {
    "dflow-floor": (least_loss(4, 0.5), [0.0, unknown(4, 0.5), covariances(4, 0.5)[0]]),
    "dflow-two-steps": (
        euler(4, HALF),
        [flowed(4), euler(4, (1.0, 0.0)), turned_around(4)],
    ),
    "dflow-bends": (bends(9) + bends(1), [crossings(9) + crossings(1), bends(9), bends(81) + bends(1)]),
    "dflow-turn": (turned(90), [turned(0), turned(90) / 2]),
    "dflow-batch": (paired(MEAN**2), [paired(0), paired(MEAN), paired(2 * MEAN**2)]),
}


def test_the_table_has_these_exercises_and_no_other():
    assert set(TABLE) == set(COMPUTED)


@pytest.mark.parametrize("name", COMPUTED)
def test_answers_are_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", COMPUTED)
def test_hints(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys)


def test_solutions():
    assert unknown(4, 0.5) == pytest.approx(4 * 0.25 / 1.25)
    assert least_loss(4, 0.5) == pytest.approx(unknown(4, 0.5) / 0.25)
    for c in (0.3, 1.0, 4.0):
        assert euler(c, HALF) == pytest.approx(c / (1 + c))
        assert 1 - 0.5 * covariances(c, 0.5)[1] / covariances(c, 0.5)[2] == pytest.approx(1 - (1 - c) / (1 + c))
        assert flowed(c) == pytest.approx(math.sqrt(c), abs=1e-8)
    assert bends(9) + bends(1) == pytest.approx((2 - math.pi / 2) * 4)
    assert bends(1) > 0.4
    assert covariances(1, 0.3)[0] * 2 == pytest.approx(turned(90))  # independent pairs in the plane, E|ε − x_0|²
    assert larger_of_two() == pytest.approx(1 / math.sqrt(math.pi))
    assert [COMPUTED["dflow-bends"][0], paired(MEAN**2)] == pytest.approx([1.717, 1.363], abs=5e-4)
