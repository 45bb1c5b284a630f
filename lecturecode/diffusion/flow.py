"""Flow matching: the velocity of the paths, for any schedule, and the schedule whose paths are straight.

    x_t = α_t x_0 + σ_t ε,    ẋ_t = α̇_t x_0 + σ̇_t ε,    u_t(x) = E[ẋ_t | x_t = x] = α̇_t x̂_0 + σ̇_t (x − α_t x̂_0)/σ_t

Time 0 is the data and `end` is the noise, as everywhere here; most papers on flow matching count the other way. u_t
carries p_t along, ∂p_t/∂t + ∇·(p_t u_t) = 0, and it is the velocity of the probability flow, f x − ½ g² score: a
denoiser, a score and a velocity are one thing, so samplers, guidance and likelihoods are the same for all.

A network is asked for the velocity by `Denoiser(net, Straight(), FLOW)`, and on another path by `flow_velocity` in the
place of FLOW. Its loss is the conditional one, E|ẋ_t − û_t(x_t)|², with the gradient of the marginal one,
E|u_t(x_t) − û_t(x_t)|², whose target nobody has (Lipman et al. 2023, theorem 2).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from .denoiser import Denoise
from .prediction import Prediction
from .process import at, levels
from .schedule import Schedule, Time, as_tensor, inside

__all__ = ["FLOW", "Straight", "flow_velocity", "score", "slopes", "velocity"]


@dataclass(frozen=True)
class Straight:
    """α_t = 1 − t, σ_t = t, t in [0, 1]: x_t goes straight from x_0 to ε, with the velocity ε − x_0 all the way.

    Its last time has no signal left, so noise and score say nothing there: ask for FLOW, VELOCITY or CLEAN. For one
    x_0 it is the optimal-transport path to N(0, I); for more of them the flow of u_t bends. Euler's step is `ddim`'s.

    λ runs to −∞ at t = 1, and the last levels pass in no time: a network that is told λ has hardly been trained where
    samplers start. Tell it the time: `Denoiser(net, Straight(), FLOW, level=lambda schedule, t: 20 - 40 * t)`.

    Source: Lipman et al. (2023), section 4.1 with σ_min = 0; Liu, Gong & Liu (2023), section 2.1.
    """

    @property
    def end(self) -> float:
        """1."""
        return 1.0

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        t = inside(self, t)
        return (1 - t).clamp(min=0), t

    def log_snr(self, t: Time) -> Tensor:
        """λ_t = 2 log((1 − t)/t)."""
        t = inside(self, t)
        return 2 * (torch.log1p(-t.clamp(max=1)) - t.log())

    def time(self, log_snr: Time) -> Tensor:
        """t = 1/(1 + e^{λ/2})."""
        return torch.sigmoid(-as_tensor(log_snr) / 2)

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """(−1/(1 − t), 2t/(1 − t)): both infinite at t = 1, where `slopes` are not."""
        t = inside(self, t)
        left = (1 - t).clamp(min=0)
        return -1 / left, 2 * t / left


FLOW = Prediction(
    "flow",
    target=lambda x0, eps, alpha, sigma: eps - x0,
    clean=lambda y, xt, alpha, sigma: (xt - sigma * y) / (alpha + sigma),
    error=lambda alpha, sigma: (alpha + sigma) / sigma,
)


def slopes(schedule: Schedule, t: Time) -> tuple[Tensor, Tensor]:
    """(α̇_t, σ̇_t) = (f α, f σ + g²/2σ). Where that is 0·∞ or 0/0, the schedule itself is differentiated.

    σ̇ is infinite at t = 0 where σ² starts with a slope, as in a variance-preserving schedule.

    Raises: ValueError where t is outside the schedule.
    """
    t = as_tensor(t).detach()
    (alpha, sigma), (f, g2) = schedule(t), schedule.rates(t)
    found = f * alpha, f * sigma + g2 / (2 * sigma)
    if checks.is_free(t) and torch.isfinite(found[0] + found[1]).all():
        return found
    with torch.enable_grad():
        t = t.requires_grad_()
        direct = [
            torch.autograd.grad(v.sum(), t, retain_graph=True)[0] if v.requires_grad else torch.zeros_like(v)
            for v in schedule(t)
        ]
    better = ~torch.isfinite(found[0] + found[1]) & torch.isfinite(direct[0] + direct[1])
    return torch.where(better, direct[0], found[0]), torch.where(better, direct[1], found[1])


def velocity(denoiser: Denoise, xt: Float[Tensor, "batch *d"], t: Time) -> Float[Tensor, "batch *d"]:
    """u_t(x_t) = α̇ x̂_0 + σ̇ ε̂ with ε̂ = (x_t − α x̂_0)/σ, in x per unit of the schedule's time.

    Raises: ValueError where t = 0, where x̂_0 says nothing about ε, or α̇ or σ̇ is not finite.
    """
    alpha, sigma = levels(denoiser.schedule, t, xt)
    rates = [v.to(xt).reshape(sigma.shape) for v in slopes(denoiser.schedule, at(t, xt))]
    if checks.is_free(sigma) and not ((sigma > 0).all() and all(torch.isfinite(v).all() for v in rates)):
        raise ValueError("the velocity is 0/0 at t = 0, and no number where α̇ or σ̇ is infinite; choose t > 0")
    x0_hat = denoiser(xt, t)
    return rates[0] * x0_hat + rates[1] * (xt - alpha * x0_hat) / sigma


def score(denoiser: Denoise, xt: Float[Tensor, "batch *d"], t: Time) -> Float[Tensor, "batch *d"]:
    """∇ log p_t(x_t) = (α x̂_0 − x_t)/σ²: Tweedie's formula, solved for the score.

    Raises: ValueError where t = 0.
    """
    alpha, sigma = levels(denoiser.schedule, t, xt)
    if checks.is_free(sigma) and not (sigma > 0).all():
        raise ValueError("the score is 0/0 at t = 0, where x̂_0 = x_t whatever the data are; choose t > 0")
    return (alpha * denoiser(xt, t) - xt) / sigma.square()


def flow_velocity(schedule: Schedule) -> Prediction:
    """A network asked for ẋ_t = α̇ x_0 + σ̇ ε along this schedule: conditional flow matching on its paths.

        x̂_0 = (σ y − σ̇ x_t)/(σ α̇ − σ̇ α)

    On `Straight()` it is FLOW. The noise level stands for the time, so use it with this schedule and no other.
    """

    def rates(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        t = schedule.time(2 * (alpha.log() - sigma.log())).clamp(max=schedule.end)
        return slopes(schedule, t)

    def target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha_dot, sigma_dot = rates(alpha, sigma)
        return alpha_dot * x0 + sigma_dot * eps

    def clean(y: Tensor, xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha_dot, sigma_dot = rates(alpha, sigma)
        return (sigma * y - sigma_dot * xt) / (sigma * alpha_dot - sigma_dot * alpha)

    def error(alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha_dot, sigma_dot = rates(alpha, sigma)
        return sigma_dot * alpha / sigma - alpha_dot

    at_the_end = all(torch.isfinite(v) for v in slopes(schedule, schedule.end))
    return Prediction("flow velocity", target, clean, error, answers_pure_noise=at_the_end)
