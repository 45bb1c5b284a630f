"""The probability-flow path of a denoiser: data to noise and back, and the density that it carries.

Whatever the schedule, x_t = r (cos φ x_0 + sin φ ε) with r² = α² + σ² and tan φ = σ/α. So z = x_t/r runs over a quarter
of a circle, from φ = 0 (data) to at most π/2 (pure noise), and its flow knows the schedule only by its two ends:

    dz/dφ = E[cos φ ε − sin φ x_0 | x_t] = (cos φ z − x̂_0)/sin φ
    d log p(z)/dφ = −∇·(dz/dφ) = −(n cos φ − r tr ∂x̂_0/∂x_t)/sin φ
    log p_0(x_0) = log p_T(x_T) + n log r_T + ∫ ∇·(dz/dφ) dφ

This is dx = (f x − ½ g² score) dt in another clock (Song et al. 2021, section 4.3). At φ = 0 the slope is 0/0: there it
is taken at φ = √(machine precision), where what the limit lacks and what rounding adds are both of that size.

Densities are in nats for each example, with respect to dx in the units of x. They are not probabilities: those of grey
levels are in `dequantise`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..device import best_dtype
from ..rng import uniform
from .denoiser import Denoise
from .ode import integrate
from .process import noise_end

__all__ = ["Likelihood", "decode", "encode", "follow", "log_likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """log p of each row in nats, its standard error (0 for the exact trace), the row's x_T, and the denoiser's calls.

    The standard error is that of Hutchinson's probes. The steps' error is not in it: lower the tolerance to see that.
    """

    log_prob: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    x_noise: Float[Tensor, "batch *d"]
    calls: int


def log_likelihood(
    denoiser: Denoise,
    x0: Float[Tensor, "batch *d"],
    tolerance: float = 1e-7,
    probes: int | None = None,
    rng: torch.Generator | None = None,
    end: Callable[[Tensor], Tensor] | None = None,
    start: float = 0.0,
) -> Likelihood:
    """log p(x_0) of what `decode` makes of noise from N(0, (α_T² + σ_T²) I), or from a law with log density `end`.

    The trace of ∂x̂_0/∂x_t is exact, from n vector–Jacobian products a call, or with `probes` the mean of Hutchinson's
    eᵀ(∂x̂_0/∂x_t)e over as many draws e ∈ {−1, 1}ⁿ, held along the path. Each draw alone is unbiased for log p. With
    `start` > 0 the rows are x_start, and log p is their density: for a network asked for x_0, whose error there is
    divided by σ, and for data without a density. The denoiser treats each row alone. No gradient is recorded.

    Raises: ValueError where x_0, tolerance, start or end is wrong, probes is 1 or less, or rng is missing for them;
    FloatingPointError where an answer is not finite, or the tolerance cannot be met.
    Source: Song et al. (2021), section 4.3; the probes are those of Grathwohl et al. (2019).
    """
    flow = Path(denoiser, x0)
    signs = None
    if probes is not None:
        if probes < 2 or rng is None:
            raise ValueError(f"probes is {probes} and rng {rng}; give two or more, for an error, and rng=seeded(0)")
        signs = 1 - 2 * (uniform((probes, *x0.shape), rng, x0) < 0.5).to(x0)
    first, last = flow.angle(start), flow.angle(denoiser.schedule.end)
    (below, z), (above, _) = flow.scaled(x0, start), flow.scaled(x0, denoiser.schedule.end)
    state = torch.cat([z, z.new_zeros(len(z), probes or 1)], 1)
    state, calls = integrate(lambda y, phi: flow.with_divergence(y, phi, signs), state, first, last, tolerance)
    x_noise = (above * state[:, : flow.n]).reshape(x0.shape)
    log_end = noise_end(denoiser.schedule, tuple(x0.shape), x_noise).log_prob if end is None else end
    prior = log_end(x_noise)
    if prior.shape != x0.shape[:1]:
        raise ValueError(f"end gives shape {tuple(prior.shape)} for {len(x0)} rows; sum log p over all but the first")
    each = prior.to(state)[:, None] + flow.n * math.log(above / below) + state[:, flow.n :]
    spread = each.std(1) / each.shape[1] ** 0.5 if probes else torch.zeros_like(each[:, 0])
    return Likelihood(each.mean(1).to(x0), spread.to(x0), x_noise.to(x0), calls)


def follow(
    denoiser: Denoise, xt: Float[Tensor, "batch *d"], t: float, r: float, tolerance: float = 1e-7
) -> Float[Tensor, "batch *d"]:
    """x_r on the probability-flow path through x_t, to noise (r > t) or to data (r < t). No gradient is recorded.

    Raises: ValueError where x_t, tolerance or a time is wrong; FloatingPointError as `log_likelihood`.
    """
    flow = Path(denoiser, xt)
    first, last = flow.angle(t), flow.angle(r)
    z, _ = integrate(lambda z, phi: flow.slope(z, phi), flow.scaled(xt, t)[1], first, last, tolerance)
    return (flow.scaled(xt, r)[0] * z).reshape(xt.shape).to(xt)


def encode(denoiser: Denoise, x0: Float[Tensor, "batch *d"], tolerance: float = 1e-7) -> Float[Tensor, "batch *d"]:
    """x_T, the noise that x_0 is made of: the inverse of `decode` but for the steps' error."""
    return follow(denoiser, x0, 0.0, denoiser.schedule.end, tolerance)


