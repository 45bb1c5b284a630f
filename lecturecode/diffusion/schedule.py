"""Schedules in continuous time: how much signal and how much noise there is at time t.

    x_t = α_t x_0 + σ_t ε,    λ_t = log(α_t²/σ_t²),    dx = f_t x dt + g_t dw,

with f_t = d log α_t/dt and g_t² = dσ_t²/dt − 2 f_t σ_t² (Song et al. 2021, section 3; Kingma, Salimans, Poole & Ho
2021). Time grows with noise from 0, where α = 1 and σ = 0, to `end`. A schedule is anything with the five names of
`Schedule`; `betas` has those that are given by a table of steps.

Times are numbers or tensors. A number is taken as float64, a tensor keeps its dtype and its device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .. import checks
from ..device import best_dtype

__all__ = ["EDM", "Schedule", "VarianceExploding", "VariancePreserving", "terminal_snr"]

Time = float | int | Tensor


@runtime_checkable
class Schedule(Protocol):
    """t ↦ (α_t, σ_t), with the log SNR, its inverse, and the rates of the process that has these marginals."""

    @property
    def end(self) -> float:
        """The largest time."""
        ...

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        """(α_t, σ_t). Raises ValueError where t lies outside [0, end]."""
        ...

    def log_snr(self, t: Time) -> Tensor:
        """λ_t = log(α_t²/σ_t²), falling in t; +∞ at t = 0."""
        ...

    def time(self, log_snr: Time) -> Tensor:
        """The t with λ_t = log_snr: the inverse of `log_snr`."""
        ...

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """(f_t, g_t²) of dx = f x dt + g dw, in one over time."""
        ...


def terminal_snr(schedule: Schedule) -> float:
    """α²/σ² at the last time. The noise end is a pure Gaussian only where this is zero.

    What is left of a data point x_0 there costs ½ u|x_0|² nats and more in the bound, u = α²/(α² + σ²).
    """
    return math.exp(schedule.log_snr(schedule.end).item())


@dataclass(frozen=True)
class VariancePreserving:
    """α_t = exp(−½∫₀ᵗβ), σ_t² = 1 − α_t², with the rate β(t) = rate_start + t (rate_end − rate_start) and t in [0, 1].

    Raises: ValueError where a rate is not above zero. Source: Song et al. (2021), eq. 11 and appendix C (β_min, β_max).
    """

    rate_start: float = 0.1
    rate_end: float = 20.0
    end: float = 1.0

    def __post_init__(self) -> None:
        checks.positive("rate_start", self.rate_start)
        checks.positive("rate_end", self.rate_end)
        checks.positive("end", self.end)

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        return from_loss(self._loss(inside(self, t)))

    def log_snr(self, t: Time) -> Tensor:
        """λ_t = −B − log(1 − e^{−B}) with B = ∫₀ᵗβ."""
        return log_snr_of_loss(self._loss(inside(self, t)))

    def time(self, log_snr: Time) -> Tensor:
        """t from B = log(1 + e^{−λ}) by the quadratic formula, in the form without cancellation."""
        loss = loss_of_log_snr(as_tensor(log_snr))
        slope = (self.rate_end - self.rate_start) / self.end
        return 2 * loss / (self.rate_start + (self.rate_start**2 + 2 * slope * loss).clamp(min=0).sqrt())

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """(−½β(t), β(t))."""
        t = inside(self, t)
        rate = self.rate_start + t * ((self.rate_end - self.rate_start) / self.end)
        return -rate / 2, rate

    def _loss(self, t: Tensor) -> Tensor:
        return t * self.rate_start + t.square() * ((self.rate_end - self.rate_start) / (2 * self.end))


@dataclass(frozen=True)
class VarianceExploding:
    """α_t = 1, σ_t² = σ_min² [(σ_max/σ_min)^{2t} − 1] with t in [0, 1]; σ_1 is σ_max less its share σ_min²/2σ_max².

    Raises: ValueError where σ_min ≤ 0 or σ_max ≤ σ_min. Source: Song et al. (2021), eqs. 29 and 30.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        checks.positive("sigma_min", self.sigma_min)
        checks.positive("sigma_max", self.sigma_max)
        if self.sigma_max <= self.sigma_min:
            raise ValueError(
                f"sigma_max is {self.sigma_max:g} and sigma_min {self.sigma_min:g}; noise grows: swap them"
            )

    @property
    def end(self) -> float:
        """1."""
        return 1.0

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        sigma = (-self.log_snr(t) / 2).exp()
        return torch.ones_like(sigma), sigma

    def log_snr(self, t: Time) -> Tensor:
        """λ_t = −log σ_t²."""
        grown = torch.expm1(2 * inside(self, t) * self._log_ratio)
        return -grown.log() - 2 * math.log(self.sigma_min)

    def time(self, log_snr: Time) -> Tensor:
        """t = log(1 + e^{−λ}/σ_min²) / 2 log(σ_max/σ_min)."""
        shifted = as_tensor(log_snr) + 2 * math.log(self.sigma_min)
        return loss_of_log_snr(shifted) / (2 * self._log_ratio)

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """(0, dσ_t²/dt)."""
        t = inside(self, t)
        return torch.zeros_like(t), 2 * self._log_ratio * self.sigma_min**2 * (2 * t * self._log_ratio).exp()

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM:
    """α_t = 1, σ_t = t: time is the noise's standard deviation, in the units of x, from 0 to σ_max.

    Raises: ValueError where σ_max ≤ 0. Source: Karras, Aittala, Aila & Laine (2022), section 3 and table 1.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        checks.positive("sigma_max", self.sigma_max)

    @property
    def end(self) -> float:
        """σ_max."""
        return float(self.sigma_max)

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        t = inside(self, t)
        return torch.ones_like(t), t

    def log_snr(self, t: Time) -> Tensor:
        """λ_t = −2 log t."""
        return -2 * inside(self, t).log()

    def time(self, log_snr: Time) -> Tensor:
        """t = e^{−λ/2}."""
        return (-as_tensor(log_snr) / 2).exp()

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """(0, 2t)."""
        t = inside(self, t)
        return torch.zeros_like(t), 2 * t


def as_tensor(x: Time | Sequence[float | int]) -> Tensor:
    if not isinstance(x, Tensor):
        return torch.as_tensor(x, dtype=torch.float64)
    return x if x.is_floating_point() else x.to(best_dtype(x.device))


def inside(schedule: Schedule, t: Time) -> Tensor:
    """t as a tensor. Raises ValueError where it lies outside [0, end]; tensors off the CPU are not read."""
    t = as_tensor(t)
    if checks.is_free(t) and not ((t >= 0) & (t <= schedule.end * (1 + torch.finfo(t.dtype).eps))).all():
        wrong = t[~((t >= 0) & (t <= schedule.end * (1 + torch.finfo(t.dtype).eps)))].flatten()[0]
        raise ValueError(
            f"the time {wrong.item():g} is outside the schedule, which goes from 0 (data) to {schedule.end:g} (noise); "
            "choose times in between"
        )
    return t


# B = −2 log α of a schedule with α² + σ² = 1: the logarithm of what the signal has lost, exact at both ends.


def from_loss(loss: Tensor) -> tuple[Tensor, Tensor]:
    return (-loss / 2).exp(), (-torch.expm1(-loss)).sqrt()


def log_snr_of_loss(loss: Tensor) -> Tensor:
    return -loss - (-torch.expm1(-loss)).log()


def loss_of_log_snr(log_snr: Tensor) -> Tensor:
    return -logsigmoid(log_snr)
