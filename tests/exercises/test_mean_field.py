"""The answers, the plausible wrong answers and the solutions' claims of the page on mean field."""

import math
import tomllib
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
import torch
from answers import assert_computed, assert_hints

from lecturecode import seeded
from lecturecode.boltzmann import BoltzmannMachine, ising

f64 = torch.float64
TABLE = tomllib.loads(files("lecturecode").joinpath("answers/mean_field.toml").read_text(encoding="utf-8"))


def root(slope):
    """The positive solution of m = tanh(slope·m), by bisection."""
    low, high = 1e-6, 1.0
    for _ in range(200):
        m = (low + high) / 2
        low, high = (m, high) if math.tanh(slope * m) > m else (low, m)
    return (low + high) / 2


def entropy_of(p):
    return -sum(v * math.log(v) for v in p if v > 0)


def log_partition(beta):
    """Two spins bound by J = 1: four terms."""
    return math.log(sum(math.exp(beta * s * t) for s in (-1, 1) for t in (-1, 1)))


def tail(x):
    """½ erfc(x/√2) by a sum over the Gaussian density."""
    t = np.linspace(x, x + 12, 1_200_001)
    y = np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
    return float((y.sum() - (y[0] + y[-1]) / 2) * (t[1] - t[0]))


ONE_SIDE, MIXTURE = [0.81, 0.09, 0.09, 0.01], [0.41, 0.09, 0.09, 0.41]
GAP = log_partition(0.5) - 2 * math.log(2)
COMPUTED = {
    "meanfield-pair": (GAP, [log_partition(0.5), GAP / 0.5, log_partition(1.0) - 2 * math.log(2)]),
    "meanfield-ring": (root(2), [root(4), 0.0, math.tanh(2)]),
    "meanfield-sides": (
        entropy_of(MIXTURE) - entropy_of(ONE_SIDE),
        [math.log(2), 2 * (math.log(2) - entropy_of([0.9, 0.1])), entropy_of(MIXTURE)],
    ),
    "hopfield-bits": (
        1001 * tail(math.sqrt(10)),
        [2 * 1001 * tail(math.sqrt(10)), tail(math.sqrt(10)), 1001 * tail(math.sqrt(20))],
    ),
    "hopfield-vote": (-3 * 0.5**2 / 2, [-1 / 2, -(0.5**2) / 2, -3 * 0.5**2]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_pair_by_the_machine():
    pair = BoltzmannMachine(torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=f64), torch.zeros(2, dtype=f64))
    assert pair.log_partition(0.5).item() == pytest.approx(math.log(4 * math.cosh(0.5)), rel=1e-14)
    assert torch.linalg.eigvalsh(pair.couplings.detach())[-1].item() == pytest.approx(1)


def test_solution_of_the_ring_the_exact_mean_is_zero_and_two_walls_cost_four():
    ring = ising(1, 10, periodic=True)
    assert ring.moments().mean.abs().max() < 1e-12
    s = torch.ones(2, 10, dtype=f64)
    s[1, 3:7] = -1
    plain, turned = ring.energy(s).tolist()
    assert turned - plain == 4


def test_solution_of_the_ring_the_map_falls_to_the_root():
    m = [1.0]
    for _ in range(40):
        m.append(math.tanh(2 * m[-1]))
    assert all(a >= b for a, b in pairwise(m))
    assert m[-1] == pytest.approx(root(2), rel=1e-12)


def test_solution_of_the_sides_the_tables():
    up = [(1 + 0.8 * s) / 2 * (1 + 0.8 * t) / 2 for s in (1, -1) for t in (1, -1)]
    assert up == pytest.approx(ONE_SIDE)
    assert [(a + b) / 2 for a, b in zip(up, up[::-1], strict=True)] == pytest.approx(MIXTURE)


def test_solution_of_the_bits_is_less_than_one_in_a_thousand():
    assert 1001 * math.erfc(math.sqrt(5)) / 2 == pytest.approx(COMPUTED["hopfield-bits"][0], rel=1e-6)
    assert COMPUTED["hopfield-bits"][0] < 1001 / 1000


def test_solution_of_the_vote_in_a_real_memory():
    """100,001 units, three fair patterns: overlap ½ within 5 standard deviations 5·√(3/4)/√n, and every unit agrees
    with the field ½(ξ¹ + ξ² + ξ³), up to terms of order 1/√n, against a least size of ½."""
    n = 100_001
    patterns = torch.where(torch.rand(3, n, generator=seeded(1), dtype=f64) < 0.5, -1.0, 1.0).to(f64)
    vote = patterns.sum(0).sign()
    overlaps = patterns @ vote / n
    assert (overlaps - 0.5).abs().max() < 5 * math.sqrt(0.75 / n)
    field = overlaps @ patterns - 3 / n * vote
    assert (field * vote > 0.4).all()
    assert (-n / 2 * overlaps.square().sum() + 3 / 2).item() / n == pytest.approx(-3 / 8, abs=0.02)
