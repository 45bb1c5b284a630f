"""The chain as a value: its door, evolution, reversal, gap, mixing time, and the exponential of rates."""

import math
from itertools import pairwise

import mpmath
import pytest
import torch

from lecturecode import kl, seeded
from lecturecode.markov import MarkovChain, evolve
from lecturecode.markov.matrices import exponential

f64 = torch.float64


def random_chain(n, seed=1, dtype=f64):
    T = torch.rand(n, n, generator=seeded(seed), dtype=f64)
    return MarkovChain((T / T.sum(0)).to(dtype))


def symmetric_weights(n, seed=1):
    """A reversible chain: T_ij = W_ij / Σ_i W_ij."""
    W = torch.rand(n, n, generator=seeded(seed), dtype=f64)
    W = W + W.mT
    return MarkovChain(W / W.sum(0)), W.sum(0) / W.sum()


def distribution(n, seed=5, rows=()):
    p = torch.rand(*rows, n, generator=seeded(seed), dtype=f64)
    return p / p.sum(-1, keepdim=True)


# --- the door --------------------------------------------------------------------------------------------------------

GOOD = torch.tensor([[0.9, 0.4, 0.1], [0.1, 0.5, 0.2], [0.0, 0.1, 0.7]], dtype=f64)


@pytest.mark.parametrize(
    ("T", "message"),
    [
        (GOOD[:2], r"T has shape \(2, 3\); give a square matrix"),
        (GOOD[0], r"T has shape \(3,\); give a square matrix"),
        (torch.zeros(0, 0), r"T has shape \(0, 0\)"),
        (GOOD.mT, r"column 0 of T sums to 1.4, not 1; its rows sum to 1, so pass T.mT"),
        (2 * GOOD, r"column 0 of T sums to 2, not 1; divide by T.sum\(0\)"),
        (GOOD + torch.tensor([[0, 0, 0], [0, 0.2, 0], [0, -0.2, 0]]), r"T\[2, 1\] is -0.1; a probability is not"),
        (torch.where(GOOD == 0.5, torch.nan, GOOD), r"T\[1, 1\] is nan: 1 of 9 values are not finite"),
        (torch.eye(2, dtype=torch.long), r"T is torch.int64; pass T.to\(torch.float64\)"),
        (torch.eye(2, dtype=torch.float16), r"T is torch.float16; pass T.to\(torch.float64\)"),
    ],
)  # fmt: skip
def test_the_door(T, message):
    with pytest.raises(ValueError, match=message):
        MarkovChain(T)


def test_the_door_has_the_tolerance_of_the_dtype():
    for dtype, small, large in ((f64, 5e-10, 5e-9), (torch.float32, 5e-6, 5e-5)):
        MarkovChain(GOOD.to(dtype) * (1 + small))
        with pytest.raises(ValueError, match="sums to"):
            MarkovChain(GOOD.to(dtype) * (1 + large))


# --- evolution -------------------------------------------------------------------------------------------------------


def test_one_step_is_the_sum_over_where_it_came_from():
    chain, p = random_chain(4), distribution(4)
    wanted = [sum(chain.T[i, j].item() * p[j].item() for j in range(4)) for i in range(4)]
    assert chain.evolve(p) == pytest.approx(wanted, rel=1e-15)
    assert torch.equal(chain.evolve(p, 0), p)


@pytest.mark.parametrize("steps", [1, 2, 7, 12, 31, 1000])
def test_products_and_squarings_agree(steps):
    chain, p = random_chain(6), distribution(6, rows=(2, 3))
    wanted = torch.linalg.matrix_power(chain.T, steps)
    got = chain.evolve(p, steps)
    assert got.shape == p.shape
    for a in range(2):
        for b in range(3):
            torch.testing.assert_close(got[a, b], wanted @ p[a, b], rtol=1e-13, atol=0)


def test_a_large_chain_takes_products_and_a_long_time_squarings(monkeypatch):
    seen = []
    monkeypatch.setattr("lecturecode.markov.matrices.squared", lambda T: seen.append(1) or T @ T / (T @ T).sum(0))
    chain, p = random_chain(100), distribution(100)
    chain.evolve(p, 8)
    assert seen == []
    chain.evolve(p, 1000)
    assert len(seen) == 9  # 1000 has ten binary digits


