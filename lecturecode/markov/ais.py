"""Annealed importance sampling: the ratio of two normalising constants, one of them known.

    f_0 → f_{β_1} → … → f_1                         a path of unnormalised probabilities, f_β = e^{−E_β}
    x_0 ~ f_0/Z_0;   x_k ~ T_k(· | x_{k−1})         T_k leaves f_{β_k} invariant, k = 1 … K−1
    log w = Σ_{k=1}^{K} [E_{β_{k−1}}(x_{k−1}) − E_{β_k}(x_{k−1})]
    E[w] = Z_1/Z_0                                  for any K and any such T_k

Summing f_{β_k}/f_{β_{k−1}} · f_{β_{k−1}} = f_{β_k} from the inside out proves the last line: T_k keeps f_{β_k}. With
W = −log w for the work done on the system it is Jarzynski's equality at unit temperature, E[e^{−W}] = e^{−ΔF}.
(Neal 2001, section 2; Jarzynski 1997.)
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from .kernels import Kernel

__all__ = ["Annealed", "ais", "geometric"]


@dataclass(frozen=True)
class Annealed:
    """log w of each chain, and where the chain ended: with the weights w the ends are draws of f_1."""

    log_weights: Float[Tensor, " chains"]
    x: Float[Tensor, "chains ..."]

    @property
    def log_ratio(self) -> Float[Tensor, ""]:
        """log of the mean weight: the estimate of log(Z_1/Z_0). The mean is unbiased; its log is low on average."""
        return self.log_weights.logsumexp(0) - math.log(len(self.log_weights))

    @property
    def standard_error(self) -> Float[Tensor, ""]:
        """Of `log_ratio`, to first order: sd(w)/(mean(w) √chains); NaN for one chain.

        It is itself an estimate. Where few weights carry the mean (`effective_sample_size`) it is too small.
        """
        count = len(self.log_weights)
        spread = ((self.log_weights - self.log_ratio).exp() - 1).square().sum()
        return (spread / (count * (count - 1))).sqrt() if count > 1 else spread * math.nan

    @property
    def effective_sample_size(self) -> Float[Tensor, ""]:
        """(Σ w)²/Σ w², between 1 and the number of chains: how many equal weights would be as good."""
        return (2 * self.log_weights.logsumexp(0) - (2 * self.log_weights).logsumexp(0)).exp()


def ais(
    energy: Callable[[Tensor, float], Tensor],
    kernel: Callable[[float], Kernel],
    x: Float[Tensor, "chains ..."],
    betas: Sequence[int | float] | Float[Tensor, " steps"],
    rng: torch.Generator,
    *,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Annealed:
    """Anneals independent exact draws x of f_0 along `betas`, which rise from 0 to 1, and returns their weights.

    energy(x, beta) ↦ (chains,), E_β = −log f_β: any path, such as `geometric(first, last)` or the free energy of a
    restricted machine at inverse temperature β. kernel(beta) leaves f_β invariant; it is asked for 0 < β < 1 only.
    `progress` wraps the steps, for a progress bar: progress=tqdm.

    Raises: ValueError where betas do not rise from 0 to 1, x is empty, energies do not have the shape (chains,) or
    are not finite (the step is named; off the CPU at the end, so that no step waits), or a kernel changes the shape.
    Source: Neal (2001), section 2.
    """
    grid = _rising(betas)
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass at least one draw of f_0, one row a chain")
    log_weights, failed = None, torch.full((), len(grid), device=x.device)
    for k in progress(range(1, len(grid))):
        step = _energies(energy, x, grid[k - 1]) - _energies(energy, x, grid[k])
        failed = torch.where(torch.isfinite(step).all(), failed, failed.clamp(max=k))
        if checks.is_free(x) and failed <= k:
            break
        log_weights = step if log_weights is None else log_weights + step
        if k < len(grid) - 1:
            x = _moved(kernel(grid[k]), x, rng)
    if (k := int(failed)) < len(grid):
        raise ValueError(
            f"the energies are not finite at step {k} of {len(grid) - 1}, from beta = {grid[k - 1]:g} to {grid[k]:g}; "
            "f must be positive, and its energy a number, wherever the chains go"
        )
    return Annealed(log_weights, x)  # type: ignore[arg-type]


def geometric(first: Callable[[Tensor], Tensor], last: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """The path f_β = f_first^{1−β} f_last^β: (x, β) ↦ (1−β) E_first(x) + β E_last(x)."""
    return lambda x, beta: (1 - beta) * first(x) + beta * last(x)


def _rising(betas: Sequence[int | float] | Tensor) -> list[float]:
    grid = [float(beta) for beta in (betas.tolist() if isinstance(betas, Tensor) else betas)]
    if len(grid) < 2:
        raise ValueError(f"betas has {len(grid)} values; give at least the two ends, 0 and 1")
    if grid[0] != 0 or grid[-1] != 1:
        raise ValueError(f"betas run from {grid[0]:g} to {grid[-1]:g}; they must start at 0 and end at 1")
    for k, (low, high) in enumerate(pairwise(grid), 1):
        if not low < high:
            raise ValueError(f"betas[{k}] is {high:g} after {low:g}; they must rise from 0 to 1")
    return grid


def _energies(energy: Callable[[Tensor, float], Tensor], x: Tensor, beta: float) -> Tensor:
    found = energy(x, beta)
    if found.shape != x.shape[:1]:
        raise ValueError(
            f"energy(x, {beta:g}) has shape {tuple(found.shape)}, not ({len(x)},); return one number for each chain"
        )
    return found.detach()


def _moved(kernel: Kernel, x: Tensor, rng: torch.Generator) -> Tensor:
    moved = kernel(x, rng)
    if moved.shape != x.shape:
        raise ValueError(
            f"the kernel turned the shape {tuple(x.shape)} into {tuple(moved.shape)}; it must keep one row a chain"
        )
    return moved.detach()
