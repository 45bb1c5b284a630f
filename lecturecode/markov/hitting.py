"""Where a chain ends up, and when: hitting probabilities, hitting times, absorption.

    g_j = Pr(a chain in j ever enters A)        g_j = 1 on A,    g_j = Σ_i T_ij g_i elsewhere, the least solution ≥ 0
    t_j = E[steps from j until A is entered]    t_j = 0 on A,    t_j = 1 + Σ_i T_ij t_i elsewhere, ∞ where g_j < 1

Steps stand in the columns of T, so both systems hold Tᵀ. States that cannot reach A have g = 0; with these left out the
system is regular, and it is solved without a subtraction (`stationary.solve`): a probability of 1e−30 has all its
digits. (Norris 1997, theorems 1.3.2 and 1.3.5.)
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .stationary import solve
from .structure import classes, closed, reaching

__all__ = ["absorption", "hitting_probabilities", "hitting_times"]


def hitting_probabilities(T: Float[Tensor, "n n"], targets: list[int]) -> Float[Tensor, " n"]:
    """g_j for each start j."""
    return _first_entries(T, targets, [targets])[0]


def hitting_times(T: Float[Tensor, "n n"], targets: list[int]) -> Float[Tensor, " n"]:
    """t_j for each start j."""
    reach = set(reaching(T, targets))
    lost = [j for j in range(len(T)) if j not in reach]
    doubtful = set(_reaching_outside(T, lost, targets))
    inside = [j for j in range(len(T)) if j not in doubtful | set(targets)]
    times = T.new_zeros(len(T))
    times[sorted(doubtful)] = math.inf
    if inside:
        times[inside] = solve(T[inside][:, inside], T[targets][:, inside].sum(0), T.new_ones(len(inside), 1))[:, 0]
    return times


def absorption(T: Float[Tensor, "n n"]) -> Float[Tensor, "classes n"]:
    """For each closed class (ascending by least states) and each start j the probability of ending in it."""
    ends = closed(T, classes(T))
    return _first_entries(T, [state for states in ends for state in states], ends)


def _first_entries(T: Tensor, targets: list[int], parts: list[list[int]]) -> Tensor:
    """Pr(the first of `targets` that is entered lies in the part), one row for each part."""
    reach = reaching(T, targets)
    inside = [j for j in reach if j not in set(targets)]
    found = T.new_zeros(len(parts), len(T))
    for row, states in zip(found, parts, strict=True):
        row[states] = 1
    if inside:
        out = T.detach().clone()
        out[inside] = 0
        right = torch.stack([T[states][:, inside].sum(0) for states in parts], 1)
        found[:, inside] = solve(T[inside][:, inside], out[:, inside].sum(0), right).mT.clamp(max=1)
    return found


def _reaching_outside(T: Tensor, lost: list[int], targets: list[int]) -> list[int]:
    """The states with a path into `lost` that does not pass through a target."""
    if not lost:
        return []
    stopped = T.detach().clone()
    stopped[:, targets] = 0
    return reaching(stopped, lost)
