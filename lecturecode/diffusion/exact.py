"""The exact denoiser of Gaussian data, for which every quantity of a diffusion model is a closed form.

    p(x_0) = N(m, C),  C = U diag(c) Uᵀ,        p_t(x_t) = N(α m, U diag(s²) Uᵀ),  s² = α² c + σ²
    E[x_0|x_t]   = m + U diag(α c/s²) Uᵀ(x_t − α m)
    Cov[x_0|x_t] = U diag(σ² c/s²) Uᵀ
    flow         x_r = α_r m + U diag(s_r/s_t) Uᵀ(x_t − α_t m)

The last is the probability-flow ODE solved from t to r: along each eigenvector the path keeps its number of standard
deviations (Song et al. 2021, eq. 13, with this score). A direction with c = 0 has x̂_0 = m there at every t > 0, and
so in the limit t → 0; elsewhere x̂_0 → x_t/α.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..device import best_dtype
from ..rng import normal
from .process import at
from .schedule import Schedule, Time, as_tensor, inside

__all__ = ["GaussianDenoiser"]


@dataclass(frozen=True, eq=False)
class GaussianDenoiser:
    """E[x_0|x_t] for x_0 ~ N(mean, covariance): the covariance is a variance, a diagonal (d,) or a matrix (d, d).

    Singular covariances are allowed. The work is done in float64 where the device has it; answers have the dtype of
    x_t.

    Raises: ValueError where the shapes disagree, or the covariance is not symmetric or has a negative eigenvalue.
    """

    mean: Float[Tensor, " d"]
    covariance: float | Tensor
    schedule: Schedule
    _variances: Tensor = field(init=False, repr=False)
    _basis: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        checks.shape("mean", self.mean, (None,))
        checks.finite("mean", self.mean)
        mean = self.mean.to(best_dtype(self.mean.device))
        covariance = as_tensor(self.covariance).to(mean)
        variances, basis = eigen("covariance", covariance, len(mean))
        for name, value in (("mean", mean), ("_variances", variances), ("_basis", basis)):
            object.__setattr__(self, name, value)

    def __call__(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, "batch d"]:
        """x̂_0 = E[x_0 | x_t]."""
        y, alpha, sigma = self._along(xt, t)
        gain = ratio(alpha * self._variances, alpha.square() * self._variances + sigma.square())
        return (self.mean + (gain * y) @ self._basis.mT).to(xt)

    def log_prob(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, " batch"]:
        """log p_t(x_t) in nats. Where t = 0 and the covariance is singular there is no density: it is not finite."""
        y, alpha, sigma = self._along(xt, t)
        spread = alpha.square() * self._variances + sigma.square()
        return (-(y.square() / spread + (2 * math.pi * spread).log()).sum(-1) / 2).to(xt)

    def score(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, "batch d"]:
        """∇ log p_t(x_t) = −U diag(1/s²) Uᵀ(x_t − α m).

        Raises: ValueError where t = 0 and the covariance is singular, so that there is no density.
        """
        y, alpha, sigma = self._along(xt, t)
        return -((y / dense(alpha.square() * self._variances + sigma.square())) @ self._basis.mT).to(xt)

    def posterior_covariance(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, "batch d d"]:
        """Cov[x_0 | x_t], the same for every x_t."""
        _, alpha, sigma = self._along(xt, t)
        left = ratio(sigma.square() * self._variances, alpha.square() * self._variances + sigma.square())
        matrix = (self._basis * left[..., None, :]) @ self._basis.mT
        return matrix.expand(len(xt), *matrix.shape[-2:]).to(xt)

    def flow(self, xt: Float[Tensor, "batch d"], t: Time, r: Time) -> Float[Tensor, "batch d"]:
        """x_r on the probability-flow path through x_t, to noise or to data: what a sampler without noise aims at."""
        y, alpha, sigma = self._along(xt, t)
        alpha_r, sigma_r = row_levels(self.schedule, r, xt, self.mean, 1)
        before, after = (a.square() * self._variances + s.square() for a, s in ((alpha, sigma), (alpha_r, sigma_r)))
        return (alpha_r * self.mean + (ratio(after, before).sqrt() * y) @ self._basis.mT).to(xt)

    def sample(self, count: int, rng: torch.Generator) -> Float[Tensor, "count d"]:
        """`count` independent draws of x_0: m + U diag(√c) ε."""
        eps = normal((count, len(self.mean)), rng, self.mean)
        return self.mean + (self._variances.sqrt() * eps) @ self._basis.mT

    def _along(self, xt: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Uᵀ(x_t − α m), and the levels in a shape that multiplies it."""
        checks.shape("xt", xt, (None, len(self.mean)))
        alpha, sigma = row_levels(self.schedule, t, xt, self.mean, 1)
        return (xt.to(self.mean.dtype) - alpha * self.mean) @ self._basis, alpha, sigma


def row_levels(schedule: Schedule, t: Time, xt: Tensor, like: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """(α_t, σ_t) in the dtype of `like`, made from t in that dtype, with `axes` axes of one behind the rows."""
    t = at(t, xt)
    if t.dtype != like.dtype:  # in float64 the last float32 time may lie a rounding beyond the end
        t = inside(schedule, t).to(like.dtype).clamp(max=schedule.end)
    alpha, sigma = schedule(t)
    shape = t.shape + (1,) * axes if t.ndim else ()
    return alpha.to(like).reshape(shape), sigma.to(like).reshape(shape)


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """above/below for numbers ≥ 0 that vanish together in a direction without any spread: 0 there."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1), 0)


def dense(spread: Tensor) -> Tensor:
    """The same variances. Raises ValueError where one is zero; tensors off the CPU are not read."""
    if checks.is_free(spread) and not (spread > 0).all():
        raise ValueError("p_t has no density at t = 0 where a covariance is singular; choose t > 0")
    return spread


def eigen(name: str, covariance: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """(d,) eigenvalues and their vectors as columns, of a variance (), variances (d,) or a matrix (d, d).

    Raises: ValueError where it has another shape, is not symmetric, or has a negative eigenvalue.
    """
    checks.finite(name, covariance)
    if covariance.shape not in ((), (d,), (d, d)):
        raise ValueError(
            f"{name} has shape {tuple(covariance.shape)} for {d} numbers; give a variance, {d} of them, or ({d}, {d})"
        )
    if covariance.ndim < 2:
        values = covariance.expand(d).contiguous()
        basis = torch.eye(d, dtype=covariance.dtype, device=covariance.device)
    else:
        size, skew = covariance.abs().max(), (covariance - covariance.mT).abs()
        if skew.max() > 1e-6 * size:
            i, j = divmod(int(skew.argmax()), d)
            raise ValueError(
                f"{name} is not symmetric: [{i}, {j}] is {covariance[i, j].item():g} and [{j}, {i}] "
                f"{covariance[j, i].item():g}; pass (C + C.mT)/2"
            )
        values, basis = torch.linalg.eigh((covariance + covariance.mT) / 2)
    if values.min() < -1e-6 * values.abs().max():
        raise ValueError(f"{name} has the eigenvalue {values.min().item():g}; variances are not negative")
    return values.clamp(min=0), basis
