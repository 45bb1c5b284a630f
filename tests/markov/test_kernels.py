"""Kernels: first their exact matrices, built by hand and invariant for the target, then draws held against these.

The matrices are those of `small_chains`, in plain loops over all 2^n states.
"""

import itertools
import math

import pytest
import torch
from small_chains import (
    BIT,
    SPIN,
    all_states,
    conditional_of,
    gibbs_matrix,
    metropolis_matrix,
    one_after_another,
    random_energy,
    sweep_of,
    target,
)

from lecturecode import seeded
from lecturecode.markov import Kernel, flip, gibbs, metropolis

f64 = torch.float64
DRAWS = 20_000  # from every state
N = 3


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cases(alphabet):
    energy = random_energy(N)
    p = target(energy, alphabet, N)
    each = range(N)
    return {
        "gibbs": (gibbs(conditional_of(energy, alphabet), alphabet), sweep_of([gibbs_matrix(p, i, N) for i in each])),
        "gibbs backwards": (
            gibbs(conditional_of(energy, alphabet), alphabet, [[2], [1], [0]]),
            sweep_of([gibbs_matrix(p, i, N) for i in reversed(each)]),
        ),
        "gibbs with unit 1 held": (
            gibbs(conditional_of(energy, alphabet), alphabet, [[0], [2]]),
            sweep_of([gibbs_matrix(p, i, N) for i in (0, 2)]),
        ),
        "metropolis": (
            metropolis(energy, flip(alphabet)),
            torch.stack([metropolis_matrix(p, i, N) for i in each]).mean(0),
        ),
        "metropolis, one unit": (metropolis(energy, flip(alphabet, 2)), metropolis_matrix(p, 2, N)),
        "metropolis sweep": (
            one_after_another([metropolis(energy, flip(alphabet, i)) for i in each]),
            sweep_of([metropolis_matrix(p, i, N) for i in each]),
        ),
    }


NAMES = list(cases(SPIN))


