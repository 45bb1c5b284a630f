"""Batches of a data set that stays where it is: each epoch is one random order, each batch an index into it.

The last, short batch of an epoch is left out, so that every step has the same size: over many epochs each example is
still drawn equally often, since every epoch has a new order.

A pass can be saved in the middle and taken up again: its state is the order of the epoch, the number of batches
taken, and the generator that draws the next order.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..rng import permutation

__all__ = ["Batches"]


class Batches:
    """`steps` batches of `size` rows of `data` (one tensor, or several with rows that belong together).

    for x in Batches(images, 128, rng, steps=1000): ...
    for x, labels in Batches((images, labels), 128, rng, steps=1000): ...

    `epoch` is the number of batches in one pass over the data, `taken` the number of batches given out so far. Of
    several ranks with one seed each takes its part of the same joint batch of `size` rows: share=(rank, ranks).

    Raises: ValueError where the data are empty, hold NaN or infinities, have unequal lengths or lie on several
    devices, where a batch is larger than the data, or where it cannot be shared equally.
    """

    def __init__(
        self,
        data: Tensor | tuple[Tensor, ...],
        size: int,
        rng: torch.Generator,
        steps: int,
        share: tuple[int, int] = (0, 1),
    ):
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
        rank, ranks = share
        if not 0 <= rank < ranks or size % ranks:
            raise ValueError(f"share is {share} of a batch of {size}; give (rank, ranks) with ranks a divisor of size")
        for i, part in enumerate(self.data):
            if part.is_floating_point():
                checks.finite(f"data[{i}]" if len(self.data) > 1 else "data", part)
        self.size, self.rng, self.steps, self.share = size, rng, steps, share
        self.epoch = lengths[0] // size
        self.taken = 0
        self._order = torch.zeros(0, dtype=torch.int64)
        self._goes_on = False

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, ...]]:
        self.taken = self.taken if self._goes_on else 0
        self._goes_on = False
        count, device = len(self.data[0]), self.data[0].device
        rank, part = self.share[0], self.size // self.share[1]
        while self.taken < self.steps:
            at = self.taken % self.epoch
            if at == 0:
                self._order = permutation(count, self.rng, device)
            start = at * self.size + rank * part
            rows = self._order[start : start + part]
            self.taken += 1
            first, *others = (tensor.index_select(0, rows) for tensor in self.data)
            yield (first, *others) if others else first

    def state_dict(self) -> dict[str, Any]:
        """The order of this epoch, how many batches were taken, and the state of the generator."""
        sizes = {"examples": len(self.data[0]), "size": self.size}
        return {"order": self._order, "taken": self.taken, "rng": self.rng.get_state(), **sizes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass goes on where the saved one stood.

        Raises: ValueError where it was saved for another number of examples or another size of the batch.
        """
        mine = {"examples": len(self.data[0]), "size": self.size}
        saved = {name: state[name] for name in mine}
        if mine != saved:
            raise ValueError(f"these batches have {mine} and the saved ones {saved}; make them over the same data")
        self._order = state["order"].to(self.data[0].device, copy=True)
        self.taken, self._goes_on = state["taken"], True
        self.rng.set_state(state["rng"])
