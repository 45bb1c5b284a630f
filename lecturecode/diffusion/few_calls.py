"""The best sampler for a number of calls: candidates made on one half of a pilot, the choice on the other.

Candidates are the multistep tables, each on the best grid of some families (`families`) and on the grid of least summed
errors. For few calls the same follow with times, and then coefficients, fitted; for more the best methods on grids
refined within their family. All this is deterministic: the pilot's noise is an argument.
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
from .families import Family, begun, coarse, refined
from .fitted import fitted
from .gaussian_flow import gaussian_exponential, noise_exponential
from .multistep import dpm_solver, exponential
from .pilot import Pilot
from .sampler import sample
from .shortest_path import dynamic_grid
from .stochastic import heun
from .tables import Table, ddim

__all__ = ["FewCalls", "few_calls"]

AnyTable = Table | DirectionTable
FIT = 10  # calls up to which times and coefficients are fitted; beyond, the best grids are refined
ROWS, REFINED = 32, 4  # rows of the pilot on which the families of grids are tried; methods whose grid is refined


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
    of the pilot's last candidate before t = 0.

    Raises: ValueError where calls < 1, the pilot has fewer than 16 rows, or as `Pilot.run`.
    """
    if calls < 1 or len(x_noise) < 16:
        raise ValueError(f"calls is {calls} and x_noise has {len(x_noise)} rows; give one call or more, and 16 rows")
    whole = Pilot.run(denoiser, x_noise, mean, covariance, candidates=max(48, 2 * calls), high=high)
    makes, chooses = whole.rows(slice(0, None, 2)), whole.rows(slice(1, None, 2))
    tables = _analytic(makes, calls)
    if calls > 1 and (calls <= FIT if fit is None else fit):
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
    """Each method on the best grid of the families, and on that of least summed errors; the best on refined grids."""
    schedule, few = pilot.schedule, pilot.rows(slice(0, ROWS))
    methods, shortest = _methods(pilot, calls), dict[bool, Tensor]()
    tables: dict[str, AnyTable] = {}
    best: dict[str, Family] = {}

    def error(family: Family, name: str, rows: Pilot) -> float:
        rule, steps, _ = methods[name]
        try:
            value = _error(rows, rule(schedule, family.times(pilot, steps)))[0]
        except (ValueError, FloatingPointError):
            return math.inf
        return math.inf if math.isnan(value) else value

    first = {name: begun(partial(error, name=name, rows=few)) for name in methods}
    values = {name: error(family, name, few) for name, family in first.items()}
    worst = math.inf if calls <= FIT else 3 * min(values.values())
    for name, (rule, steps, gaussian) in methods.items():
        family = coarse(partial(error, name=name, rows=few), first[name]) if values[name] <= worst else first[name]
        if error(family, name, few) < math.inf:
            best[name], tables[f"{name} on {family}"] = family, rule(schedule, family.times(pilot, steps))
        if name != "heun" and steps == calls < len(pilot.times) - 1:
            if gaussian not in shortest:
                shortest[gaussian] = dynamic_grid(few, calls, gaussian=gaussian)
            tables[f"{name} on the shortest path"] = rule(schedule, shortest[gaussian])
    if calls > FIT:
        for name in sorted(best, key=lambda name: error(best[name], name, pilot))[:REFINED]:
            family = refined(partial(error, name=name, rows=pilot), best[name])
            rule, steps, _ = methods[name]
            tables[f"{name} on {family}"] = rule(schedule, family.times(pilot, steps))
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


def _error(pilot: Pilot, table: AnyTable) -> tuple[float, float]:
    """(median, root mean square) of the distances to the paths' ends."""
    made = sample(pilot.denoiser, table, pilot.x_noise).flatten(1)
    gap = (made.to(pilot.x) - pilot.x[-1]).norm(dim=1)
    return gap.median().item(), gap.square().mean().sqrt().item()
