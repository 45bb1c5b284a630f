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
    mean, a, b, gain = (part.to(x) for part in (table.mean, table.a, table.b, table.gain))
    centres = (table.alpha[:, None] * table.mean).to(x)
    basis = None if table.basis is None else table.basis.to(x)
    shift = mean if basis is None else mean @ basis
    used = [[j for j in range(b.shape[1]) if layer[j].any()] for layer in table.b]
    z = flat - centres[0] if basis is None else (flat - centres[0]) @ basis
    reached, past = [*table.times.tolist()[1:], float(table.end)], []
    for call, time in enumerate(table.times.tolist()):
        x0_hat = ask(x, time, call)
        if x0_hat.data_ptr() == x.data_ptr():  # a denoiser may answer x itself, which is about to change
            x0_hat = x0_hat.clone()
        answer = x0_hat.reshape(flat.shape)
        rest = answer - shift if basis is None else torch.addmm(shift, answer, basis, beta=-1)
        past = [rest.addcmul_(z, gain[call], value=-1), *past[: b.shape[1] - 1]]
        z.mul_(a[call])
        for j in used[call]:
            z.addcmul_(past[j], b[call, j])
        if basis is None:
            torch.add(z, centres[call + 1], out=flat)
        else:
            torch.addmm(centres[call + 1], z, basis.mT, out=flat)
        yield reached[call], x, x0_hat
