"""Sixty-four replicas in a word: each of them the Metropolis chain of the exact matrix, and none tied to another."""

import math
import sys

import pytest
import torch

from lecturecode import seeded
from lecturecode.boltzmann import ising, states
from lecturecode.markov import Kernel, checkerboard, multispin, pack, unpack
from lecturecode.markov.multispin import _chance, _digits

f64 = torch.float64


def random_spins(replicas, n, seed=1):
    return torch.where(torch.rand(replicas, n, generator=seeded(seed)) < 0.5, -1.0, 1.0).to(f64)


def test_packing_and_back():
    spins = random_spins(192, 8)
    x = pack(spins)
    assert (x.shape, x.dtype) == ((3, 8), torch.int64)
    assert torch.equal(unpack(x), spins)
    assert [(int(x[2, 5]) >> k) & 1 for k in range(64)] == (spins[128:, 5] > 0).long().tolist()


@pytest.mark.parametrize("J", [0.4, -0.3])
@pytest.mark.parametrize("b", [0.0, 0.2, -0.7])
def test_draws_follow_the_matrix(J, b):
    """4,000 steps from each of 256 states: entries within 6 binomial standard errors and 5 draws."""
    kernel, s = multispin(2, 4, J, b), states(8)
    T = kernel.matrix(s)
    p = ising(2, 4, J, b, True).probabilities().detach()
    torch.testing.assert_close(T @ p, p, rtol=0, atol=1e-14)
    ends = unpack(kernel(pack(s.repeat(4000, 1)), seeded(5)))
    number = ((ends > 0).long() << torch.arange(8)).sum(-1)
    counts = torch.zeros(256, 256, dtype=f64)
    counts.index_put_((number, torch.arange(256).repeat(4000)), torch.ones((), dtype=f64), accumulate=True)
    assert ((counts / 4000 - T).abs() <= 6 * (T * (1 - T) / 4000).clamp(min=0).sqrt() + 5 / 4000).all()


def test_its_matrix_is_that_of_the_chequerboard():
    assert torch.equal(
        multispin(2, 4, 0.4, 0.1).matrix(states(8)),
        checkerboard(2, 4, 0.4, 0.1, True, "metropolis").matrix(states(8)),
    )


@pytest.mark.parametrize("cost", [0.01, 1.7627, 12.0, 700.0])
def test_the_digits_are_those_of_the_probability(cost):
    total = math.fsum(digit * 2.0 ** -(k + 1) for k, digit in enumerate(_digits(cost)))
    assert total == pytest.approx(math.exp(-cost), rel=1e-15, abs=2.0**-64)
    assert _digits(-cost) is None
    assert _digits(0.0) is None


def test_masks_have_the_probabilities_of_their_classes():
    """Two classes in alternate replicas, 200,000 words: shares within 5 standard errors; no bit without a class."""
    even, odd = 0x5555555555555555, 0x2AAAAAAAAAAAAAA0
    masks = [torch.full((200_000,), word, dtype=torch.int64) for word in (even, odd)]
    found = _chance([(masks[0], _digits(1.7627)), (masks[1], _digits(5.0))], seeded(2))
    share = torch.stack([((found >> k) & 1).double().mean() for k in range(64)])
    for k in range(64):
        p = math.exp(-1.7627) if even >> k & 1 else math.exp(-5.0) if odd >> k & 1 else 0.0
        assert abs(share[k] - p) <= 5 * math.sqrt(p * (1 - p) / 200_000)


def correlation(rng, sweeps=500):
    """Of s and s′ over sites and sweeps, for each pair of the 64 replicas from random starts: the largest in size."""
    kernel, x = multispin(16, 16, 0.4, 0.2), pack(random_spins(64, 256, seed=4))
    product, mean, count = torch.zeros(64, 64, dtype=f64), torch.zeros(64, dtype=f64), 256 * (sweeps - 100)
    for step in range(sweeps):
        x = kernel(x, rng)
        if step >= 100:
            s = unpack(x)
            product += s @ s.mT / count
            mean += s.sum(1) / count
    spread = (1 - mean**2).sqrt()
    return ((product - mean * mean[:, None]) / (spread * spread[:, None])).fill_diagonal_(0).abs().max()


def test_replicas_are_uncorrelated():
    assert correlation(seeded(6)) < 0.05


def test_with_one_random_number_for_all_they_coalesce(monkeypatch):
    """What the test above would see: the same random bit for each replica, and all of them end as one."""

    def shared(count, rng, device):
        return torch.randint(-1, 1, (count,), generator=rng, device=device)

    monkeypatch.setattr(sys.modules["lecturecode.markov.multispin"], "words", shared)
    assert correlation(seeded(6)) > 0.99


def test_is_a_pure_kernel():
    kernel, x = multispin(4, 6, 0.4), pack(random_spins(128, 24))
    before = x.clone()
    assert isinstance(kernel, Kernel)
    assert torch.equal(kernel(x, seeded(1)), kernel(x, seeded(1)))
    assert kernel(x[:, None], seeded(1)).shape == (2, 1, 24)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pack(torch.ones(63, 4)), r"a multiple of 64 replicas"),
        (lambda: pack(torch.zeros(64, 4)), r"x\[0, 0\] is 0"),
        (lambda: multispin(2, 2)(torch.ones(1, 5).long(), seeded(1)), r"pass pack\(spins\), int64 of shape \(…, 4\)"),
        (lambda: multispin(2, 2, math.inf), r"coupling\[0\] is inf"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()
