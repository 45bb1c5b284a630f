"""The exponential moving average of a model's parameters, without a bias at its start.

With θ_j the parameters after step j and decay d, the average after k steps is

    θ̄_k = Σ_{j≤k} w_j θ_j,    w_j = (1 − d) d^{k−j} / (1 − d^k),    Σ_j w_j = 1,

which is the recursion θ̄_k = θ̄_{k−1} + (1 − d)/(1 − d^k) · (θ_k − θ̄_{k−1}). Its first value is θ_1 itself: nothing of
the random start remains in it. (The same correction as in Adam: Kingma & Ba 2015, section 3.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Ema", "flat"]


class Ema:
    """The average of the trainable parameters; call update() after each step. Make it after `adam(model)`.

    for step in fit(…):
        ema.update()
    with ema.weights():            # the model has the averaged weights in here
        ...

    Buffers (statistics of normalisation layers) are not averaged. One kernel where the parameters lie in one vector.

    Raises: ValueError where decay is not in [0, 1) or the model has no trainable parameter.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; choose it from 0 (no average) to below 1 (0.999: a thousand steps)")
        self.live = flat(model)
        if not self.live:
            raise ValueError(f"{type(model).__name__} has no parameter to average; set requires_grad first")
        self.decay, self.steps = decay, 0
        self.average = [part.clone() for part in self.live]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the model's present parameters into the average; waits for no device."""
        self.steps += 1
        weight = (1 - self.decay) / (1 - self.decay**self.steps)
        for average, live in zip(self.average, self.live, strict=True):
            average.lerp_(live, weight)

    @contextmanager
    def weights(self) -> Iterator[None]:
        """The model has the averaged parameters inside, and its own, bit for bit, after."""
        own = [part.clone() for part in self.live]
        self._copy(self.average, self.live)
        try:
            yield
        finally:
            self._copy(own, self.live)

    def state_dict(self) -> dict[str, Any]:
        """The average, the number of steps in it, the decay."""
        return {"average": list(self.average), "steps": self.steps, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copies a saved average into this one.

        Raises: ValueError where it is of another model.
        """
        mine, theirs = ([(tuple(a.shape), a.dtype) for a in parts] for parts in (self.average, state["average"]))
        if mine != theirs:
            raise ValueError(f"the averages have {mine} here and {theirs} there")
        self._copy(state["average"], self.average)
        self.steps, self.decay = state["steps"], state["decay"]

    @staticmethod
    def _copy(source: list[Tensor], target: list[Tensor]) -> None:
        for ours, theirs in zip(target, source, strict=True):
            ours.copy_(theirs)


def flat(model: nn.Module) -> list[Tensor]:
    """The trainable parameters without their gradients, sharing memory: one vector after `adam(model)`, else each."""
    parts = [p.detach() for p in model.parameters() if p.requires_grad]
    end = None
    for part in parts:
        if end not in (None, part.data_ptr()) or not part.is_contiguous():
            return parts
        end = part.data_ptr() + part.numel() * part.element_size()
    if len({part.untyped_storage().data_ptr() for part in parts}) != 1:
        return parts
    total = sum(part.numel() for part in parts)
    return [parts[0].as_strided((total,), (1,))]
