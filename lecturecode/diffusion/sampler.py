"""The executor: a table's rows applied one after the other, in place, to a copy of the noise.

    D_k = denoiser(x, t_k),    x ← a_k x + Σ_j b_kj D_{k−j} + n_k ε

It knows no method and no schedule. Coefficients are Python floats, so that nothing is copied to a device on the way;
answers are watched by their sums, which on an accelerator are read once, after the last call. A table of directions has
a loop of its own, in `directions`.

A corrector makes for each time a Markov kernel that leaves p_t invariant. It moves x where a row stops: where no later
row asks for an answer from before the move.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..rng import normal
from .denoiser import Denoise
from .directions import DirectionTable, run_along
from .schedule import Schedule, Time
from .tables import Table, Times

__all__ = ["Counted", "sample", "walk"]

Rule = Callable[[Schedule, Times], Table | DirectionTable]
Corrector = Callable[[float], Callable[[Tensor, torch.Generator], Tensor]]


def sample(
    denoiser: Denoise,
    step: Rule | Table | DirectionTable,
    x_noise: Float[Tensor, "batch *d"],
    times: Times | None = None,
    rng: torch.Generator | None = None,
    corrector: Corrector | None = None,
) -> Float[Tensor, "batch *d"]:
    """x at the last time, from x_noise at the first.

    sample(denoiser, ddim, x, uniform_grid(schedule, 50)), or with partial(ddim, eta=1.0), or with a Table and no
    times. One step from t to r is sample(denoiser, ddim, xt, [t, r]). No gradient is recorded.
    corrector(t) is a kernel (x, rng) ↦ x for p_t, used at each time that a step reaches, but for t = 0.

    Raises: ValueError where times are missing, out of order or outside the schedule, x_noise is not finite, noise is
    to be drawn and rng is missing, a corrector is given for a table with a memory, or it changes the shape of x;
    FloatingPointError where an answer of the denoiser is not finite. Source of correctors: Song et al. (2021), 4.2.
    """
    table, x, kernels = _start(denoiser, step, x_noise, times, rng, corrector)
    with torch.no_grad():
        deque(_runs(denoiser, table, x, kernels, rng), maxlen=0)
    return x


def walk(
    denoiser: Denoise,
    step: Rule | Table | DirectionTable,
    x_noise: Float[Tensor, "batch *d"],
    times: Times | None = None,
    rng: torch.Generator | None = None,
    corrector: Corrector | None = None,
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """The same, seen on the way: after each call the time that is reached, a copy of x there, and the x̂_0 used.

    Raises: as `sample`, with the wrong arguments named before the first step is asked for.
    """
    return _walk(denoiser, *_start(denoiser, step, x_noise, times, rng, corrector), rng)


class Counted:
    """A denoiser that counts how often it is called, in `calls`.

    `Guided` calls two: count the one inside, Guided(Counted(Given(denoiser, labels)), …).
    """

    def __init__(self, denoiser: Denoise):
        self.denoiser, self.calls = denoiser, 0

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser inside."""
        return self.denoiser.schedule

    def __call__(self, xt: Tensor, t: Time) -> Tensor:
        self.calls += 1
        return self.denoiser(xt, t)


def _start(denoiser, step, x_noise, times, rng, corrector) -> tuple[Table | DirectionTable, Tensor, dict]:
    """The checks, the table, the one copy of x, and the kernels by row."""
    if isinstance(step, Table | DirectionTable):
        if times is not None:
            raise ValueError("a Table has its own times; leave times out, or pass the rule that makes the table")
        table = step
    elif times is None:
        raise ValueError("times are missing; give a falling grid, uniform_grid(denoiser.schedule, steps) for one")
    else:
        table = step(denoiser.schedule, times)
    if x_noise.ndim < 2 or not x_noise.is_floating_point():
        raise ValueError(
            f"x_noise has shape {tuple(x_noise.shape)} and is {x_noise.dtype}; give floats, one row a draw"
        )
    x_noise = x_noise.detach()
    if not math.isfinite(x_noise.sum()):
        checks.finite("x_noise", x_noise)
    if isinstance(table, DirectionTable):
        if corrector is not None:
            raise ValueError("a table of directions takes no corrector; take ddim, ancestral, heun or euler_maruyama")
        return table, x_noise.clone(memory_format=torch.contiguous_format), {}
    noisy = corrector is not None or table.opening[1] or any(n for *_, n in table.rows)
    if rng is None and noisy:
        raise ValueError("this sampler draws noise, and rng is missing; pass rng=seeded(0), or take ddim with eta=0")
    kernels = {}
    if corrector is not None:
        stops = table.stops
        if not all(stops[row] or stops[row + 1] for row in range(table.calls - 1)):
            raise ValueError(
                "a corrector moves x, and later rows of this table ask for answers from before the move; take a "
                "method without a memory: ddim, ancestral, heun or euler_maruyama"
            )
        ends = [reached for _, reached, *_ in table.rows]
        kernels = {row: corrector(t) for row, t in enumerate(ends) if stops[row] and t > 0}
    return table, x_noise.clone(), kernels