def decode(denoiser: Denoise, x_noise: Float[Tensor, "batch *d"], tolerance: float = 1e-7) -> Float[Tensor, "batch *d"]:
    """x_0 from x_T, as a sampler without noise whose steps are as fine as the tolerance asks."""
    return follow(denoiser, x_noise, denoiser.schedule.end, 0.0, tolerance)


class Path:
    """dz/dφ for rows of one shape: z is float64 where the device has it, and the denoiser sees the dtype of x."""

    def __init__(self, denoiser: Denoise, x: Tensor):
        if x.ndim < 2 or 0 in x.shape or not x.is_floating_point():
            raise ValueError(f"x has shape {tuple(x.shape)} and is {x.dtype}; give floats, one row an example")
        checks.finite("x", x)
        self.denoiser, self.like, self.n = denoiser, x, x[0].numel()
        self.dtype = best_dtype(x.device)
        self.nearest = torch.finfo(x.dtype).eps ** 0.5

    def angle(self, t: float) -> float:
        """φ = arctan σ/α."""
        alpha, sigma = self.denoiser.schedule(float(t))
        return math.atan2(sigma.item(), alpha.item())

    def scaled(self, x: Tensor, t: float) -> tuple[float, Tensor]:
        """r, and z = x/r in one row an example."""
        r = math.hypot(*(v.item() for v in self.denoiser.schedule(float(t))))
        return r, x.detach().to(self.dtype).flatten(1) / r

    @torch.no_grad()
    def slope(self, z: Tensor, phi: float) -> Tensor:
        """(cos φ z − x̂_0)/sin φ."""
        t, r, cosine, sine = self.at(phi)
        return (cosine * z - self._answer(self._x(z, r), t)) / sine

    def with_divergence(self, state: Tensor, phi: float, signs: Tensor | None) -> Tensor:
        """The same, with the columns (n cos φ − r tr ∂x̂_0/∂x)/sin φ behind it, one for each probe."""
        t, r, cosine, sine = self.at(phi)
        z = state[:, : self.n]
        x = self._x(z, r).requires_grad_()
        with torch.enable_grad():
            answer = self._answer(x, t)
        trace = z.new_zeros(())
        if answer.requires_grad:
            rows = signs if signs is not None else self._ones()
            (back,) = torch.autograd.grad(answer, x, rows.flatten(2).to(answer), is_grads_batched=True)
            trace = (back.flatten(2) * rows.flatten(2)).sum(2).to(z)
            trace = trace.sum(0)[:, None] if signs is None else trace.mT
        divergence = (cosine * self.n - r * trace) / sine
        slope = (cosine * z - answer.detach()) / sine
        return torch.cat([slope, divergence.expand(len(z), state.shape[1] - self.n)], 1)

    def _ones(self) -> Tensor:
        """(n, batch, *d): the i-th has ones at entry i of every row."""
        eye = torch.eye(self.n, dtype=self.like.dtype, device=self.like.device)
        return eye[:, None].expand(self.n, len(self.like), self.n).reshape(self.n, *self.like.shape)

    def at(self, phi: float) -> tuple[float, float, float, float]:
        """t, r, cos φ, sin φ: of the time that the denoiser is asked at, to the last digit."""
        schedule, log_snr = self.denoiser.schedule, -2 * math.log(math.tan(max(phi, self.nearest)))
        t = min(schedule.time(log_snr).item(), schedule.end)
        alpha, sigma = (v.item() for v in schedule(t))
        r = math.hypot(alpha, sigma)
        return t, r, alpha / r, sigma / r

    def _x(self, z: Tensor, r: float) -> Tensor:
        return (r * z).to(self.like.dtype).reshape(self.like.shape)

    def _answer(self, x: Tensor, t: float) -> Tensor:
        """x̂_0 in one row an example."""
        answer = self.denoiser(x, t)
        if answer.shape != x.shape:
            raise ValueError(
                f"the denoiser gives shape {tuple(answer.shape)} for x of {tuple(x.shape)}; make them equal"
            )
        if not torch.isfinite(answer.detach()).all():
            raise FloatingPointError(
                f"the denoiser's answer at t = {t:g} is not finite; look for log 0, 0/0 or overflow there"
            )
        return answer.flatten(1).to(self.dtype)
