"""The whole step as one CUDA graph: recorded once, then started by a single call for each batch.

A step on a small model is a hundred kernels of a few microseconds; what takes the time is starting them. A graph
starts them together. It works on fixed memory: each batch is copied to where the recorded one lay, so that all batches
must have one shape, and whatever the loss reads on the host (a schedule, a Python counter) stays as it was recorded.

The draws go on from the generator's state, which the graph advances at each replay.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Graph"]

WARM_UP = 3


class Graph:
    """step(batch) → tensors, recorded at the first call; that call and each later one takes one step.

    The steps that warm up the kernels before the recording leave no trace: weights, moments and generator are put back.

    Raises: ValueError where the parameters or the generator are not on a CUDA device.
    """

    def __init__(
        self,
        step: Callable[[Any], tuple[Tensor, ...]],
        optimizer: torch.optim.Optimizer,
        rng: torch.Generator,
    ):
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for name, device in {"parameters": self.parameters[0].device, "generator": rng.device}.items():
            if device.type != "cuda":
                raise ValueError(f"a CUDA graph needs CUDA, and the {name} of this step: {device}; leave graph out")
        self.step, self.optimizer, self.rng = step, optimizer, rng
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Any) -> tuple[Tensor, ...]:
        parts = (batch,) if isinstance(batch, Tensor) else tuple(batch)
        if self.graph is None:
            self._record(batch, parts)
        for fixed, part in zip(self.fixed, parts, strict=True):
            fixed.copy_(part)
        self.graph.replay()  # type: ignore[union-attr]  # recorded above
        return tuple(tensor.clone() for tensor in self.results)

    def _record(self, batch: Any, parts: tuple[Tensor, ...]) -> None:
        self.fixed = [part.clone() for part in parts]
        fixed = self.fixed[0] if isinstance(batch, Tensor) else tuple(self.fixed)
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        weights, state = [p.detach().clone() for p in self.parameters], self.rng.get_state()
        before = copy.deepcopy(self.optimizer.state_dict()["state"])
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.step(fixed)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.rng)
        with torch.cuda.graph(graph):
            self.results = self.step(fixed)
        with torch.no_grad():
            for p, kept in zip(self.parameters, weights, strict=True):
                p.copy_(kept)
            for number, p in enumerate(self.parameters):
                for name, moment in self.optimizer.state[p].items():
                    kept = before.get(number, {}).get(name)
                    moment.zero_() if kept is None else moment.copy_(kept)
        self.rng.set_state(state)
        self.graph = graph
