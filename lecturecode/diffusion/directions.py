"""Samplers with other coefficients in each direction of space, where the denoiser's linear part is taken out.

With a mean m and an orthogonal basis U, z = Uᵀ(x − α m) and at call k

    E_k = Uᵀ(x̂_0(x, t_k) − m) − g_k z,    z ← a_k z + Σ_j b_kj E_{k−j}        (entry by entry)

so that a, b and g have one number for each direction. g_k z is what Gaussian data would make of x; E_k is the rest, and
is kept as it was when the denoiser was called. x = α m + U z is made anew for each call.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from .. import checks

__all__ = ["DirectionTable"]


@dataclass(frozen=True, eq=False)
class DirectionTable:
    """The rows of a sampler without noise: the time of each call, a, b (one layer for E_k, E_{k−1} …) and g.

    `alpha` has α at the times of the calls and at `end`, the time that the last row reaches; x is taken as rows of d
    numbers, of any length where d = 1. `basis` has the directions as columns; None is the unit matrix. All are float64
    on the CPU.

    Raises: ValueError where the shapes disagree, a number is not finite, the basis is not orthogonal, or a row asks
    for an answer from before the first call.
    """

    times: Float64[Tensor, " calls"]
    a: Float64[Tensor, "calls d"]
    b: Float64[Tensor, "calls memory d"]
    gain: Float64[Tensor, "calls d"]
    alpha: Float64[Tensor, " stops"]
    mean: Float64[Tensor, " d"]
    basis: Float64[Tensor, "d d"] | None = None
    end: float = 0.0

    def __post_init__(self) -> None:
        calls, d = len(self.times), len(self.mean)
        shapes = {"times": (calls,), "a": (calls, d), "b": (calls, None, d), "gain": (calls, d), "alpha": (calls + 1,)}
        for name, wanted in (shapes | {"mean": (d,)}).items():
            checks.shape(name, getattr(self, name), wanted)
            checks.finite(name, getattr(self, name))
        if self.basis is not None:
            checks.shape("basis", self.basis, (d, d))
            off = (self.basis.mT @ self.basis - torch.eye(d, dtype=torch.float64)).abs().max().item()
            if not off < 1e-6:
                raise ValueError(f"basis.mT @ basis is {off:.1g} away from the unit matrix; give orthonormal columns")
        early = self.b.abs().sum(2).triu(1)
        if early.any():
            row, back = early.nonzero()[0].tolist()
            raise ValueError(
                f"b[{row}, {back}] asks call {row + 1} for an answer {back} calls back, before the first; start with "
                "rows of lower order"
            )

    @property
    def calls(self) -> int:
        """How often the denoiser is called."""
        return len(self.times)


def run_along(
    table: DirectionTable, x: Tensor, ask: Callable[[Tensor, float, int], Tensor]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """The rows one after the other, x in place: after each the time that is reached, x and the answer.

    Raises: ValueError where a row of x has another number of entries than the mean.
    """
    flat = x.view(len(x), -1)
    if flat.shape[1] != len(table.mean) != 1:
        raise ValueError(
            f"x_noise has rows of {flat.shape[1]} numbers and the table {len(table.mean)} directions; make them equal"
        )
    if len(table.mean) == 1 and not table.mean.any():  # no direction differs, and z is x
        return _run_alone(table, x, ask)
    return _run_apart(table, x, flat, ask)


def _run_apart(
    table: DirectionTable, x: Tensor, flat: Tensor, ask: Callable[[Tensor, float, int], Tensor]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    reached, past = [*table.times.tolist()[1:], float(table.end)], []
    calls = zip(table.times.tolist(), reached, _rows(table, x), strict=True)
    basis = None if table.basis is None else table.basis.to(x)
    mean, centres = table.mean.to(x), (table.alpha[:, None] * table.mean).to(x).unbind()
    shift, across = (mean, None) if basis is None else (mean @ basis, basis.mT.contiguous())
    z = flat - centres[0] if basis is None else (flat - centres[0]) @ basis
    for call, (time, stop, (a, minus, weights)) in enumerate(calls):
        x0_hat = ask(x, time, call)
        if x0_hat.data_ptr() == x.data_ptr():  # a denoiser may answer x itself, which is about to change
            x0_hat = x0_hat.clone()
        answer = x0_hat if x0_hat.ndim == 2 else x0_hat.reshape(flat.shape)
        rest = answer - shift if basis is None else torch.addmm(shift, answer, basis, beta=-1)
        past = [rest.addcmul_(z, minus), *past[: table.b.shape[1] - 1]]
        z.mul_(a)
        for j, weight in weights:
            z.addcmul_(past[j], weight)
        if across is None:
            torch.add(z, centres[call + 1], out=flat)
        else:
            torch.addmm(centres[call + 1], z, across, out=flat)
        yield stop, x, x0_hat


def _run_alone(
    table: DirectionTable, x: Tensor, ask: Callable[[Tensor, float, int], Tensor]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """The same with z = x and one number for all directions."""
    reached, past = [*table.times.tolist()[1:], float(table.end)], []
    scales = (
        table.a[:, 0].to(torch.promote_types(x.dtype, torch.float32)).unbind()
    )  # quicker than floats, as in `sample`
    rows = zip(table.times.tolist(), reached, scales, table.gain[:, 0].tolist(), table.b[..., 0].tolist(), strict=True)
    for call, (time, stop, a, gain, weights) in enumerate(rows):
        x0_hat = ask(x, time, call)
        past = [torch.sub(x0_hat, x, alpha=gain), *past[: table.b.shape[1] - 1]]
        if x0_hat.data_ptr() == x.data_ptr():
            x0_hat = x0_hat.clone()
        x.mul_(a)
        for rest, weight in zip(past, weights, strict=False):
            if weight:
                x.add_(rest, alpha=weight)
        yield stop, x, x0_hat


def _rows(table: DirectionTable, x: Tensor) -> list[tuple[Tensor, Tensor, list[tuple[int, Tensor]]]]:
    """a, −g and the pairs (j, b_j) with b_j ≠ 0 of each call; to take a row out costs as much as to multiply by it."""
    a, minus, b = table.a.to(x).unbind(), (-table.gain).to(x).unbind(), table.b.to(x)
    used = table.b.ne(0).any(2).tolist()
    layers = [[(j, row[j]) for j, there in enumerate(mask) if there] for row, mask in zip(b, used, strict=True)]
    return list(zip(a, minus, layers, strict=True))
