"""The best sampler for a number of calls: candidates made on one half of a pilot, the choice on the other.

Candidates are the multistep tables, each on the best of a family of grids and on the grid of least summed errors, and
for few calls the same with times, and then coefficients, fitted. The grids are straight in t, and

    ℓ_i = ℓ_0 + (ℓ_{N−1} − ℓ_0) u_i^q        or        σ̃_i^{1/ρ} straight,        then t_N = 0,    u_i = i/(N − 1)

q = 1 is a straight line in the log SNR, q < 1 jumps first, ρ is Karras's. ℓ_{N−1} is −log of 0.0002 … 0.3 of the data's
standard deviation. An open grid has N calls before it, and ends there without a step to t = 0. All this is
deterministic: the pilot's noise is an argument.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from .denoiser import Denoise
from .directions import DirectionTable
from .fitted import fitted
from .gaussian_flow import gaussian_exponential, noise_exponential
from .grids import karras_grid, log_snr_grid, uniform_grid
from .multistep import dpm_solver, exponential
from .pilot import FLOOR, Pilot
from .sampler import sample
from .shortest_path import dynamic_grid
from .stochastic import heun
from .tables import Table, ddim

__all__ = ["FewCalls", "few_calls"]

AnyTable = Table | DirectionTable
LOWS = (0.0002, 0.0006, 0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3)
SHAPES = ("rho 3", "rho 7", "rho 20", "q 1", "q 0.7", "q 0.5", "q 0.35")
ROWS = 32  # of the pilot, on which the families of grids are tried


@dataclass(frozen=True)
class FewCalls:
    """What `few_calls` chose: the table, its name, and what every candidate did on the half that chooses.

    `errors` maps a candidate to (median, root mean square) of the distances to the paths' ends, in the units of x_0.
    """

    table: AnyTable
    name: str
    errors: dict[str, tuple[float, float]]
    tables: dict[str, AnyTable]


def few_calls(
    denoiser: Denoise,
    x_noise: Float[Tensor, "batch *d"],
    calls: int,
    mean: Tensor | None = None,
    covariance: Tensor | None = None,
    fit: bool | None = None,
    high: float = 14.0,
) -> FewCalls:
    """The table of at most `calls` calls with the least median error on the pilot x_noise, from the end to t = 0.

    Even rows make the candidates and odd rows choose. mean and covariance are the data's; those of the pilot's ends
    where none are given. `fit` says whether coefficients are fitted, by default for calls ≤ 10. `high` is the log SNR
    from which the pilot's paths take one step to t = 0.

    Raises: ValueError where calls < 1, the pilot has fewer than 16 rows, or as `Pilot.run`.
    """
    if calls < 1 or len(x_noise) < 16:
        raise ValueError(f"calls is {calls} and x_noise has {len(x_noise)} rows; give one call or more, and 16 rows")
    whole = Pilot.run(denoiser, x_noise, mean, covariance, candidates=max(48, 2 * calls), high=high)
    makes, chooses = whole.rows(slice(0, None, 2)), whole.rows(slice(1, None, 2))
    tables = _analytic(makes, calls)
    if calls > 1 and (calls <= 10 if fit is None else fit):
        tables |= _fitted(makes, calls, tables)
    errors = {name: _error(chooses, table) for name, table in tables.items()}
    name = min(errors, key=lambda name: errors[name])
    return FewCalls(tables[name], name, errors, tables)


def _methods(pilot: Pilot, calls: int) -> dict[str, tuple[Callable, int, bool]]:
    """name: the rule, its steps for so many calls, and whether it is about the data's Gaussian."""
    covariance = (pilot.basis * pilot.variances) @ pilot.basis.mT
    about = partial(gaussian_exponential, mean=pilot.mean, covariance=covariance)
    out: dict[str, tuple[Callable, int, bool]] = {"ddim": (ddim, calls, False), "heun": (heun, (calls + 1) // 2, False)}
    if calls >= 2:
        out["2M"] = dpm_solver, calls, False
    if calls >= 3:
        out["3M"] = partial(dpm_solver, order=3, curvature=0.5), calls, False
    for order in (1, 2, 3, 4):
        if calls >= order:
            led = {"corrected": False}
            out[f"gaussian {order}, led up to"] = partial(about, order=order, **led), calls, True
            if order > 1:
                out[f"exponential {order}, led up to"] = partial(exponential, order=order, **led), calls, False
        if calls >= order > 1:
            again, noise = {"corrected": False, "retaken": True}, partial(noise_exponential, order=order)
            out[f"noise {order}, led up to"] = partial(noise, **led), calls, False
            out[f"noise {order}, retaken"] = partial(noise, **again), calls, False
            out[f"gaussian {order}, retaken"] = partial(about, order=order, **again), calls, True
        if calls > order > 2:
            out[f"gaussian {order}"] = partial(about, order=order), calls - (order == 4), True
            out[f"exponential {order}"] = partial(exponential, order=order), calls - (order == 4), False
    return out


def _analytic(pilot: Pilot, calls: int) -> dict[str, AnyTable]:
    """Each method on the best grid of the families, and on that of least summed errors."""
    schedule, few = pilot.schedule, pilot.rows(slice(0, ROWS))
    shortest: dict[bool, Tensor] = {}
    tables: dict[str, AnyTable] = {}
    for name, (rule, steps, gaussian) in _methods(pilot, calls).items():
        tried: dict[tuple[float, str], float] = {}

        def at(low: float, shape: str, rule=rule, steps=steps, tried=tried) -> float:
            if (low, shape) not in tried:
                try:
                    tried[low, shape] = _error(few, rule(schedule, family(pilot, steps, low, shape)))[0]
                except (ValueError, FloatingPointError):
                    tried[low, shape] = math.inf
            return tried[low, shape]

        low, shape = min(((low, "q 1") for low in LOWS), key=lambda g: at(*g))
        for _ in range(2):
            low, shape = min(((low, shape) for shape in SHAPES), key=lambda g: at(*g))
            near = LOWS.index(low)
            low, shape = min(((low, shape) for low in LOWS[max(near - 2, 0) : near + 3]), key=lambda g: at(*g))
        for open_end in ("rho 7 open", "rho 20 open", "q 1 open"):
            for level in LOWS[:5]:
                at(level, open_end)
        at(0.0, "uniform")
        low, shape = min(tried, key=lambda g: tried[g])
        if tried[low, shape] < math.inf:
            tables[f"{name} on {shape}, {low:g}"] = rule(schedule, family(pilot, steps, low, shape))
        if name != "heun" and steps == calls < len(pilot.times) - 1:
            if gaussian not in shortest:
                shortest[gaussian] = dynamic_grid(few, calls, gaussian=gaussian)
            tables[f"{name} on the shortest path"] = rule(schedule, shortest[gaussian])
    return tables


def _fitted(pilot: Pilot, calls: int, tables: dict[str, AnyTable]) -> dict[str, AnyTable]:
    """Times, then coefficients, from the best grids of order 2 with and without the Gaussian."""
    out: dict[str, AnyTable] = {}
    for gaussian in (True, False):
        method = f"{'gaussian' if gaussian else 'exponential'} 2"
        starts = {name: table for name, table in tables.items() if name.startswith(method)}
        found = []
        for name, table in starts.items():
            times = torch.cat([table.times, table.times.new_zeros(1)])
            fit = fitted(pilot, times, 2, gaussian, memory=0)
            found.append((_error(pilot, fit)[0], name, fit))
        found.sort(key=lambda item: item[0])
        for _, name, table in found:
            out[f"{name}, times fitted"] = table
        for _, name, table in found[: 2 if calls <= 6 else 1]:
            times = torch.cat([table.times, table.times.new_zeros(1)])
            out[f"{name}, fitted"] = fitted(pilot, times, 2, gaussian)
    return out


def family(pilot: Pilot, steps: int, low: float, shape: str) -> Tensor:
    """The grid of a family by its name; `low` in standard deviations of the data."""
    schedule = pilot.schedule
    if shape == "uniform" or steps == 1:
        return uniform_grid(schedule, steps)
    kind, number, *rest = shape.split()
    steps += len(rest)
    level = low * pilot.variances.mean().sqrt().item()
    first = max(schedule.log_snr(schedule.end).item(), FLOOR)
    if kind == "rho":
        high = None if first > FLOOR else math.exp(-FLOOR / 2)
        grid = karras_grid(schedule, steps, level, high, rho=float(number))
    elif number == "1":
        grid = log_snr_grid(schedule, steps, first, -2 * math.log(level))
    else:
        u = torch.linspace(0, 1, steps, dtype=torch.float64) ** float(number)
        inner = schedule.time(first + (-2 * math.log(level) - first) * u).clamp(max=schedule.end)
        grid = torch.cat([inner, inner.new_zeros(1)])
    grid[0] = schedule.end
    return grid[:-1] if rest else grid


def _error(pilot: Pilot, table: AnyTable) -> tuple[float, float]:
    """(median, root mean square) of the distances to the paths' ends."""
    made = sample(pilot.denoiser, table, pilot.x_noise).flatten(1)
    gap = (made.to(pilot.x) - pilot.x[-1]).norm(dim=1)
    return gap.median().item(), gap.square().mean().sqrt().item()
