"""Alias tables give back their probabilities exactly; one draw test with its bound."""

import pytest
import torch

from lecturecode import seeded
from lecturecode.markov import MarkovChain, alias

f64 = torch.float64


def matrices():
    yield torch.ones(1, 1, dtype=f64)
    yield torch.eye(5, dtype=f64).roll(1, 0)
    for n, power in ((2, 1), (7, 1), (50, 30), (129, 6)):
        T = torch.rand(n, n, generator=seeded(n), dtype=f64).pow(power)
        T = torch.where(torch.rand(n, n, generator=seeded(n + 1)) < 0.3, 0.0, T) + 1e-3 * torch.eye(n, dtype=f64)
        yield T / T.sum(0)
    yield torch.full((8, 8), 0.125, dtype=f64)


def weights(boxes):
    """What the boxes give: (1/n) [t_i + Σ over boxes with alias i of (1 − t)], as a matrix with columns of T."""
    thresholds, aliases = boxes
    n = len(thresholds)
    T = torch.zeros(n, n, dtype=f64)
    for j in range(n):
        for k in range(n):
            T[k, j] += float(thresholds[j, k]) / n
            T[aliases[j, k], j] += (1 - float(thresholds[j, k])) / n
    return T


@pytest.mark.parametrize("T", list(matrices()), ids=lambda T: str(len(T)))
def test_the_boxes_hold_each_column_exactly(T):
    boxes = alias.tables(T)
    assert (weights(boxes) - T).abs().max() < 2e-15
    assert boxes[0].min() >= 0
    assert boxes[0].max() <= 1
    assert (weights(boxes)[T == 0] == 0).all()  # never drawn, not even by rounding


def test_single_precision_columns_that_sum_to_one_only_nearly():
    T = torch.rand(200, 200, generator=seeded(1)).pow(20)
    T[:, 3], T[5, 3] = 0, 1 - 9e-6
    T = torch.where(torch.arange(200) == 3, T, T / T.sum(0))
    boxes = alias.tables(T)
    assert (weights(boxes) - T.double() / T.double().sum(0)).abs().max() < 1e-6
    assert (weights(boxes)[T == 0] == 0).all()


def test_transitions_are_drawn_with_their_probabilities():
    """200,000 chains, 4 steps each after the first: every count of j → i within 5 standard deviations of
    (visits of j)·T_ij, a binomial, 7 × 7 of them."""
    T = next(T for T in matrices() if len(T) == 7)
    chain, count = MarkovChain(T), 200_000
    x = chain.sample(torch.arange(count) % 7, 5, seeded(4))
    assert x.shape == (6, count)
    assert x.dtype == torch.int64
    seen = torch.zeros(7, 7, dtype=f64)
    seen.view(-1).index_add_(0, (x[1:] * 7 + x[:-1]).flatten(), torch.ones(5 * count, dtype=f64))
    visits = seen.sum(0)
    deviation = (visits * T * (1 - T)).sqrt()
    assert ((seen - visits * T).abs() <= 5 * deviation).all()
    assert (seen[T == 0] == 0).all()
    assert (deviation[T > 0.02] > 20).all()  # the bound is not idle


def test_chains_of_one_batch_are_independent():
    """Fair coins: the product of the signs of neighbouring chains has mean 0 within 5/√count."""
    chain = MarkovChain(torch.full((2, 2), 0.5, dtype=f64))
    x = chain.sample(torch.zeros(400, dtype=torch.long), 500, seeded(5))[1:].double() * 2 - 1
    assert (x[:, 1:] * x[:, :-1]).mean().abs() < 5 / (500 * 399) ** 0.5
    assert (x[1:] * x[:-1]).mean().abs() < 5 / (499 * 400) ** 0.5


def test_a_seed_gives_the_same_walk_whatever_is_held_at_a_time(monkeypatch, device, dtype):
    T = next(T for T in matrices() if len(T) == 50).to(device, dtype)
    chain, start = MarkovChain(T / T.sum(0)), torch.zeros(3, 4, dtype=torch.long, device=device)
    x = chain.sample(start, 20, seeded(6))
    assert x.shape == (21, 3, 4)
    assert x.device.type == device.type
    monkeypatch.setattr(alias, "DRAWS", 24)
    assert torch.equal(chain.sample(start, 20, seeded(6)), x)
    here = MarkovChain(T.to("cpu") / T.to("cpu").sum(0)).sample(start.to("cpu"), 20, seeded(6))
    assert torch.equal(x.to("cpu"), here)


def test_no_steps_and_wrong_starts():
    chain = MarkovChain(torch.full((2, 2), 0.5, dtype=f64))
    assert chain.sample(torch.tensor([1, 0]), 0, seeded(1)).tolist() == [[1, 0]]
    for start in ([2], [-1]):
        with pytest.raises(ValueError, match="start has states"):
            chain.sample(torch.tensor(start), 3, seeded(1))
    with pytest.raises(ValueError, match="steps is -1"):
        chain.sample(torch.tensor([0]), -1, seeded(1))
