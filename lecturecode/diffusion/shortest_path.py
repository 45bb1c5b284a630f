"""Grids by Bellman's recursion: the shortest path through a pilot's candidate times.

For a step from τ_i to τ_j, with τ_h the time of the call before, a method of order 2 on the path makes, in
z = Uᵀ(x − α m), the error

    e_hij = z_j − (s_j/s_i) z_i − E_i ∫κ − (E_h − E_i)/(ℓ_h − ℓ_i) ∫κ (ℓ − ℓ_i),    κ = s_j α/s

and the Gaussian's flow carries it to √c e/s_j at the data. If the errors of all steps just add up, the best grid of N
calls is the shortest path of N edges through the candidates, with the length c_hij = mean |√c e_hij/s_j| of an edge:

    V_1(0, j) = c_0j,    V_{n+1}(i, j) = min_h V_n(h, i) + c_hij
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from .gaussian_flow import NODES, WEIGHTS
from .pilot import Pilot

__all__ = ["dynamic_grid"]


def dynamic_grid(pilot: Pilot, calls: int, order: int = 2, gaussian: bool = True) -> Float64[Tensor, " times"]:
    """calls + 1 of the pilot's times with the least sum of errors, for a method of order 1 or 2 with one call a step.

    The method is `gaussian_exponential` about the data's Gaussian, or `exponential` where `gaussian` is False.

    Raises: ValueError where there are not more candidates than calls, calls < 1, or the order is neither.
    """
    last = len(pilot.times) - 1  # the index of t = 0
    if not 1 <= calls <= last or order not in (1, 2):
        raise ValueError(f"calls is {calls} and order {order}; choose 1 to {last} calls and order 1 or 2")
    edges = _lengths(pilot, order, gaussian)  # [i][j]: (h,) lengths for each call before
    value = torch.full((last, last), math.inf, dtype=torch.float64)  # (previous, here)
    for j in range(1, last):
        value[0, j] = edges[0, j][0]
    back: list[Tensor] = []
    for _ in range(calls - 2):
        after, best = torch.full_like(value, math.inf), torch.zeros(last, last, dtype=torch.long)
        for i in range(1, last - 1):
            for j in range(i + 1, last):
                after[i, j], best[i, j] = (value[:i, i] + edges[i, j]).min(0)
        value = after
        back.append(best)
    if calls == 1:
        return pilot.times[[0, last]]
    ending = value + torch.tensor([0.0, *(edges[i, last][0].item() for i in range(1, last))])
    h, i = divmod(int(ending.argmin()), last)
    path = [i, h]
    for best in reversed(back):
        path.append(int(best[path[-1], path[-2]]))
    return pilot.times[[*path[::-1], last]]


def _lengths(pilot: Pilot, order: int, gaussian: bool) -> dict[tuple[int, int], Tensor]:
    """For each edge (i, j) its length for each call before it, (i,), or (1,) for i = 0 and for the step to t = 0."""
    schedule, basis, last = pilot.schedule, pilot.basis, len(pilot.times) - 1
    alpha, sigma = (level[:, None] for level in schedule(pilot.times))
    ell = schedule.log_snr(pilot.times) / 2
    whole = (alpha.square() * pilot.variances + sigma.square()).sqrt()
    c = pilot.variances if gaussian else torch.zeros_like(pilot.variances)
    s = (alpha.square() * c + sigma.square()).sqrt()
    carried = pilot.variances.sqrt() / whole.clamp(min=1e-150)
    z = (pilot.x - alpha[:, None] * pilot.mean) @ basis
    rest = (pilot.answers - pilot.mean) @ basis - (alpha * c / s.square().clamp(min=1e-300))[:-1, None] * z[:-1]
    half = (ell[1:] - ell[:-1])[:, None] / 2
    # ∫κ and ∫κ ℓ between neighbours, without s_j; sums of them are those of longer steps
    at = ell[:-1, None] + half * (1 + NODES)
    kernel = (c + torch.exp(-2 * at)[..., None]).rsqrt() * (half * WEIGHTS)[..., None]
    out = {}
    for i in range(last):
        slopes = (rest[:i] - rest[i]) / (ell[:i] - ell[i])[:, None, None] if i and order == 2 else rest[:1] * 0
        slopes = torch.where(slopes.isfinite(), slopes, 0)  # from α = 0, where ℓ is −∞, there is no slope
        for j in range(i + 1, last + 1):
            gap = z[j] - s[j] / s[i] * z[i]
            if j == last:
                out[i, j] = _mean_length((gap - s[i] / (s[i] + alpha[i] * c.sqrt()) * rest[i])[None])
                continue
            if not ell[i].isfinite():
                u = (c.sqrt() * alpha[j] / sigma[j]).clamp(min=1e-150)
                zeroth, first = alpha[j] / sigma[j] * (u.asinh() / u), torch.zeros_like(c)
            else:
                zeroth = kernel[i:j].sum((0, 1))
                first = ((at[i:j] - ell[i])[..., None] * kernel[i:j]).sum((0, 1))
            gaps = gap - s[j] * zeroth * rest[i] - s[j] * first * slopes
            out[i, j] = _mean_length(gaps * carried[j]).expand(max(i, 1))
    return out


def _mean_length(gaps: Tensor) -> Tensor:
    return gaps.norm(dim=2).mean(1)