def test_an_enormous_time_keeps_the_sum_and_ends_at_the_stationary_vector():
    chain, p = random_chain(5), distribution(5)
    for steps in (10**6, 2**50):
        late = chain.evolve(p, steps)
        assert late.sum().item() == pytest.approx(1, abs=1e-14)
        torch.testing.assert_close(late, chain.stationary(), rtol=1e-13, atol=0)


def test_columns_that_sum_to_one_only_nearly_lose_no_probability():
    """Single precision, each column short by 5e-6, half of what the door allows: the sum is kept for any time."""
    T = random_chain(200).T.float() * (1 - 5e-6)
    for steps in (2, 100, 10**9):
        assert MarkovChain(T).evolve(torch.full((200,), 1 / 200), steps).sum().item() == pytest.approx(1, abs=1e-6)


def test_a_sequence_has_the_latest_on_the_left():
    first, second = random_chain(4, 1).T, random_chain(4, 2).T
    p = distribution(4, rows=(3,))
    got = evolve([first, second], p)
    torch.testing.assert_close(got, (second @ first @ p.mT).mT, rtol=1e-14, atol=0)
    assert (got - evolve([second, first], p)).abs().max() > 1e-3
    assert torch.equal(evolve([], p), p)
    assert torch.equal(evolve((T for T in [first]), p), random_chain(4, 1).evolve(p))


def test_evolve_refuses_what_does_not_fit():
    chain, p = random_chain(3), distribution(3)
    for wrong, message in (
        (distribution(4), r"p has shape \(4,\); give 3 probabilities"),
        (p.float(), r"p is torch.float32 and T torch.float64; pass p.to\(torch.float64\)"),
        (2 * p, "p sums to 2"),
        (p - 1, "probabilities are not negative"),
    ):
        with pytest.raises(ValueError, match=message):
            chain.evolve(wrong)
    with pytest.raises(ValueError, match="p sums to 2"):
        evolve([chain.T], 2 * p)
    with pytest.raises(ValueError, match="steps is -1"):
        chain.evolve(p, -1)
    with pytest.raises(ValueError, match=r"column 0 of matrices\[1\] sums to 1.4, not 1; .* pass matrices\[1\].mT"):
        evolve([GOOD, GOOD.mT], p)


def test_divergence_from_the_stationary_vector_never_rises():
    chain, p = random_chain(6), distribution(6)
    values = []
    for _ in range(30):
        values.append(kl(p, chain.stationary()).item())
        p = chain.evolve(p)
    assert all(b <= a or a < 1e-28 for a, b in pairwise(values))


# --- reversal --------------------------------------------------------------------------------------------------------


def test_reverse_is_bayes_rule_for_any_start():
    chain, p = random_chain(5), distribution(5)
    back = chain.reverse(p)
    for i in range(5):
        evidence = sum(chain.T[i, k].item() * p[k].item() for k in range(5))
        for j in range(5):
            assert back.T[j, i].item() == pytest.approx(chain.T[i, j].item() * p[j].item() / evidence, rel=1e-14)
    torch.testing.assert_close(back.evolve(chain.evolve(p)), p)  # one step forward, one back
    torch.testing.assert_close(chain.reverse().reverse().T, chain.T)
    torch.testing.assert_close(chain.reverse().stationary(), chain.stationary())


def test_reversible_where_the_flows_balance():
    chain, p = symmetric_weights(6)
    assert chain.is_reversible()
    assert chain.is_reversible(p)
    torch.testing.assert_close(chain.reverse().T, chain.T)
    assert not random_chain(6).is_reversible()
    assert MarkovChain(GOOD[:2, :2] / GOOD[:2, :2].sum(0)).is_reversible()  # two states always are
    assert not chain.is_reversible(distribution(6))
    cycle = torch.eye(3, dtype=f64).roll(1, 0)
    assert not MarkovChain(cycle).is_reversible()


def test_a_small_circulation_is_seen():
    """A cycle of rate 1e-15 on top of a symmetric chain: each flow is compared with its own reverse."""
    T = torch.eye(3, dtype=f64) * (1 - 3e-15) + 1e-15 + 1e-15 * torch.eye(3, dtype=f64).roll(1, 0)
    assert not MarkovChain(T / T.sum(0)).is_reversible(torch.full((3,), 1 / 3, dtype=f64))


