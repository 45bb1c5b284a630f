"""The noise: what a data point becomes at time t, how one step goes, and how it is undone when x_0 is known.

With α_{t|r} = α_t/α_r and σ²_{t|r} = σ_t² − α²_{t|r} σ_r² for r < t,

    q(x_t|x_0)      = N(α_t x_0, σ_t² I)
    q(x_t|x_r)      = N(α_{t|r} x_r, σ²_{t|r} I)
    q(x_r|x_t, x_0) = N((α_{t|r} σ_r² x_t + α_r σ²_{t|r} x_0)/σ_t², σ²_{t|r} σ_r²/σ_t² I)

(Kingma, Salimans, Poole & Ho 2021, appendix A). Differences are taken of log SNRs, σ²_{t|r} = σ_t² (1 − e^{λ_t−λ_r}):
nothing cancels when r is close to t.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from .gaussian import Gaussian
from .schedule import Schedule, Time, as_tensor

__all__ = ["forward", "levels", "marginal", "noise_end", "posterior", "transition"]


def levels(schedule: Schedule, t: Time, like: Tensor) -> tuple[Tensor, Tensor]:
    """(α_t, σ_t) with the dtype and the device of `like`, in a shape that multiplies it; t is one time, or one a row.

    Raises: ValueError where t is neither, or outside the schedule.
    """
    alpha, sigma = schedule(at(t, like))
    return _fit(alpha, like), _fit(sigma, like)


def forward(schedule: Schedule, x0: Float[Tensor, "batch *d"], eps: Float[Tensor, "batch *d"], t: Time) -> Tensor:
    """x_t = α_t x_0 + σ_t ε, with the noise as an argument.

    Raises: ValueError where t is outside the schedule or has another number of rows, or the shapes differ.
    """
    _alike(x0=x0, eps=eps)
    alpha, sigma = levels(schedule, t, x0)
    return alpha * x0 + sigma * eps


def marginal(schedule: Schedule, x0: Float[Tensor, "batch *d"], t: Time) -> Gaussian:
    """q(x_t|x_0) = N(α_t x_0, σ_t²)."""
    alpha, sigma = levels(schedule, t, x0)
    return Gaussian(alpha * x0, sigma.square())


def transition(schedule: Schedule, xr: Float[Tensor, "batch *d"], r: Time, t: Time) -> Gaussian:
    """q(x_t|x_r) for r < t: mean α_{t|r} x_r, variance σ²_{t|r} = σ_t² (1 − e^{λ_t−λ_r}).

    Raises: ValueError where r ≥ t.
    """
    lost, alpha_r, alpha_t, _, sigma_t = _pair(schedule, r, t, xr)
    return Gaussian(alpha_t / alpha_r * xr, sigma_t.square() * lost)


def posterior(
    schedule: Schedule, x0: Float[Tensor, "batch *d"], xt: Float[Tensor, "batch *d"], r: Time, t: Time
) -> Gaussian:
    """q(x_r|x_t, x_0), r < t: mean (α_{t|r} σ_r² x_t + α_r σ²_{t|r} x_0)/σ_t², variance σ²_{t|r} σ_r²/σ_t².

    At r = 0 it is x_0, with variance zero.

    Raises: ValueError where r ≥ t, or the shapes differ. Source: Kingma, Salimans, Poole & Ho (2021), appendix A.
    """
    _alike(x0=x0, xt=xt)
    lost, alpha_r, alpha_t, sigma_r, sigma_t = _pair(schedule, r, t, xt)
    return Gaussian(
        alpha_t / alpha_r * (sigma_r / sigma_t).square() * xt + alpha_r * lost * x0, sigma_r.square() * lost
    )


def noise_end(schedule: Schedule, shape: tuple[int, ...], like: Tensor) -> Gaussian:
    """p(x_T) = N(0, (α_T² + σ_T²) I): the model's noise end, the marginal of data with unit variance.

    It is N(0, I) where α² + σ² = 1. `.sample(rng)` starts a sampler.
    """
    alpha, sigma = levels(schedule, schedule.end, like)
    mean = torch.zeros(shape, dtype=like.dtype, device=like.device)
    return Gaussian(mean, alpha.square() + sigma.square())


def at(t: Time, like: Tensor) -> Tensor:
    """t as a tensor: one time, or one for each row of `like`. Raises ValueError otherwise."""
    t = as_tensor(t)
    if t.ndim > 1 or (t.ndim == 1 and len(t) != len(like)):
        raise ValueError(f"t has shape {tuple(t.shape)} and x {tuple(like.shape)}; give one time, or one for each row")
    return t


def _alike(**tensors: Tensor) -> None:
    (one, x), (two, y) = tensors.items()
    if x.shape != y.shape:
        raise ValueError(f"{one} has shape {tuple(x.shape)} and {two} {tuple(y.shape)}; expand one to the other")


def _fit(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like).reshape(value.shape + (1,) * (like.ndim - 1) if value.ndim else ())


def _pair(schedule: Schedule, r: Time, t: Time, like: Tensor) -> tuple[Tensor, ...]:
    """1 − e^{λ_t−λ_r} = σ²_{t|r}/σ_t², and both levels."""
    r, t = at(r, like), at(t, like)
    if checks.is_free(r) and checks.is_free(t) and not (r < t).all():
        early, late = (time.expand((~(r < t)).shape)[~(r < t)][0].item() for time in (r, t))
        raise ValueError(f"r = {early:g} is not before t = {late:g}; time grows with noise: swap them")
    difference = schedule.log_snr(t) - schedule.log_snr(r)
    (alpha_r, sigma_r), (alpha_t, sigma_t) = schedule(r), schedule(t)
    parts = (-torch.expm1(difference), alpha_r, alpha_t, sigma_r, sigma_t)
    return tuple(_fit(part, like) for part in parts)
