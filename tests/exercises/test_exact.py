"""The answers, the plausible wrong answers and the solutions' claims of the page on exact Boltzmann machines."""

import itertools
import math
import tomllib
from importlib.resources import files

import numpy as np
import pytest
from answers import assert_computed, assert_hints
from scipy.optimize import brentq

TABLE = tomllib.loads(files("lecturecode").joinpath("answers/exact.toml").read_text(encoding="utf-8"))


def energy_of_a_pair(beta):
    """⟨E⟩ for E = −s₁s₂, over the four configurations."""
    levels = [-a * b for a, b in itertools.product((-1, 1), repeat=2)]
    weights = [math.exp(-beta * e) for e in levels]
    return sum(w * e for w, e in zip(weights, levels, strict=True)) / sum(weights)


def bias_for(mean):
    """The b of one spin with this mean."""
    return float(brentq(lambda b: math.exp(2 * b) * (1 - mean) - (1 + mean), -5, 5, xtol=1e-14))


def constant(half=0.5, sign=-1):
    """c' of the two spins, with the factor of the couplings and the sign of the biases to choose."""
    J, b = np.array([[0, 0.5], [0.5, 0]]), np.array([0.2, -0.1])
    return half * J.sum() + sign * b.sum()


def around(length, distance, t=0.5):
    """Correlation on a ring, by the sum over all configurations; tanh βJ = t."""
    K, top, bottom = math.atanh(t), 0.0, 0.0
    for s in itertools.product((-1, 1), repeat=length):
        weight = math.exp(K * sum(s[k] * s[(k + 1) % length] for k in range(length)))
        top, bottom = top + weight * s[0] * s[distance], bottom + weight
    return top / bottom


def lowest(side):
    """Number of lowest configurations of the torus with J = −1."""
    S = np.array(list(itertools.product((-1, 1), repeat=side * side))).reshape(-1, side, side)
    E = (S * np.roll(S, 1, 1)).sum((1, 2)) + (S * np.roll(S, 1, 2)).sum((1, 2))
    return int((E.min() == E).sum())


POINTS = [1] * 8 + [-1] * 2
MEAN = sum(POINTS) / len(POINTS)
BIAS = bias_for(MEAN)
ONE_TANH, TEN = sum(POINTS) - math.tanh(BIAS), sum(POINTS) - len(POINTS) * math.tanh(BIAS)
BETA = float(brentq(lambda x: energy_of_a_pair(x) + 0.5, 0, 3, xtol=1e-14))
COMPUTED = {
    "exact-temperature": (BETA, [-BETA, 0.5, 2 * BETA]),
    "exact-lost-n": (ONE_TANH, [BIAS, TEN, ONE_TANH / len(POINTS)]),
    "exact-constant": (-constant(), [constant(), -constant(half=1.0), -constant(sign=1)]),
    "exact-ring": (around(6, 3), [0.5**3, 2 * 0.5**3, around(6, 2)]),
    "exact-cold": (math.log(lowest(3)), [math.log(lowest(4)), float(lowest(3)), 9 * math.log(2)]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_lost_n_it_vanishes_nowhere():
    assert min(sum(POINTS) - math.tanh(b) for b in np.linspace(-10, 10, 2001)) > 5
    assert pytest.approx(0, abs=1e-12) == TEN


def test_solution_of_the_constant_the_other_numbers():
    J, b = np.array([[0, 0.5], [0.5, 0]]), np.array([0.2, -0.1])
    assert (4 * J)[0, 1] == 2
    assert 2 * b - 2 * J.sum(1) == pytest.approx([-0.6, -1.2], abs=1e-15)


def test_solution_of_the_cold_entropy_one_broken_bond_in_each_line():
    S = np.array(list(itertools.product((-1, 1), repeat=9))).reshape(-1, 3, 3)
    broken = [(S * np.roll(S, 1, axis) > 0).sum(axis) for axis in (1, 2)]
    one_each = np.all([(b == 1).all(1) for b in broken], axis=0)
    assert one_each.sum() == lowest(3) == 102
    assert all((b % 2 == 1).all() for b in broken)
