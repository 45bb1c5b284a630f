"""Families of grids for a sampler of N steps, and the search for the best of them.

    q:  ℓ_i = ℓ_0 + (ℓ_{N−1} − ℓ_0) u_i^q        rho:  σ̃_i^{1/ρ} straight in u_i        then t_N = 0,    u_i = i/(N − 1)

q = 1 is a straight line in the log SNR, q < 1 jumps first, ρ is Karras's. ℓ_{N−1} is −log of `low` standard deviations
of the data. An open grid has N + 1 such times, and ends there without a step to t = 0. "uniform" is straight in t.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .grids import karras_grid, uniform_grid
from .pilot import FLOOR, Pilot

__all__ = ["Family", "begun", "coarse", "refined"]

LOWS = (0.0002, 0.0006, 0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3)
SHAPES = (("rho", 3.0), ("rho", 7.0), ("rho", 20.0), ("q", 1.0), ("q", 0.7), ("q", 0.5), ("q", 0.35))
OPEN = (("rho", 7.0), ("rho", 20.0), ("q", 1.0))


class Family(NamedTuple):
    """A member of a family: "rho", "q" or "uniform", its ρ or q, its least level, and whether it is open."""

    kind: str
    number: float = 0.0
    low: float = 0.0
    is_open: bool = False

    def __str__(self) -> str:
        if self.kind == "uniform":
            return self.kind
        return f"{self.kind} {self.number:.3g}{' open' if self.is_open else ''}, {self.low:.2g}"

    def times(self, pilot: Pilot, steps: int) -> Tensor:
        """The falling grid of so many steps."""
        schedule = pilot.schedule
        if self.kind == "uniform" or steps == 1:
            return uniform_grid(schedule, steps)
        count = steps + self.is_open
        level = self.low * pilot.variances.mean().sqrt().item()
        first = max(schedule.log_snr(schedule.end).item(), FLOOR)
        if self.kind == "rho":
            high = None if first > FLOOR else math.exp(-FLOOR / 2)
            grid = karras_grid(schedule, count, level, high, rho=self.number)
        else:
            u = torch.linspace(0, 1, count, dtype=torch.float64) ** self.number
            inner = schedule.time(first + (-2 * math.log(level) - first) * u).clamp(max=schedule.end)
            grid = torch.cat([inner, inner.new_zeros(1)])
        grid[0] = schedule.end
        return grid[:-1] if self.is_open else grid


def begun(error: Callable[[Family], float]) -> Family:
    """The best level of a straight line in the log SNR."""
    return min((Family("q", 1.0, low) for low in LOWS), key=error)


def coarse(error: Callable[[Family], float], start: Family) -> Family:
    """The best of some thirty members: shape and level in turn; then the open ones."""
    tried: dict[Family, float] = {}

    def at(family: Family) -> float:
        if family not in tried:
            tried[family] = error(family)
        return tried[family]

    best = start
    for _ in range(2):
        best = min((Family(*shape, best.low) for shape in SHAPES), key=at)
        near = LOWS.index(best.low)
        best = min((best._replace(low=low) for low in LOWS[max(near - 2, 0) : near + 3]), key=at)
    for shape in OPEN:
        for low in LOWS[:5]:
            at(Family(*shape, low, True))
    at(Family("uniform"))
    return min(tried, key=lambda family: tried[family])


def refined(error: Callable[[Family], float], start: Family, halvings: int = 4) -> Family:
    """Compass search in log low and log number: to the best of four neighbours, or half the step where none is."""
    best, least = start, error(start)
    step = 0.0 if start.kind == "uniform" else 0.7
    while halvings and step:
        moves = [(step, 0.0), (-step, 0.0), (0.0, step / 2), (0.0, -step / 2)]
        around = [best._replace(low=best.low * math.exp(a), number=best.number * math.exp(b)) for a, b in moves]
        values = [error(family) for family in around]
        if min(values) < least:
            least = min(values)
            best = around[values.index(least)]
        else:
            step, halvings = step / 2, halvings - 1
    return best
