"""Exponential Adams–Bashforth about the exact flow of Gaussian data: one kernel for each direction of the covariance.

For N(m, C) with C = U diag(c) Uᵀ the denoiser's answer is m + U diag(g) z, z = Uᵀ(x − α m), g = α c/s², s² = α² c + σ².
With E the rest of any denoiser's answer, E = Uᵀ(x̂_0 − m) − g z, the probability-flow equation d(x/σ)/dℓ = e^ℓ x̂_0 has
in each direction the solution

    z_r = (s_r/s_t) z_t + s_r ∫ (α/s) E dℓ,    α/s = (c + e^{−2ℓ})^{−1/2},    ℓ = log α/σ

The factor in front is the whole answer for Gaussian data, whatever the step. E is replaced by the polynomial in ℓ
through its last values, and the integrals are taken by Gauss's rule of 16 points on pieces of ℓ no longer than 1: the
kernel has no singularity nearer than π/2 to the real line, so that their error is that of rounding.

c = 0 is `exponential`: the kernel is e^ℓ, g = 0, and the polynomial through x̂_0 − m is that through x̂_0 without m.

From α = 0, where ℓ = −∞, E is a constant: ∫ = arsinh(√c α_r/σ_r)/√c. To t = 0 it is taken as that of Gaussian data
with another mean m′, E = (σ²/s²) Uᵀ(m′ − m): z_0 = (√c/s_t) z_t + s_t/(s_t + α_t √c) E.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from .directions import DirectionTable
from .exact import eigen
from .multistep import plan
from .schedule import Schedule, as_tensor
from .tables import Times, steps

__all__ = ["gaussian_exponential", "noise_exponential"]

NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(16))


class Rows(NamedTuple):
    """The coefficients of a `DirectionTable` that do not depend on the basis, with one direction for each variance."""

    times: Tensor
    a: Tensor
    b: Tensor
    gain: Tensor
    alpha: Tensor


def gaussian_exponential(
    schedule: Schedule,
    times: Times,
    mean: Float[Tensor, " d"],
    covariance: float | Tensor,
    order: int = 2,
    corrected: bool = True,
    retaken: bool = False,
) -> DirectionTable:
    """Exponential Adams–Bashforth of order 1 to 4 whose linear part is the exact flow of N(mean, covariance).

        z_r = (s_r/s_t) z_t + Σ_j E_j s_r ∫ (c + e^{−2ℓ})^{−1/2} Π_{i≠j} (ℓ − ℓ_i)/(ℓ_j − ℓ_i) dℓ

    The covariance is a variance, a diagonal (d,) or a matrix (d, d), and may be singular. For data N(mean, covariance)
    every grid gives the exact answer, also a single step. `corrected` is that of `exponential`. `retaken` takes each
    step once more when the answer at its end is known, with that answer beside those it had, before the next is taken;
    the start is then led up to. It costs no call. As a rule: partial(gaussian_exponential, mean=…, covariance=…).

    Raises: ValueError where the covariance is not symmetric or has a negative eigenvalue, or as `exponential`.
    Source: Zhang & Chen (2023) for c = 0; Hochbruck & Ostermann (2010) for a linear part that is taken exactly; Zhao et
    al. (2023) for the steps retaken.
    """
    checks.shape("mean", mean, (None,))
    checks.finite("mean", mean)
    mean = mean.detach().to("cpu", torch.float64)
    given = as_tensor(covariance).detach().to(mean)
    variances, basis = eigen("covariance", given, len(mean))
    rows = rows_of(schedule, times, variances, order, corrected, retaken)
    return DirectionTable(*rows, mean, basis if given.ndim == 2 else None, end=float(as_tensor(times)[-1]))


def noise_exponential(
    schedule: Schedule, times: Times, order: int = 3, corrected: bool = True, retaken: bool = False
) -> DirectionTable:
    """Exponential Adams–Bashforth of order 1 to 4 for the noise ε̂ = (x − α x̂_0)/σ in the place of x̂_0.

        x_r = (α_r/α_t) x_t − α_r Σ_j ε̂_j ∫ e^{−ℓ} Π_{i≠j} (ℓ − ℓ_i)/(ℓ_j − ℓ_i) dℓ

    A table of one direction for all, with g = 1/α: E = −(σ/α) ε̂. Order 1 is `ddim`, as are the steps from α = 0 and to
    t = 0. `retaken` is that of `gaussian_exponential`.

    Raises: ValueError as `exponential`. Source: Zhang & Chen (2023), eqs. 14 and 15, with polynomials in ℓ.
    """
    rows = _assemble(_Noise, schedule, times, torch.zeros(1, dtype=torch.float64), order, corrected, retaken)
    return DirectionTable(*rows, torch.zeros(1, dtype=torch.float64), end=float(as_tensor(times)[-1]))


def rows_of(schedule: Schedule, times: Times, c: Tensor, order: int, corrected: bool, retaken: bool = False) -> Rows:
    """The rows for directions of the variances c. Raises as `gaussian_exponential`."""
    return _assemble(_Gaussian, schedule, times, c, order, corrected, retaken)


class _Gaussian:
    """The factor of z, g, and the weights of E between two of the times."""

    def __init__(self, ell: list[float], alpha: Tensor, sigma: Tensor, c: Tensor):
        self.ell, self.alpha, self.sigma, self.c = ell, alpha, sigma, c
        self.spread = (alpha.square()[:, None] * c + sigma.square()[:, None]).sqrt()
        self.gain = alpha[:, None] * c / self.spread.square().clamp(min=1e-300)

    def factor(self, t: int, r: int) -> Tensor:
        return self.spread[r] / self.spread[t]

    def shares(self, t: int, r: int, nodes: list[int]) -> Tensor:
        alpha, spread = self.alpha[r], self.spread
        if math.isinf(self.ell[r]):
            return (spread[t] / (spread[t] + self.alpha[t] * self.c.sqrt()))[None]
        if math.isinf(self.ell[t]):
            u = (self.c.sqrt() * alpha / self.sigma[r]).clamp(min=1e-150)
            return (spread[r] * alpha / self.sigma[r] * (u.asinh() / u))[None]
        stop, c = self.ell[r], self.c
        where = [self.ell[node] for node in nodes]
        return alpha * _integrals(
            self.ell[t], stop, where, lambda ell: ((c + math.exp(-2 * stop)) / (c + torch.exp(-2 * ell))).sqrt()
        )


class _Noise:
    """The same for ε̂."""

    def __init__(self, ell: list[float], alpha: Tensor, sigma: Tensor, _: Tensor):
        self.ell, self.alpha, self.sigma = ell, alpha, sigma
        self.gain = torch.where(alpha > 0, 1 / alpha, 0)[:, None]

    def factor(self, t: int, r: int) -> Tensor:
        whole = self.alpha if self.alpha[t] > 0 else self.sigma
        return (whole[r] / whole[t]).reshape(1)

    def shares(self, t: int, r: int, nodes: list[int]) -> Tensor:
        if math.isinf(self.ell[r]) or math.isinf(self.ell[t]):
            return self.alpha[r].reshape(1, 1)
        start, where = self.ell[t], [self.ell[node] for node in nodes]
        grown = torch.tensor([math.exp(ell - start) for ell in where], dtype=torch.float64)
        return (
            self.alpha[r] * grown[:, None] * _integrals(start, self.ell[r], where, lambda ell: torch.exp(start - ell))
        )


def _assemble(
    kind: type[_Gaussian] | type[_Noise],
    schedule: Schedule,
    times: Times,
    c: Tensor,
    order: int,
    corrected: bool,
    retaken: bool,
) -> Rows:
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order is {order}; choose it from 1 to 4")
    t, r = steps(schedule, times, order)
    grid = torch.cat([t, r[-1:]])
    ell = (schedule.log_snr(grid) / 2).tolist()
    for k, (now, then) in enumerate(pairwise(ell)):
        if not now < then:
            raise ValueError(f"times[{k}] and times[{k + 1}] have one log SNR, {2 * now:g}; leave one of them out")
    alpha, sigma = schedule(grid)
    linear = kind(ell, alpha, sigma, c)
    calls = plan([math.isfinite(value) for value in ell], order, corrected and not retaken)
    at = [node for node, *_ in calls]

    def share(t: int, r: int, used: list[int]) -> dict[int, Tensor]:
        return dict(zip(used, linear.shares(t, r, [at[i] for i in used]), strict=True))

    a, b, before = [], c.new_zeros(len(calls), order + 2, len(c)), {}
    for call, (node, target, base, used) in enumerate(calls):
        a.append(linear.factor(node, target))
        after = share(base, target, used)
        again = share(node - 1, node, [call, *before]) if retaken and call and math.isfinite(ell[node - 1]) else {}
        before = before if base != node or again else {}
        for i in after | before | again:
            b[call, call - i] = after.get(i, 0.0) + a[-1] * (again.get(i, 0.0) - before.get(i, 0.0))
        before = after
    width = int(b.abs().sum(2).any(0).nonzero().max()) + 1
    return Rows(grid[at], torch.stack(a), b[:, :width], linear.gain[at], torch.cat([alpha[at], alpha[-1:]]))


def _integrals(start: float, stop: float, nodes: list[float], kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """(count, d): ∫ kernel(ℓ) Π_{i≠j} (ℓ − ℓ_i)/(ℓ_j − ℓ_i) dℓ from start to stop."""
    pieces = max(1, math.ceil(stop - start))
    half = (stop - start) / pieces / 2
    v = (half * (2 * torch.arange(pieces)[:, None] + 1 + NODES)).flatten()  # ℓ − start
    relative = [node - start for node in nodes]
    lines = []
    for j, here in enumerate(relative):
        line = half * WEIGHTS.repeat(pieces)
        for other in relative[:j] + relative[j + 1 :]:
            line = line * (v - other) / (here - other)
        lines.append(line)
    return torch.stack(lines) @ kernel(start + v[:, None])
