"""The training loop as a generator: θ ← θ − step(∇_θ loss(batch)), once for every batch.

Nothing in the loop waits for the device: the loss stays a tensor, and a step whose loss or gradient is not finite is
skipped on the device itself, by the `found_inf` flag that torch's fused optimizers read. The weights are therefore
never spoiled; the error is raised when a number is read.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

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
    return torch.optim.Adam([flat], lr=lr, fused=True, **options)


def fit(
    loss: Callable[[Any], Float[Tensor, ""]], batches: Iterable[Any], optimizer: torch.optim.Optimizer
) -> Iterator[Step]:
    """One optimizer step for each batch; yields a `Step` after each. Stop reading it and the training stops.

    for step in fit(partial(model.loss, rng=rng), batches, optimizer): ...

    For a progress bar write `for step in tqdm(fit(…), total=len(batches))`.

    Raises: ValueError where the optimizer is not fused; FloatingPointError, after the last batch or when a step's
    value is read, where a loss or a gradient was not finite.
    """
    if not all(group.get("fused") for group in optimizer.param_groups):
        raise ValueError(
            f"{type(optimizer).__name__} is not fused, so a bad step cannot be skipped without waiting; "
            "use lecturecode.training.adam(model) or pass fused=True"
        )
    return _steps(loss, batches, optimizer)


def _steps(loss, batches, optimizer) -> Iterator[Step]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    first_bad = torch.zeros((), dtype=torch.int64, device=parameters[0].device)
    step = None
    for number, batch in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=False)
        value = loss(batch)
        value.backward()
        sums = [value.detach(), *(p.grad.sum() for p in parameters if p.grad is not None)]
        bad = ~torch.stack(sums).isfinite().all()
        optimizer.found_inf = bad.to(torch.float32)  # read by the fused kernels: 1 means leave everything as it is
        optimizer.step()
        first_bad = torch.where(bad & (first_bad == 0), number, first_bad)
        step = Step(number, value.detach(), first_bad)
        yield step
    if step is not None:
        _ = step.value
