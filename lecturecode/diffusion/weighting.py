"""How much each noise level counts in the loss, and where the levels are drawn.

A loss of the form E_t[w(t) |x_0 − x̂_0|²] depends on the pair (density of t, w) only by their product. Weights here
multiply |x_0 − x̂_0|²; SNR = α²/σ².

    bound      −½ dSNR/dt  (times the density's inverse: the continuous-time bound itself)
    simple     SNR         (the squared error of ε, Ho's "simple" loss)
    min_snr    min(SNR, γ)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.special import ndtri

from .. import checks
from ..rng import uniform
from .prediction import Prediction
from .schedule import Schedule

__all__ = ["LogNormalTimes", "UniformTimes", "min_snr", "of_prediction", "simple"]

Weighting = Callable[[Tensor, Tensor], Tensor]


def simple(alpha: Tensor, sigma: Tensor) -> Tensor:
    """SNR: |ε − ε̂|² = SNR |x_0 − x̂_0|². Source: Ho, Jain & Abbeel (2020), eq. 14."""
    return (alpha / sigma).square()


def min_snr(gamma: float = 5.0) -> Weighting:
    """min(SNR, γ). Raises: ValueError where γ ≤ 0. Source: Hang et al. (2023), section 3.4."""
    checks.positive("gamma", gamma)
    return lambda alpha, sigma: (alpha / sigma).square().clamp(max=gamma)


def of_prediction(prediction: Prediction) -> Weighting:
    """The weight that makes the loss the plain squared error of a prediction's own target."""
    return lambda alpha, sigma: prediction.error(alpha, sigma).square()


@dataclass(frozen=True)
class UniformTimes:
    """Times spread evenly over (start, end], one in each of `count` equal parts: less noise in the loss's gradient.

    Each time alone is uniform. `start` keeps away from t = 0, where the SNR is infinite; it is a share of the end.
    Whole steps only where steps=True (a loss on the T levels of a table).

    Raises: ValueError where start is not in [0, 1), or steps are asked of a schedule that has none.
    Source of the even spread: Kingma et al. (2021), appendix I.1.
    """

    start: float = 1e-3
    steps: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise ValueError(f"start is {self.start:g}; it is a share of the schedule's end, from 0 to below 1")

    def __call__(self, schedule: Schedule, count: int, rng: torch.Generator, like: Tensor) -> Float[Tensor, " count"]:
        if self.steps and not hasattr(schedule, "steps"):
            raise ValueError(
                f"{type(schedule).__name__} has no steps, but all times to {schedule.end:g}; leave steps out"
            )
        shift = uniform((1,), rng, like)
        u = (shift + torch.arange(count, device=like.device, dtype=like.dtype) / count) % 1
        if self.steps:
            return (u * schedule.end).floor().clamp(max=schedule.end - 1) + 1
        return schedule.end * (1 - (1 - self.start) * u)


@dataclass(frozen=True)
class LogNormalTimes:
    """Times at which log(σ_t/α_t) is N(mean, std²), with one draw in each of `count` parts of equal probability.

    Levels beyond the schedule's own end are moved to it. Source: Karras et al. (2022), table 1 (−1.2 and 1.2).

    Raises: ValueError where std ≤ 0.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        checks.positive("std", self.std)

    def __call__(self, schedule: Schedule, count: int, rng: torch.Generator, like: Tensor) -> Float[Tensor, " count"]:
        shift = uniform((1,), rng, like)
        u = (shift + torch.arange(count, device=like.device, dtype=like.dtype)) / count
        tiny = torch.finfo(like.dtype).eps
        log_noise = self.mean + self.std * ndtri(u.clamp(tiny, 1 - tiny))
        return schedule.time(-2 * log_noise).clamp(max=schedule.end)