def test_a_state_without_past_is_named():
    T = torch.tensor([[0.5, 1.0], [0.5, 0.0]], dtype=f64)
    with pytest.raises(ValueError, match="state 1 has probability 0 after the step"):
        MarkovChain(T).reverse(torch.tensor([0.0, 1.0], dtype=f64))
    with pytest.raises(ValueError, match="give one distribution"):
        MarkovChain(T).reverse(distribution(2, rows=(3,)))


# --- gap and mixing --------------------------------------------------------------------------------------------------


def ring_walk(n, stay=0.5):
    step = torch.eye(n, dtype=f64)
    return MarkovChain(stay * step + (1 - stay) / 2 * (step.roll(1, 0) + step.roll(-1, 0)))


def test_gap_of_the_lazy_ring_and_of_a_cycle():
    """Eigenvalues ½ + ½cos(2πk/n); of a pure cycle all have modulus one."""
    for n in (3, 8, 25):
        assert ring_walk(n).spectral_gap.item() == pytest.approx(0.5 - 0.5 * math.cos(2 * math.pi / n), abs=1e-15)
    assert MarkovChain(torch.eye(5, dtype=f64).roll(1, 0)).spectral_gap.item() == pytest.approx(0, abs=1e-14)
    assert MarkovChain(torch.ones(1, 1, dtype=f64)).spectral_gap == 1
    assert ring_walk(8, 0.0).spectral_gap.item() == pytest.approx(0, abs=1e-15)  # −1 counts: the gap is absolute


def test_gap_of_chains_that_are_not_reversible_or_have_several_classes():
    chain = random_chain(7)
    wanted = sorted(abs(complex(m)) for m in mpmath.eig(mpmath.matrix(chain.T.tolist()), right=False, left=False))
    assert chain.spectral_gap.item() == pytest.approx(1 - wanted[-2], abs=1e-13)
    two = torch.zeros(4, 4, dtype=f64)
    two[:2, :2], two[2:, 2:] = GOOD.new_tensor([[0.9, 0.2], [0.1, 0.8]]), 0.5
    assert MarkovChain(two).spectral_gap.item() == pytest.approx(0.3)  # μ = 1, 1, 0.7, 0


@pytest.mark.parametrize("delta", [0.25, 0.01, 1e-6])
def test_mixing_time_is_the_first_time_that_is_near(delta):
    for chain in (random_chain(5), ring_walk(9), symmetric_weights(5)[0]):
        p, power, t = chain.stationary(), torch.eye(len(chain.T), dtype=f64), 0
        while (power - p[:, None]).abs().sum(0).max() / 2 > delta:
            power, t = chain.T @ power, t + 1
        assert chain.mixing_time(delta) == t


def test_mixing_of_two_states_in_closed_form():
    """d(t) = max(a, b)/(a + b) |1 − a − b|^t; with a = b = 1e-9 it takes 3e8 steps and thirty squarings."""
    a = 1e-9
    chain = MarkovChain(torch.tensor([[1 - a, a], [a, 1 - a]], dtype=f64))
    wanted = math.log(0.25 / 0.5) / math.log1p(-2 * a)
    assert chain.mixing_time(0.25) == pytest.approx(wanted, rel=1e-6)
    assert MarkovChain(torch.ones(1, 1, dtype=f64)).mixing_time() == 0


def test_bounds_of_reversible_chains_hold():
    for chain in (ring_walk(9), symmetric_weights(6)[0], ring_walk(30, 0.2)):
        for delta in (0.25, 1e-3, 1e-8):
            lower, upper = chain.mixing_time_bounds(delta)
            assert lower <= chain.mixing_time(delta) <= math.ceil(upper)
    lower, _ = (chain := MarkovChain(torch.tensor([[0.95, 0.05], [0.05, 0.95]], dtype=f64))).mixing_time_bounds(1e-6)
    assert chain.mixing_time(1e-6) - lower < 1 / 0.1 * math.log(2) + 3  # tight up to a constant number of steps


