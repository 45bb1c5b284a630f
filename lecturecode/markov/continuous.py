"""Kernels on real vectors that follow the gradient of log p.

    Langevin   x′ = x + τ ∇log p(x) + √(2τ) ξ,  ξ ~ N(0, 1)             p is invariant as τ → 0; N(0,1) gets 1/(1 − τ/2)
    MALA       that as a proposal, taken with min(1, p(x′) q(x|x′) / (p(x) q(x′|x))),  q(x′|x) = N(x + τ∇log p(x), 2τ)
    HMC        π ~ N(0, M);  leapfrog steps of H = −log p(x) + ½ πᵀM⁻¹π;  taken with min(1, e^{H − H′})

A leapfrog step, π += ½Δt ∇log p(x), x += Δt M⁻¹π, π += ½Δt ∇log p(x), keeps the volume and is undone by turning π
round; that is what makes the last line a symmetric proposal. With M = 1 and one leap HMC is MALA with τ = Δt²/2.

log_prob(x) ↦ (…), up to a constant, with the coordinates along the last axis; gradient(x) ↦ (…, n) is ∇log p, taken
from log_prob by autograd where it is not given. MALA and HMC leave p invariant for every step size. (Roberts & Tweedie
1996; Duane, Kennedy, Pendleton & Roweth 1987; Neal 2011.)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..rng import normal, uniform
from .units import a_number

__all__ = ["Hmc", "Langevin", "Mala", "hmc", "langevin", "mala"]

Field = Callable[[Tensor], Tensor]


def langevin(gradient: Field, step: float) -> "Langevin":
    """x + τ∇log p(x) + √(2τ) ξ with τ = step, never refused: what it leaves invariant is not p but close to it.

    gradient(x) ↦ ∇log p(x), of the shape of x; a score network will do. On N(0, 1) its variance is 1/(1 − τ/2) for
    0 < τ < 2, and it runs away beyond.

    Raises: ValueError where the step is not above zero, or (on the CPU) the gradient is NaN.
    """
    return Langevin(gradient, _above_zero("step", step))


def mala(log_prob: Field, step: float, gradient: Field | None = None) -> "Mala":
    """The Langevin step with τ = step, taken or refused: it leaves p invariant and is reversible.

    A proposal where log p is −∞ or NaN, or its gradient not finite, is refused. Source: Roberts & Tweedie (1996).

    Raises: ValueError where the step is not above zero, or (on the CPU) the gradient or log p is NaN where a chain is.
    """
    return Mala(_Target(log_prob, gradient), _above_zero("step", step))


def hmc(
    log_prob: Field,
    step: float,
    leaps: int,
    mass: float | Float[Tensor, " n"] = 1.0,
    jitter: float = 0.0,
    gradient: Field | None = None,
) -> "Hmc":
    """`leaps` leapfrog steps of size Δt = step from a fresh momentum, taken or refused; all chains move together.

    mass is M, a number or a diagonal: best near the inverse variances of p. With jitter each chain draws its own Δt
    uniformly from step·(1 ± jitter), so that no orbit closes after `leaps` steps. A path that ends where log p is
    −∞ or NaN is refused. Source: Neal (2011), section 3.

    Raises: ValueError where the step or a mass is not above zero, leaps < 1, the jitter is not within [0, 1), or (on
    the CPU) the gradient or log p is NaN where a chain is.
    """
    if leaps < 1:
        raise ValueError(f"leaps is {leaps}; take at least one leapfrog step")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter is {jitter:g}; give a share of the step within [0, 1)")
    checks.positive("mass", mass)
    return Hmc(_Target(log_prob, gradient), _above_zero("step", step), leaps, mass, jitter)


@dataclass(frozen=True)
class _Target:
    """log p and its gradient, by autograd where no gradient is given."""

    log_prob: Field
    gradient: Field | None

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.gradient is not None:
            return self.log_prob(x).detach(), self.gradient(x).detach()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.log_prob(x)
            (slope,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), slope

    def slope(self, x: Tensor) -> Tensor:
        return self.both(x)[1] if self.gradient is None else self.gradient(x).detach()

    def here(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `both`, for where a chain is."""
        value, slope = self.both(x)
        if value.shape != x.shape[:-1]:
            raise ValueError(
                f"log_prob(x) has shape {tuple(value.shape)}, not {tuple(x.shape[:-1])}; "
                "return one number for each chain"
            )
        a_number("log p", value)
        a_number("the gradient of log p", slope)
        return value, slope


@dataclass(frozen=True)
class Langevin:
    """The step that is never refused."""

    gradient: Field
    tau: float

    def __call__(self, x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        slope = self.gradient(x).detach()
        a_number("the gradient of log p", slope)
        return x + self.tau * slope + math.sqrt(2 * self.tau) * normal(tuple(x.shape), rng, x)


@dataclass(frozen=True)
class Mala:
    """The Langevin step, taken or refused."""

    target: _Target
    tau: float

    def __call__(self, x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        value, slope = self.target.here(x)
        other = x + self.tau * slope + math.sqrt(2 * self.tau) * normal(tuple(x.shape), rng, x)
        chance = self._chance(x, value, slope, other)
        return torch.where((uniform(tuple(chance.shape), rng, chance) < chance)[..., None], other, x)

    def acceptance(self, x: Tensor, other: Tensor) -> Tensor:
        """The probability with which a proposal is taken."""
        return self._chance(x, *self.target.here(x), other)

    def _chance(self, x: Tensor, value: Tensor, slope: Tensor, other: Tensor) -> Tensor:
        value_there, slope_there = self.target.both(other)
        there = (other - x - self.tau * slope).square().sum(-1)
        back = (x - other - self.tau * slope_there).square().sum(-1)
        return _chance(value_there - value + (there - back) / (4 * self.tau))


@dataclass(frozen=True)
class Hmc:
    """A leapfrog path from a fresh momentum, taken or refused."""

    target: _Target
    step: float
    leaps: int
    mass: float | Tensor
    jitter: float

    def __call__(self, x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        mass = torch.as_tensor(self.mass, dtype=x.dtype, device=x.device)
        momentum = normal(tuple(x.shape), rng, x) * mass.sqrt()
        size = x.new_full((1,), self.step)
        if self.jitter:
            size = self.step * (1 + self.jitter * (2 * uniform((*x.shape[:-1], 1), rng, x) - 1))
        other, chance = self.path(x, momentum, size)[::2]
        return torch.where((uniform(tuple(chance.shape), rng, chance) < chance)[..., None], other, x)

    def path(self, x: Tensor, momentum: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the leapfrog steps of this size lead, x and π, and the probability with which that is taken."""
        inverse = 1 / torch.as_tensor(self.mass, dtype=x.dtype, device=x.device)
        value, slope = self.target.here(x)
        start = value - (momentum.square() * inverse).sum(-1) / 2
        glide = size * inverse
        x, momentum = x.clone(), momentum.addcmul(size, slope, value=0.5)
        for _ in range(self.leaps - 1):
            momentum.addcmul_(size, self.target.slope(x.addcmul_(glide, momentum)))
        value, slope = self.target.both(x.addcmul_(glide, momentum))
        momentum.addcmul_(size, slope, value=0.5)
        return x, momentum, _chance(value - (momentum.square() * inverse).sum(-1) / 2 - start)


def _chance(log_ratio: Tensor) -> Tensor:
    """min(1, e^{log_ratio}), and 0 where a path left the numbers."""
    return log_ratio.exp().clamp(max=1).nan_to_num(nan=0.0)


def _above_zero(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value:g}; give a finite number above zero")
    return float(value)
