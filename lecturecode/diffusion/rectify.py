"""Rectified flows: pairs that an earlier flow has made, the loss on given pairs, and how straight the paths are.

    x_t = α_t x_0 + σ_t ε for pairs (x_0, ε) of any coupling,    loss = E|α̇_t x_0 + σ̇_t ε − u_t(x_t)|²
    S = E ∫₀¹ |dx/ds − (x_T − x_0)|² ds along the paths of the flow,    s = t/T

A flow that is trained on independent pairs carries noise to data on curved paths. Its own two ends are pairs whose
lines cross less, and a second flow, trained on them along `Straight()`, has the same data and no larger E|x_T − x_0|²
(Liu, Gong & Liu 2023, theorem 3.5). S = 0 on `Straight()` means that one Euler step is exact.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .denoiser import Denoise
from .flow import slopes, velocity
from .likelihood import Path, decode
from .ode import integrate
from .process import at, forward, levels
from .schedule import Time

__all__ = ["flow_matching_loss", "rectified_pairs", "straightness"]


def flow_matching_loss(denoiser: Denoise, x0: Float[Tensor, "batch *d"], eps: Tensor, t: Time) -> Float[Tensor, ""]:
    """Mean over rows and entries of |α̇ x_0 + σ̇ ε − u_t(x_t)|² for given pairs, at one time or one for each row.

    `Denoiser.loss` with FLOW is the same for independent pairs. This one is for coupled pairs.

    Raises: ValueError as `velocity`, or where x_0 and ε have different shapes.
    """
    if x0.shape != eps.shape:
        raise ValueError(f"x0 has shape {tuple(x0.shape)} and eps {tuple(eps.shape)}; give one ε for each x_0")
    xt = forward(denoiser.schedule, x0, eps, t)
    alpha_dot, sigma_dot = (
        v.to(xt).reshape(levels(denoiser.schedule, t, xt)[0].shape) for v in slopes(denoiser.schedule, at(t, xt))
    )
    return (alpha_dot * x0 + sigma_dot * eps - velocity(denoiser, xt, t)).square().mean()


def rectified_pairs(
    denoiser: Denoise, eps: Float[Tensor, "batch *d"], tolerance: float = 1e-7
) -> tuple[Float[Tensor, "batch *d"], Float[Tensor, "batch *d"]]:
    """(x_0, ε): what the flow makes of x_T = √(α_T² + σ_T²) ε, beside the ε it came from. No gradient is recorded.

    Raises: as `decode`.
    """
    alpha, sigma = levels(denoiser.schedule, denoiser.schedule.end, eps)
    return decode(denoiser, torch.hypot(alpha, sigma) * eps, tolerance), eps


def straightness(
    denoiser: Denoise, x_noise: Float[Tensor, "batch *d"], tolerance: float = 1e-5
) -> Float[Tensor, " batch"]:
    """∫₀¹ |dx/ds − (x_T − x_0)|² ds of the path that ends in each row of x_noise, s = t/T: S is its mean.

    It depends on the schedule's clock as well as on the paths. With x = r z and the angle φ of `likelihood` it is
    summed over φ, where the path is smooth: dx/dt = ṙ z + r φ̇ dz/dφ. No gradient is recorded.

    Raises: ValueError where x_noise or the tolerance is wrong, or α̇ or σ̇ is infinite on the way; FloatingPointError as
    `decode`.
    """
    schedule, path = denoiser.schedule, Path(denoiser, x_noise)
    chord = (x_noise.detach() - decode(denoiser, x_noise, tolerance)).flatten(1).to(path.dtype)

    def slope(state: Tensor, phi: float) -> Tensor:
        z = state[:, : path.n]
        moved = path.slope(z, phi)
        t, r, cosine, sine = path.at(phi)
        alpha_dot, sigma_dot = (schedule.end * v.item() for v in slopes(schedule, t))
        growth, turn = cosine * alpha_dot + sine * sigma_dot, (cosine * sigma_dot - sine * alpha_dot) / r
        if not (math.isfinite(growth) and turn > 0):
            raise ValueError(f"α̇ and σ̇ are {alpha_dot:g} and {sigma_dot:g} at t = {t:g}; take a smooth schedule")
        bent = (growth * z + r * turn * moved - chord).square().sum(1, keepdim=True)
        return torch.cat([moved, bent / turn], 1)

    z = path.scaled(x_noise, schedule.end)[1]
    first, last = path.angle(schedule.end), path.angle(0.0)
    state, _ = integrate(slope, torch.cat([z, z.new_zeros(len(z), 1)], 1), first, last, tolerance)
    return -state[:, path.n].to(x_noise)
