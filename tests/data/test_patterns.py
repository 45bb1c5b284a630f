"""Bars and stripes against the set built from its definition, one image at a time."""

import itertools

import pytest
import torch

from lecturecode.data import bars_and_stripes


def by_definition(k: int) -> set[tuple[int, ...]]:
    """All k×k images whose columns are uniform, or whose rows are, out of all 2^(k²) images or of all 2^k lines."""
    if k <= 4:
        images = itertools.product((0, 1), repeat=k * k)
    else:
        lines = list(itertools.product((0, 1), repeat=k))
        images = [tuple(c for _ in range(k) for c in line) for line in lines]
        images += [tuple(line[r] for r in range(k) for _ in range(k)) for line in lines]

    def belongs(image):
        rows = [image[r * k : (r + 1) * k] for r in range(k)]
        columns = list(zip(*rows, strict=True))
        return all(len(set(row)) == 1 for row in rows) or all(len(set(column)) == 1 for column in columns)

    return {image for image in images if belongs(image)}


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7])
def test_each_image_of_the_definition_once(k):
    found = [tuple(row) for row in bars_and_stripes(k).int().tolist()]
    assert len(found) == len(set(found)) == 2 ** (k + 1) - 2
    assert set(found) == by_definition(k)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_bars_come_first(k):
    images = bars_and_stripes(k).reshape(-1, k, k)
    bars = (images == images[:, :1, :]).all((1, 2))
    assert bars[: 2**k].all()
    assert not bars[2**k :].any()
    assert images[0].sum() == 0
    assert images[2**k - 1].sum() == k * k


def test_float32_and_contiguous():
    x = bars_and_stripes(3)
    assert x.dtype == torch.float32
    assert x.is_contiguous()


def test_the_largest_is_made():
    assert bars_and_stripes(16).shape == (2**17 - 2, 256)


@pytest.mark.parametrize("side", [0, -1, 17])
def test_sides_that_are_refused(side):
    with pytest.raises(ValueError, match=rf"side is {side}; it must lie between 1 and 16"):
        bars_and_stripes(side)
