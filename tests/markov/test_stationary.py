"""Stationary vectors and hitting probabilities against exact rational arithmetic and closed forms, relative error."""

from fractions import Fraction
from typing import Any

import pytest
import torch

from lecturecode import seeded
from lecturecode.markov import MarkovChain, stationary
from lecturecode.markov.stationary import eliminate, gth, solve

f64 = torch.float64


def random_chain(n, seed=1, power=1, dtype=f64):
    T = torch.rand(n, n, generator=seeded(seed), dtype=f64).pow(power)
    return (T / T.sum(0)).to(dtype)


def falling_apart(rate, seed=2):
    """Three groups of three states, joined by rates of about `rate` and rate/1000: the columns sum to one."""
    T = torch.rand(9, 9, generator=seeded(seed), dtype=f64)
    group = torch.arange(9) // 3
    T = torch.where(group[:, None] == group, T, rate * T)
    T[:3, 6:] /= 1000
    return T / T.sum(0)


def solved_exactly(A, b):
    """A x = b in rational numbers, by Gaussian elimination."""
    n = len(A)
    rows: list[Any] = [[*row, value] for row, value in zip(A, b, strict=True)]
    for k in range(n):
        pivot = next(r for r in range(k, n) if rows[r][k] != 0)
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [v / rows[k][k] for v in rows[k]]
        for r in range(n):
            if r != k and rows[r][k] != 0:
                rows[r] = [v - rows[r][k] * w for v, w in zip(rows[r], rows[k], strict=True)]
    return [row[-1] for row in rows]


def exactly(T):
    """The chain whose off-diagonal entries are those of T, as fractions; the diagonal makes the columns sum to one."""
    n = len(T)
    F: list[Any] = [[Fraction(float(T[i, j])) for j in range(n)] for i in range(n)]
    for j in range(n):
        F[j][j] = 1 - sum(F[i][j] for i in range(n) if i != j)
    return F


def stationary_exactly(T):
    F, n = exactly(T), len(T)
    A = [[F[i][j] - (i == j) for j in range(n)] for i in range(n - 1)] + [[Fraction(1)] * n]
    return solved_exactly(A, [Fraction(0)] * (n - 1) + [Fraction(1)])


def worst(found, wanted):
    return max(float(abs(Fraction(float(x)) - y) / y) for x, y in zip(found, wanted, strict=True))


@pytest.mark.parametrize("rate", [1.0, 1e-5, 1e-10, 1e-15])
def test_stationary_vector_is_right_to_the_last_digits(rate):
    T = falling_apart(rate)
    assert worst(MarkovChain(T).stationary(), stationary_exactly(T)) < 1e-14


@pytest.mark.parametrize("rate", [1.0, 1e-15])
def test_blocks_of_two_give_the_same(rate, monkeypatch):
    monkeypatch.setattr(stationary, "PLAIN", 2)
    for block in (1, 2, 3, 8):
        monkeypatch.setattr(stationary, "BLOCK", block)
        T = falling_apart(rate)
        assert worst(gth(T), stationary_exactly(T)) < 1e-14


def test_an_eigensolver_loses_what_elimination_keeps():
    T = falling_apart(1e-15)
    wanted = stationary_exactly(T)
    values, vectors = torch.linalg.eig(T)
    p = vectors[:, (values - 1).abs().argmin()].real
    assert worst(p / p.sum(), wanted) > 1e-3
    assert worst(gth(T), wanted) < 1e-15


@pytest.mark.parametrize("n", [1, 2, 33, 64, 65, 97, 200])
def test_all_sizes_of_the_last_block(n):
    """A reversible chain of symmetric weights W: p_j is proportional to the sum of column j of W."""
    W = torch.rand(n, n, generator=seeded(n), dtype=f64).pow(8)
    W = W + W.mT
    p = W.sum(0) / W.sum()
    torch.testing.assert_close(gth(W / W.sum(0)) / p, torch.ones(n, dtype=f64), rtol=0, atol=2e-14)


def test_a_walk_whose_probabilities_span_more_than_the_range_of_floats():
    """Up with 0.9, down with 0.1: p_k grows 9-fold a step, 9^399 in all; from the top down it falls as 9^−k."""
    for n in (60, 400):
        T = torch.diag(torch.full((n - 1,), 0.9, dtype=f64), -1) + torch.diag(torch.full((n - 1,), 0.1, dtype=f64), 1)
        T[0, 0], T[-1, -1] = 0.1, 0.9
        for order in (slice(None), torch.arange(n - 1, -1, -1)):
            p = MarkovChain(T[order][:, order]).stationary()
            ratio = p.flip(0) if isinstance(order, slice) else p
            wanted = (8 / 9) * 9.0 ** -torch.arange(60, dtype=f64)
            torch.testing.assert_close(ratio[:60] / wanted, torch.ones(60, dtype=f64), rtol=0, atol=1e-12)
            assert p.isfinite().all()


def test_ratios_beyond_all_floats_are_an_error_and_not_nan():
    T = torch.tensor([[0.5, 1e-320], [0.5, 1 - 1e-320]], dtype=f64)
    with pytest.raises(ValueError, match="ratios overflow"):
        gth(T)


def test_the_diagonal_is_never_read():
    T = falling_apart(1e-3)
    wrong = T.clone().fill_diagonal_(torch.nan)
    assert torch.equal(gth(T), gth(wrong))


