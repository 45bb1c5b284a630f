"""The training loop as a generator: θ ← θ − step(∇_θ loss(batch)), once for every batch.

Nothing in the loop waits for the device: the loss stays a tensor, and a step whose loss or gradient is not finite is
skipped on the device itself, by the `found_inf` flag that torch's fused optimizers read. The weights are therefore
never spoiled; the error is raised when a number is read.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn

from .graph import Graph

__all__ = ["Step", "adam", "fit"]


@dataclass(frozen=True)
class Step:
    """One step of training: its number (from 1), its loss as a tensor, and the first step that was not finite."""

    number: int
    loss: Float[Tensor, ""]
    first_bad: Int[Tensor, ""]

    @property
    def value(self) -> float:
        """The loss as a float: waits for the device, so read it once an epoch.

        Raises: FloatingPointError where this or an earlier step was not finite; such steps changed no weight.
        """
        if (bad := int(self.first_bad)) > 0:
            raise FloatingPointError(
                f"the loss or its gradient was not finite at step {bad}; no weight was changed by it; "
                "lower the learning rate or look for log 0 and overflow in the loss"
            )
        return float(self.loss)


def adam(model: nn.Module, lr: float = 1e-3, **options: Any) -> torch.optim.Adam:
    """Fused Adam (Kingma & Ba 2015, algorithm 1) over all trainable parameters of `model`, as one flat vector.

    The parameters become views of the vector, so one kernel updates them all. Move the model to its device first,
    and make no new parameters after.

    Raises: ValueError where the model has no parameter, or parameters of several devices or dtypes, or lr ≤ 0.
    """
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"lr is {lr}; a learning rate is finite and above zero")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameter to train; set requires_grad or add a network")
    kinds = {(str(p.device), str(p.dtype)) for p in parameters}
    if len(kinds) > 1:
        raise ValueError(f"the parameters are spread over {sorted(kinds)}; move the model to one device and dtype")
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    offset = 0
    for p in parameters:
        part = slice(offset, offset + p.numel())
        p.data = flat.data[part].view_as(p)
        p.grad = flat.grad[part].view_as(p)
        offset = part.stop
    flat.parts = [(p, p.grad) for p in parameters]  # type: ignore[attr-defined]  # for `_step`
    return torch.optim.Adam([flat], lr=lr, fused=True, **options)


def fit(
    loss: Callable[[Any], Float[Tensor, ""]],
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    start: int = 0,
    graph: torch.Generator | None = None,
) -> Iterator[Step]:
    """One optimizer step for each batch; yields a `Step` after each. Stop reading it and the training stops.

    for step in fit(partial(model.loss, rng=rng), batches, optimizer): ...

    For a progress bar write `for step in tqdm(fit(…), total=len(batches))`. `start` is the number of steps taken
    before, as a checkpoint gives it. With `graph` the step is captured once as a CUDA graph and replayed; give the
    CUDA generator that the loss draws from. Where torch.distributed is initialised, the weights start as rank 0 has
    them, and loss and gradient are the means over the ranks.

    Raises: ValueError where the optimizer is not fused, or a graph is asked for without a CUDA device;
    FloatingPointError, after the last batch or when a step's value is read, where a loss or a gradient was not finite.
    """
    if not all(group.get("fused") for group in optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__} is not fused, so a bad step cannot be skipped without waiting; "
            "use lecturecode.training.adam(model) or pass fused=True"
        )
    work = partial(_step, loss, optimizer)
    if graph is not None:
        work = Graph(work, optimizer, graph)
    return _steps(work, batches, optimizer, start)


def _steps(work, batches, optimizer, start) -> Iterator[Step]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    first_bad = torch.zeros((), dtype=torch.int64, device=parameters[0].device)
    if _ranks() > 1:
        for p in parameters:
            distributed.broadcast(p.detach(), 0)
    step = None
    for number, batch in enumerate(batches, start=start + 1):
        value, bad = work(batch)
        first_bad = torch.add(first_bad, bad & (first_bad == 0), alpha=number)
        step = Step(number, value, first_bad)
        yield step
    if step is not None:
        _ = step.value


def _step(loss, optimizer, batch) -> tuple[Tensor, Tensor]:
    """The loss before the step, and whether the step was skipped because something in it was not finite."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for p in parameters:
        if parts := getattr(p, "parts", ()):
            for part, _ in parts:
                part.grad = None
        elif p.grad is not None:
            p.grad.detach().zero_()
    value = loss(batch)
    value.backward()
    value = value.detach()
    for p in parameters:
        if parts := getattr(p, "parts", ()):  # one copy, where adding to zeros takes three passes over the memory
            found = [part.grad if part.grad is not None else torch.zeros_like(part) for part, _ in parts]
            torch.cat([gradient.flatten() for gradient in found], out=p.grad)
            for part, view in parts:
                part.grad = view
    gradients = [p.grad for p in parameters if p.grad is not None]
    if (ranks := _ranks()) > 1:
        value = value.clone()
        for tensor in (value, *gradients):
            distributed.all_reduce(tensor)
            tensor.div_(ranks)
    total = value
    for gradient in gradients:
        total = total + gradient.sum()
    bad = torch.ne(total * 0, 0)  # 0 · ∞ and 0 · NaN are NaN
    optimizer.found_inf = bad.to(torch.float32)  # read by the fused kernels: 1 means leave everything as it is
    optimizer.step()
    return value, bad


def _ranks() -> int:
    there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if there else 1