def _runs(denoiser, table, x, kernels, rng) -> Iterator[tuple[float, Tensor, Tensor]]:
    if isinstance(table, DirectionTable):
        return _run_along(denoiser, table, x)
    return _run(denoiser, table, x, kernels, rng)


def _run(denoiser, table, x, kernels, rng) -> Iterator[tuple[float, Tensor, Tensor]]:
    shape, ask = x.shape, _Watched(denoiser, x)
    past = deque(maxlen=table.b.shape[1])
    scale, kick = table.opening
    if scale != 1:
        x.mul_(scale)
    if kick:
        x.add_(normal(shape, rng, x), alpha=kick)
    # a product with a tensor of one number on the CPU takes half the time of one with a float
    scales = table.a.to(ask.wide).unbind()
    for call, (a, (time, reached, row, n)) in enumerate(zip(scales, table.rows, strict=True)):
        x0_hat = ask(x, time, call)
        if x0_hat.data_ptr() == x.data_ptr():  # a denoiser may answer x itself, which is about to change
            x0_hat = x0_hat.clone()
        past.appendleft(x0_hat)
        x.mul_(a)
        for j, b in row:
            x.add_(past[j], alpha=b)
        if n:
            x.add_(normal(shape, rng, x), alpha=n)
        if call in kernels:
            moved = kernels[call](x, rng)
            if moved.shape != shape:
                raise ValueError(f"the corrector gives shape {tuple(moved.shape)} for x of {tuple(shape)}; keep it")
            x.copy_(moved)
        yield reached, x, x0_hat
    ask.settle(table.times)


def _run_along(denoiser, table, x) -> Iterator[tuple[float, Tensor, Tensor]]:
    ask = _Watched(denoiser, x)
    yield from run_along(table, x, ask)
    ask.settle(table.times)


class _Watched:
    """The denoiser's answers, refused where a shape is wrong or a number not finite: on the way, or by `settle`."""

    def __init__(self, denoiser: Denoise, x: Tensor):
        self.denoiser, self.shape, self.free, self.sums = denoiser, x.shape, checks.is_free(x), []
        self.wide = torch.promote_types(x.dtype, torch.float32)  # a sum of many halves overflows

    def __call__(self, x: Tensor, time: float, call: int) -> Tensor:
        x0_hat = self.denoiser(x, time)
        if x0_hat.shape != self.shape:
            shapes = tuple(x0_hat.shape), tuple(self.shape)
            raise ValueError(f"the denoiser gives shape {shapes[0]} for x of {shapes[1]}; make them equal")
        total = x0_hat.sum(dtype=self.wide)
        if not self.free:
            self.sums.append(total)
        elif not math.isfinite(total) and not torch.isfinite(x0_hat).all():
            raise _not_finite(call, time)
        return x0_hat

    def settle(self, times: Tensor) -> None:
        """Reads the sums that an accelerator kept."""
        if self.sums and not (fine := torch.isfinite(torch.stack(self.sums))).all():
            bad = int((~fine).nonzero()[0])
            raise _not_finite(bad, times[bad].item())


@torch.no_grad()
def _walk(denoiser, table, x, kernels, rng) -> Iterator[tuple[float, Tensor, Tensor]]:
    for reached, here, x0_hat in _runs(denoiser, table, x, kernels, rng):
        yield reached, here.clone(), x0_hat


def _not_finite(call: int, time: float) -> FloatingPointError:
    return FloatingPointError(
        f"the denoiser's answer is not finite in call {call + 1}, at t = {time:g}; look for log 0, 0/0 or overflow "
        "there, or for weights that are not finite"
    )