def test_transient_states_have_weight_zero_and_several_classes_are_named():
    T = torch.zeros(5, 5, dtype=f64)
    T[[1, 3], [3, 1]] = 1.0  # {1, 3} closed; 0, 2 and 4 run into it
    T[1, 0], T[0, 0], T[2, 4], T[3, 2] = 0.5, 0.5, 1.0, 1.0
    p = MarkovChain(T).stationary()
    assert p.tolist() == [0, 0.5, 0, 0.5, 0]
    T[:, 4] = 0
    T[4, 4] = 1
    with pytest.raises(ValueError, match=r"2 closed classes, \{1, 3\}, \{4\}, each"):
        MarkovChain(T).stationary()


def test_single_precision_and_devices(device, dtype):
    T = random_chain(100, power=4, dtype=dtype).to(device)
    p = MarkovChain(T / T.sum(0)).stationary()
    assert p.dtype == dtype
    assert p.device.type == device.type
    exact = gth((T / T.sum(0)).to("cpu", f64))
    assert ((p.to("cpu", f64) / exact) - 1).abs().max() < 50 * torch.finfo(dtype).eps


def test_what_is_handed_out_can_be_changed_without_harm():
    chain = MarkovChain(random_chain(4))
    p = chain.stationary()
    kept = p.clone()
    p.zero_()
    assert torch.equal(chain.stationary(), kept)


def test_the_factors_multiply_to_one_less_the_matrix():
    T = random_chain(8)
    upper, pivots, lower = eliminate(T[:5, :5], T[5:, :5].sum(0))
    torch.testing.assert_close(upper @ torch.diag(pivots) @ lower, torch.eye(5, dtype=f64) - T[:5, :5])
    right = torch.rand(5, 2, generator=seeded(3), dtype=f64)
    series = torch.linalg.solve(torch.eye(5, dtype=f64) - T[:5, :5].mT, right)
    torch.testing.assert_close(solve(T[:5, :5], T[5:, :5].sum(0), right), series)


# --- hitting ---------------------------------------------------------------------------------------------------------


def gambler(n, up):
    """States 0 … n, both ends absorbing."""
    T = torch.zeros(n + 1, n + 1, dtype=f64)
    T[0, 0] = T[n, n] = 1
    for k in range(1, n):
        T[k + 1, k], T[k - 1, k] = up, 1 - up
    return T


def test_gamblers_ruin_in_closed_form_where_it_is_tiny():
    """Pr(n before 0 | k) = (1 − ρ^k)/(1 − ρ^n), ρ = (1 − up)/up = 3: from 1 it is 4e-29. A fraction, so exact."""
    n = 60
    chain = MarkovChain(gambler(n, 0.25))
    wanted = [Fraction(3**k - 1, 3**n - 1) for k in range(n + 1)]
    found = chain.hitting_probabilities([n])
    assert found[0] == 0
    assert worst(found[1:], wanted[1:]) < 1e-14
    absorbed = chain.absorption_probabilities()
    assert worst(absorbed[1, 1:], wanted[1:]) < 1e-14
    assert absorbed.sum(0) == pytest.approx(torch.ones(n + 1), abs=1e-15)


def test_times_of_the_symmetric_walk():
    """E[steps until an end] = k (n − k); until n alone it is infinite, for 0 may come first."""
    chain = MarkovChain(gambler(12, 0.5))
    assert chain.hitting_times([0, 12]) == pytest.approx([k * (12 - k) for k in range(13)], rel=1e-14)
    assert chain.hitting_times([12]).tolist() == [torch.inf] * 12 + [0]
    reflected = gambler(12, 0.5)
    reflected[0, 0], reflected[1, 0] = 0, 1
    assert MarkovChain(reflected).hitting_times([12]) == pytest.approx([144 - k * k for k in range(13)], rel=1e-13)


@pytest.mark.parametrize("rate", [1.0, 1e-15])
def test_hitting_against_rational_arithmetic(rate):
    """h = T_RRᵀ h + entries, and t = T_RRᵀ t + 1, solved in fractions."""
    T = falling_apart(rate)
    T[:, 8] = 0
    T[8, 8] = 1  # an end from which nothing leads on
    F, targets, rest = exactly(T), [0, 5], [1, 2, 3, 4, 6, 7]
    A = [[(j == i) - F[i][j] for i in rest] for j in rest]
    wanted = solved_exactly(A, [F[0][j] + F[5][j] for j in rest])
    chain = MarkovChain(T)
    h = chain.hitting_probabilities(targets)
    assert worst(h[rest], wanted) < 1e-14
    assert h[targets].tolist() == [1, 1]
    assert h[8] == 0
    assert chain.hitting_times(targets)[rest].isinf().all()
    both = [0, 5, 8]
    assert worst(chain.hitting_times(both)[rest], solved_exactly(A, [Fraction(1)] * len(rest))) < 1e-14


def test_absorption_has_a_row_for_each_closed_class():
    rows = [[1, 0.4, 0, 0, 0], [0, 0, 0.5, 0, 0], [0, 0.6, 0, 0, 0], [0, 0, 0.5, 0, 1], [0, 0, 0, 1, 0]]
    chain = MarkovChain(torch.tensor(rows, dtype=f64))
    assert chain.closed_classes == [[0], [3, 4]]
    wanted = [[1, 4 / 7, 2 / 7, 0, 0], [0, 3 / 7, 5 / 7, 1, 1]]
    assert chain.absorption_probabilities().tolist() == [pytest.approx(row, abs=1e-15) for row in wanted]


@pytest.mark.parametrize("targets", [[], [5], [-1]])
def test_targets_must_be_states(targets):
    chain = MarkovChain(random_chain(5))
    for ask in (chain.hitting_probabilities, chain.hitting_times):
        with pytest.raises(ValueError, match="name at least one of the states 0 … 4"):
            ask(targets)
