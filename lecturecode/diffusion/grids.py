"""Grids: the times t_0 > t_1 > … > t_N at which a sampler stops, from the noise end to the data.

    uniform    t_i on a straight line
    karras     σ̃_i^{1/ρ} on a straight line, σ̃ = σ_t/α_t, then t_N = 0
    log_snr    λ_i on a straight line, then t_N = 0

All are float64 on the CPU: they are read once, when a sampler's coefficients are made.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from .. import checks
from .schedule import Schedule, inside

__all__ = ["karras_grid", "log_snr_grid", "uniform_grid"]


def uniform_grid(schedule: Schedule, steps: int) -> Float64[Tensor, " times"]:
    """steps + 1 times from `end` to 0, equally spaced. For a table of T steps, steps = T takes each of them.

    Raises: ValueError where steps < 1.
    """
    _count(steps)
    return torch.linspace(schedule.end, 0, steps + 1, dtype=torch.float64)


def karras_grid(
    schedule: Schedule, steps: int, low: float = 0.002, high: float | None = None, rho: float = 7.0
) -> Float64[Tensor, " times"]:
    """σ̃_i = (high^{1/ρ} + i/(N−1) (low^{1/ρ} − high^{1/ρ}))^ρ for i = 0 … N−1 with N = steps, then 0.

    `low` and `high` are values of σ̃ = σ_t/α_t in the units of x_0; high is that of the schedule's end where none is
    given.

    Raises: ValueError where steps < 1, rho ≤ 0, or low and high are out of order or beyond the schedule.
    Source: Karras et al. (2022), eq. 5.
    """
    _count(steps)
    checks.positive("rho", rho)
    top = (-schedule.log_snr(schedule.end) / 2).exp().item()
    high = top if high is None else float(high)
    if not 0 < low < high <= top * (1 + 1e-12) or math.isinf(high):
        raise ValueError(
            f"low is {low:g} and high {high:g}; choose 0 < low < high, and high at most {top:g} and finite"
        )
    line = torch.linspace(high ** (1 / rho), low ** (1 / rho), steps, dtype=torch.float64)
    return _times(schedule, -2 * rho * line.log())


def log_snr_grid(
    schedule: Schedule, steps: int, low: float | None = None, high: float = 12.0
) -> Float64[Tensor, " times"]:
    """λ_i from `low`, by default the schedule's own end, up to `high` in equal steps, then t = 0: steps + 1 times.

    Raises: ValueError where steps < 1, or low ≥ high.
    """
    _count(steps)
    bottom = schedule.log_snr(schedule.end).item()
    low = bottom if low is None else float(low)
    if not max(bottom - 1e-12 * abs(bottom), -math.inf) <= low < high < math.inf or math.isinf(low):
        raise ValueError(
            f"low is {low:g} and high {high:g}; choose a finite low below high, which is finite too, and at least "
            f"{bottom:g}, the schedule's own end"
        )
    return _times(schedule, torch.linspace(low, high, steps, dtype=torch.float64))


def _times(schedule: Schedule, log_snr: Tensor) -> Tensor:
    times = schedule.time(log_snr).clamp(max=schedule.end)
    if (times[0] - schedule.end).abs() < 1e-12 * schedule.end:
        times[0] = schedule.end  # a grid from the schedule's own end starts there, not a rounding before it
    times = torch.cat([times, times.new_zeros(1)])
    if not (times.diff() < 0).all():
        k = int((~(times.diff() < 0)).nonzero()[0])
        raise ValueError(
            f"in float64 the levels λ = {log_snr[k]:g} and the next have one time, {times[k]:g}; take fewer steps, or "
            "end the grid at more noise"
        )
    return inside(schedule, times)


def _count(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; a sampler needs at least one")
