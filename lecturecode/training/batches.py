"""Batches of a data set that stays where it is: each epoch is one random order, each batch an index into it.

The last, short batch of an epoch is left out, so that every step has the same size: over many epochs each example is
still drawn equally often, since every epoch has a new order.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .. import checks
from ..rng import permutation

__all__ = ["Batches"]


class Batches:
    """`steps` batches of `size` rows of `data` (one tensor, or several with rows that belong together).

    for x in Batches(images, 128, rng, steps=1000): ...
    for x, labels in Batches((images, labels), 128, rng, steps=1000): ...

    `epoch` is the number of batches in one pass over the data.

    Raises: ValueError where the data are empty, hold NaN or infinities, have unequal lengths or lie on several
    devices, or where a batch is larger than the data.
    """

    def __init__(self, data: Tensor | tuple[Tensor, ...], size: int, rng: torch.Generator, steps: int):
        self.data: tuple[Tensor, ...] = (data,) if isinstance(data, Tensor) else tuple(data)
        if not self.data or any(part.ndim == 0 for part in self.data):
            raise ValueError("data holds no rows; pass at least one tensor whose first axis counts the examples")
        checks.same_device(**{f"data[{i}]": part for i, part in enumerate(self.data)})
        lengths = [len(part) for part in self.data]
        if len(set(lengths)) > 1:
            raise ValueError(f"the parts of data have {lengths} rows; they must have the same number")
        if lengths[0] == 0:
            raise ValueError("data is empty: it has 0 rows; pass at least one example")
        if not 1 <= size <= lengths[0]:
            raise ValueError(f"a batch of {size} from {lengths[0]} examples; choose a size from 1 to {lengths[0]}")
        if steps < 1:
            raise ValueError(f"steps is {steps}; ask for at least one")
        for i, part in enumerate(self.data):
            if part.is_floating_point():
                checks.finite(f"data[{i}]" if len(self.data) > 1 else "data", part)
        self.size, self.rng, self.steps = size, rng, steps
        self.epoch = lengths[0] // size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, ...]]:
        count, device = len(self.data[0]), self.data[0].device
        order = permutation(count, self.rng, device)
        for step in range(self.steps):
            at = step % self.epoch
            if step and at == 0:
                order = permutation(count, self.rng, device)
            rows = order[at * self.size : (at + 1) * self.size]
            first, *others = (part[rows] for part in self.data)
            yield (first, *others) if others else first
