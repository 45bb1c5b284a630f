"""The answers, the plausible wrong answers and the solutions' claims of the page on Markov chains."""

import math
import tomllib
from fractions import Fraction
from importlib.resources import files

import numpy as np
import pytest
import torch
from answers import assert_computed, assert_hints

from lecturecode.markov import MarkovChain

f64 = torch.float64
TABLE = tomllib.loads(files("lecturecode").joinpath("answers/chains.toml").read_text(encoding="utf-8"))
MOLECULE = [[Fraction(v, 10) for v in row] for row in ((9, 4, 1), (1, 5, 2), (0, 1, 7))]


def cofactor(j):
    """The cofactor of the diagonal entry j of 1 − T: P*_j is proportional to it."""
    a, b = [k for k in range(3) if k != j]
    M = [[(r == c) - MOLECULE[r][c] for c in (a, b)] for r in (a, b)]
    return M[0][0] * M[1][1] - M[0][1] * M[1][0]


def first_below(start, factor, level):
    m = 0
    while start > level:
        start, m = start * factor, m + 1
    return float(m)


def ladder(won, coins, top):
    """Probability to reach `top`, by solving the recursion as a linear system in fractions turned to floats."""
    A, b = np.eye(top + 1), np.zeros(top + 1)
    b[top] = 1
    for k in range(1, top):
        A[k, k + 1], A[k, k - 1] = -won, -(1 - won)
    return float(np.linalg.solve(A, b)[coins])


WEIGHTS = [cofactor(j) for j in range(3)]
RING = sorted(math.cos(2 * math.pi * k / 5) for k in range(5))
BINOMIAL = math.comb(12, 6) / 2**12
GOLDEN = (math.sqrt(5) - 1) / 2  # solves α = 1 − α²
COMPUTED = {
    "chains-molecule": (
        float(WEIGHTS[2] / sum(WEIGHTS)),
        [1 / 3, float(WEIGHTS[2] / WEIGHTS[0]), float(MOLECULE[2][1])],
    ),
    "chains-looks": (
        first_below(0.75, 0.6, 0.01),
        [first_below(0.75, 0.6, 0.01) - 1, first_below(0.25, 0.6, 0.01), first_below(1.5, 0.6, 0.01)],
    ),
    "chains-odd-ring": (1 - max(abs(v) for v in RING[:-1]), [1 - RING[-2], max(abs(v) for v in RING[:-1])]),
    "chains-return": (1 / BINOMIAL, [BINOMIAL, 2.0, 13.0]),
    "chains-player": (ladder(0.4, 3, 10), [ladder(0.5, 3, 10), ladder(0.6, 3, 10), 1 - ladder(0.4, 3, 10)]),
    "chains-half": (math.log(2) / 2, [math.log(2), -math.log(GOLDEN)]),
}


def test_every_exercise_of_the_table_is_computed_here():
    assert sorted(COMPUTED) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_table_holds_what_is_computed(name):
    assert_computed(TABLE[name], *COMPUTED[name])


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_the_right_answer_is_right_and_each_wrong_one_gets_its_hint(name, capsys):
    assert_hints(name, TABLE[name], *COMPUTED[name], capsys=capsys)


def test_solution_of_the_molecule():
    total = sum(WEIGHTS)
    assert [w / total for w in WEIGHTS] == [Fraction(13, 17), Fraction(3, 17), Fraction(1, 17)]
    s2 = MOLECULE[0][2] + MOLECULE[1][2]
    assert MOLECULE[0][1] + MOLECULE[0][2] * MOLECULE[2][1] / s2 == Fraction(13, 30)
    chain = MarkovChain(torch.tensor([[float(v) for v in row] for row in MOLECULE], dtype=f64))
    assert chain.stationary().tolist() == pytest.approx([13 / 17, 3 / 17, 1 / 17], rel=1e-15)


def test_solution_of_the_looks():
    chain = MarkovChain(torch.tensor([[0.9, 0.3], [0.1, 0.7]], dtype=f64))
    assert chain.mixing_time(0.01) == COMPUTED["chains-looks"][0]
    assert chain.spectral_gap.item() == pytest.approx(0.4)
    assert math.log(75) / math.log(5 / 3) == pytest.approx(8.45, abs=0.005)
    assert round(0.75 * 0.6**8, 4) == 0.0126


def test_solution_of_the_odd_ring():
    one = torch.eye(5, dtype=f64)
    chain = MarkovChain((one.roll(1, 0) + one.roll(-1, 0)) / 2)
    assert chain.spectral_gap.item() == pytest.approx(1 - math.cos(math.pi / 5), rel=1e-13)
    assert pytest.approx([-0.809, -0.809, 0.309, 0.309, 1], abs=5e-4) == RING


def test_solution_of_the_return_by_hitting_times():
    k = torch.arange(13, dtype=f64)
    chain = MarkovChain(torch.diag(k[1:] / 12, 1) + torch.diag(1 - k[:-1] / 12, -1))
    times = chain.hitting_times([6])
    assert BINOMIAL < 1 / 4
    assert 1 + (times[5] + times[7]).item() / 2 == pytest.approx(COMPUTED["chains-return"][0], rel=1e-13)


def test_solution_of_the_player():
    T = torch.zeros(11, 11, dtype=f64)
    T[0, 0] = T[10, 10] = 1
    for k in range(1, 10):
        T[k + 1, k], T[k - 1, k] = 0.4, 0.6
    chances = MarkovChain(T).hitting_probabilities([10])
    assert chances[3].item() == pytest.approx(COMPUTED["chains-player"][0], rel=1e-12)
    assert chances[3].item() == pytest.approx(0.0419, abs=5e-5)


def test_solution_of_the_halves():
    kappa_t = COMPUTED["chains-half"][0]
    assert math.exp(-2 * kappa_t) == pytest.approx(1 - math.exp(-2 * kappa_t), rel=1e-15)