@pytest.mark.parametrize("alphabet", [SPIN, BIT])
@pytest.mark.parametrize("name", NAMES)
def test_the_matrix_leaves_the_target_invariant(name, alphabet):
    p = target(random_energy(N), alphabet, N)
    T = cases(alphabet)[name][1]
    assert torch.allclose(T.sum(0), torch.ones(2**N, dtype=f64), rtol=0, atol=1e-14)
    assert torch.allclose(T @ p, p, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_which_are_reversible(name):
    """Detailed balance, T_ij p_j = T_ji p_i: one unit at a time and random choice, not a sweep in a fixed order."""
    flow = cases(SPIN)[name][1] * target(random_energy(N), SPIN, N)
    symmetric = torch.allclose(flow, flow.mT, rtol=0, atol=1e-14)
    assert symmetric == (name in {"metropolis", "metropolis, one unit"})


@pytest.mark.parametrize("dtype", [torch.float32, f64])
@pytest.mark.parametrize("alphabet", [SPIN, BIT])
@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_matrix(name, alphabet, dtype):
    """20,000 steps from each of 8 states: each entry within 5 standard errors of a binomial share, 0 and 1 exact."""
    kernel, T = cases(alphabet)[name]
    start = all_states(alphabet, N).to(dtype)
    ends = kernel(start.expand(DRAWS, -1, -1), seeded(7))
    assert ends.dtype == dtype
    assert ends.shape == (DRAWS, 2**N, N)
    number = ((ends == alphabet[1]).long() << torch.arange(N)).sum(-1)
    share = torch.stack([(number == i).double().mean(0) for i in range(2**N)])
    error = (T * (1 - T) / DRAWS).clamp(min=0).sqrt()
    assert ((share - T).abs() <= 5 * error + 1e-12).all()


def test_a_block_is_drawn_together():
    """Couplings between even and odd units only: the sweep over two colours has the matrix of one over its units."""
    W = torch.randn(2, 2, generator=seeded(3), dtype=f64)
    even, odd = [0, 2], [1, 3]
    states = all_states(SPIN, 4)

    def conditional(s):
        field = torch.empty_like(s)
        field[..., even], field[..., odd] = s[..., odd] @ W.mT, s[..., even] @ W
        return torch.sigmoid(2 * field)

    p = target(lambda s: -(s[even] @ W @ s[odd]), SPIN, 4)
    T = sweep_of([gibbs_matrix(p, i, 4) for i in (*even, *odd)])
    for blocks in ([even, odd], [[2, 0], [3, 1]], [[i] for i in (*even, *odd)]):
        ends = gibbs(conditional, SPIN, blocks)(states.expand(DRAWS, -1, -1), seeded(4))
        number = ((ends > 0).long() << torch.arange(4)).sum(-1)
        share = torch.stack([(number == i).double().mean(0) for i in range(16)])
        assert ((share - T).abs() <= 5 * (T * (1 - T) / DRAWS).sqrt() + 1e-12).all()


def test_kernels_are_pure():
    """The same generator, the same step; x is left as it was; any leading axes."""
    energy = random_energy(N)
    x = all_states(SPIN, N).reshape(2, 4, N)
    before = x.clone()
    for kernel in (gibbs(conditional_of(energy, SPIN), SPIN), metropolis(energy, flip(SPIN)), flip(SPIN)):
        assert isinstance(kernel, Kernel)
        first, again = kernel(x, seeded(5)), kernel(x, seeded(5))
        assert torch.equal(first, again)
        assert first.shape == x.shape
        assert torch.equal(x, before)


def test_a_flip_changes_one_unit_uniformly():
    """30,000 proposals, 5 standard errors of a share of one third."""
    x = all_states(BIT, N)[5].expand(30_000, -1)
    moved = flip(BIT)(x, seeded(1)) != x
    assert (moved.sum(-1) == 1).all()
    assert ((moved.double().mean(0) - 1 / 3).abs() < 5 * math.sqrt(2 / 9 / 30_000)).all()


def test_an_infinite_energy_is_never_entered():
    """A hard wall: states with unit 0 up are forbidden; NaN would be an error, infinity is not."""

    def energy(s):
        return torch.where(s[..., 0] > 0, math.inf, 0.0)

    x = torch.zeros(200, 2, dtype=f64)
    for _ in range(5):
        x = metropolis(energy, flip(BIT))(x, seeded(2))
    assert (x[:, 0] == 0).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: gibbs(torch.sigmoid, (1, 0)), r"alphabet is \(1, 0\); give the two values"),
        (lambda: gibbs(torch.sigmoid, (0, 1, 2)), "alphabet is"),
        (lambda: flip((1, 1)), "alphabet is"),
        (lambda: gibbs(torch.sigmoid, BIT, []), "name each unit once"),
        (lambda: gibbs(torch.sigmoid, BIT, [[0, 1], [1]]), "name each unit once"),
        (lambda: gibbs(torch.sigmoid, BIT, [[0, 1], []]), "name each unit once"),
        (lambda: gibbs(torch.sigmoid, BIT, [[0], [3]])(torch.zeros(2, 3), seeded(1)), "unit is 3, and x has the units"),
        (lambda: flip(BIT, 3)(torch.zeros(2, 3), seeded(1)), "unit is 3, and x has the units 0 … 2"),
        (lambda: gibbs(lambda x: x * math.nan, BIT)(torch.zeros(2, 3), seeded(1)), "a conditional probability is NaN"),
        (
            lambda: metropolis(lambda x: x.sum(-1) * math.nan, flip(BIT))(torch.zeros(2, 3), seeded(1)),
            r"a difference of energies is NaN in chain \[0\]",
        ),
    ],
)
def test_errors_at_the_door(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_both_alphabets_give_the_same_chain():
    """s = 2x − 1 maps one chain to the other, draw by draw."""
    energy = random_energy(N)

    def as_bits(x):
        return energy(2 * x - 1)

    x = all_states(BIT, N)
    for spin, bit in (
        (metropolis(energy, flip(SPIN, 1)), metropolis(as_bits, flip(BIT, 1))),
        (gibbs(conditional_of(energy, SPIN), SPIN), gibbs(conditional_of(as_bits, BIT), BIT)),
    ):
        assert torch.equal(spin(2 * x - 1, seeded(8)), 2 * bit(x, seeded(8)) - 1)


def test_the_states_are_all_there():
    assert sorted(map(tuple, all_states(SPIN, N).tolist())) == sorted(itertools.product(SPIN, repeat=N))
