"""Batches: every epoch is a permutation, rows stay together, and the door."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

import math

import pytest
import torch

from lecturecode import seeded
from lecturecode.training import Batches


def rows(count: int, device="cpu") -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32, device=device)[:, None].expand(-1, 3).contiguous()


@pytest.mark.parametrize(("count", "size"), [(12, 4), (12, 12), (13, 4), (7, 1), (5, 3)])
def test_each_epoch_draws_each_example_at_most_once(count, size):
    epochs = 6
    batches = Batches(rows(count), size, seeded(1), steps=epochs * (count // size))
    assert batches.epoch == count // size
    assert len(batches) == epochs * batches.epoch
    drawn = [batch[:, 0] for batch in batches]
    assert {len(batch) for batch in drawn} == {size}
    orders = [torch.cat(drawn[k : k + batches.epoch]).int().tolist() for k in range(0, len(drawn), batches.epoch)]
    for order in orders:
        assert len(set(order)) == len(order) == size * (count // size)
        assert set(order) <= set(range(count))
        if count % size == 0:
            assert set(order) == set(range(count))
    if count > size > 1 or count > 5:
        assert len({tuple(order) for order in orders}) == epochs


def test_the_order_is_the_generators_permutation():
    rng = torch.Generator().manual_seed(4)
    wanted = [order[k : k + 2] for order in (torch.randperm(5, generator=rng) for _ in range(2)) for k in (0, 2)]
    for batch, order in zip(Batches(rows(5), 2, seeded(4), steps=4), wanted, strict=True):
        assert torch.equal(batch, rows(5)[order])


def test_the_last_epoch_may_be_cut_short():
    assert [len(batch) for batch in Batches(rows(10), 3, seeded(0), steps=5)] == [3] * 5


def test_over_many_epochs_each_example_is_drawn_equally_often():
    """Of 7 examples 6 are drawn an epoch; in 5,000 epochs each is left out 714 times within 5 standard errors."""
    epochs = 5000
    count = torch.zeros(7)
    for batch in Batches(rows(7), 3, seeded(2), steps=2 * epochs):
        count[batch[:, 0].long()] += 1
    assert count.sum() == 6 * epochs
    left_out = epochs - count
    assert ((left_out - epochs / 7).abs() < 5 * math.sqrt(epochs * 6 / 49)).all()


def test_several_tensors_stay_together(device):
    x, labels = rows(9, device), torch.arange(9, device=device)
    seen = 0
    for batch, label in Batches((x, labels), 4, seeded(3), steps=20):
        assert batch.device == label.device == x.device
        assert label.dtype == torch.int64
        assert torch.equal(batch[:, 0].long(), label)
        seen += len(label)
    assert seen == 80


def test_a_tuple_of_one_gives_tensors():
    assert isinstance(next(iter(Batches((rows(3),), 2, seeded(0), steps=1))), torch.Tensor)


def test_one_seed_gives_the_same_batches_and_a_second_pass_others():
    batches, again = Batches(rows(20), 6, seeded(5), steps=7), Batches(rows(20), 6, seeded(5), steps=7)
    first = torch.stack(list(batches))
    assert torch.equal(first, torch.stack(list(again)))
    assert not torch.equal(first, torch.stack(list(batches)))


def test_batches_do_not_alias_the_data():
    x = rows(4)
    next(iter(Batches(x, 4, seeded(0), steps=1))).zero_()
    assert torch.equal(x, rows(4))


@pytest.mark.parametrize(
    ("data", "size", "steps", "what"),
    [
        (torch.zeros(0, 3), 1, 1, r"data is empty: it has 0 rows; pass at least one example"),
        ((), 1, 1, r"data holds no rows; pass at least one tensor"),
        (torch.tensor(1.0), 1, 1, r"data holds no rows"),
        (torch.zeros(5, 3), 6, 1, r"a batch of 6 from 5 examples; choose a size from 1 to 5"),
        (torch.zeros(5, 3), 0, 1, r"a batch of 0 from 5 examples"),
        (torch.zeros(5, 3), 5, 0, r"steps is 0; ask for at least one"),
        ((torch.zeros(5, 3), torch.zeros(4)), 2, 1, r"have \[5, 4\] rows; they must have the same number"),
        (torch.tensor([[0.0], [math.nan]]), 1, 1, r"data\[1, 0\] is nan: 1 of 2 values are not finite; remove"),
        ((torch.zeros(2), torch.tensor([0.0, math.inf])), 1, 1, r"data\[1\]\[1\] is inf"),
        ((torch.zeros(2), torch.empty(2, device="meta")), 1, 1, r"data\[0\] is on cpu and data\[1\] on meta"),
    ],
)
def test_what_is_refused(data, size, steps, what):
    with pytest.raises(ValueError, match=what):
        Batches(data, size, seeded(0), steps)