def test_mixing_refuses_what_does_not_mix():
    flip = MarkovChain(torch.eye(2, dtype=f64).roll(1, 0))
    with pytest.raises(ValueError, match="period 2, so it never mixes"):
        flip.mixing_time()
    with pytest.raises(ValueError, match="2 closed classes"):
        MarkovChain(torch.eye(2, dtype=f64)).mixing_time()
    for chain in (flip, random_chain(3)):
        with pytest.raises(ValueError, match="reversible chains only"):
            chain.mixing_time_bounds()
    for delta in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="give a distance between 0 and 1"):
            ring_walk(3).mixing_time(delta)
    with pytest.raises(ValueError, match="stays above delta"):
        random_chain(5).mixing_time(1e-18)


# --- rates -----------------------------------------------------------------------------------------------------------


def rates(n, seed=3, power=1):
    Q = torch.rand(n, n, generator=seeded(seed), dtype=f64).pow(power).fill_diagonal_(0)
    return Q - torch.diag(Q.sum(0))


def many_digits(Q, time):
    """e^{Qt} with forty digits, the diagonal made from the rates."""
    with mpmath.workdps(40):
        n = len(Q)
        A = mpmath.matrix(Q.tolist())
        for j in range(n):
            A[j, j] = -mpmath.fsum(A[i, j] for i in range(n) if i != j)
        E = mpmath.expm(A * mpmath.mpf(time), method="taylor")
        return torch.tensor([[float(E[i, j]) for j in range(n)] for i in range(n)], dtype=f64)


@pytest.mark.parametrize("time", [0.0, 1e-12, 0.3, 1.0, 40.0])
@pytest.mark.parametrize("power", [1, 30])
def test_exponential_of_rates_has_all_its_digits(time, power):
    Q = rates(5, power=power)
    T, wanted = MarkovChain.from_rates(Q, time).T, many_digits(Q, time)
    assert (T - wanted).abs().max() < 1e-15 * (1 + 10 * time)
    there = wanted > 0
    assert ((T - wanted)[there] / wanted[there]).abs().max() < 1e-14 * (1 + 10 * time)


def test_times_add_and_the_stationary_vector_has_no_flow():
    Q = rates(6)
    one, two = (MarkovChain.from_rates(Q, t) for t in (0.7, 1.4))
    torch.testing.assert_close(one.T @ one.T, two.T)
    assert (Q @ one.stationary()).abs().max() < 1e-15
    assert torch.equal(MarkovChain.from_rates(0 * Q, 5.0).T, torch.eye(6, dtype=f64))


def test_rates_at_the_door():
    Q = rates(3)
    for wrong, time, message in (
        (Q[:2], 1.0, "give a square matrix"),
        (-Q, 1.0, r"Q\[0, 1\] is -\d.*; a rate off the diagonal is not negative"),
        (Q.mT, 1.0, r"column \d of Q sums to .*, not 0; its rows sum to 0, so pass Q.mT"),
        (Q + torch.eye(3), 1.0, r"column 0 of Q sums to 1, not 0; set Q\[0, 0\] to minus the sum of the others"),
        (Q * torch.nan, 1.0, "not finite"),
        (Q, -1.0, "time is -1.0; give a finite time"),
        (Q, math.inf, "time is inf"),
    ):
        with pytest.raises(ValueError, match=message):
            MarkovChain.from_rates(wrong, time)


def test_single_precision_and_devices(device, dtype):
    chain = MarkovChain(random_chain(20).T.to(device, dtype))
    p = torch.full((2, 20), 1 / 20, dtype=dtype, device=device)
    eps = torch.finfo(dtype).eps
    reference = random_chain(20)
    for steps in (1, 500):
        late = chain.evolve(p, steps)
        assert late.dtype == dtype
        assert late.device.type == device.type
        assert (
            late.to("cpu", f64) - reference.evolve(p.to("cpu", f64) / p[0].to("cpu", f64).sum(), steps)
        ).abs().max() < 40 * eps
    assert chain.reverse().T.dtype == dtype
    assert chain.mixing_time(0.01) == reference.mixing_time(0.01)
    Q = rates(4).to(device, dtype)
    assert (MarkovChain.from_rates(Q, 2.0).T.to("cpu", f64) - many_digits(Q.to("cpu", f64), 2.0)).abs().max() < 40 * eps
    assert exponential(Q, 2.0).device.type == device.type
