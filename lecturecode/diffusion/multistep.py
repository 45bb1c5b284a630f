"""Multistep samplers: the denoiser's answers of several calls, integrated along the log SNR.

With ℓ = λ/2 = log α/σ the probability-flow equation is d(x/σ)/dℓ = e^ℓ x̂_0, so that from ℓ_t to ℓ_r

    x_r = (σ_r/σ_t) x_t + α_r ∫_0^h e^{v−h} x̂_0(ℓ_t + v) dv,    h = ℓ_r − ℓ_t.

The factor in front is exact. x̂_0 is replaced by the polynomial Σ_k c_k v^k through the last answers, and the integral
is Σ_k c_k M_k with the moments

    M_k(h) = ∫_0^h e^{v−h} v^k dv = h^k − k M_{k−1},    M_0 = 1 − e^{−h},

by their series where h < 1. The papers write λ for ℓ.

A method of order p needs p answers, and its first rows have fewer. With lower orders there, the error of the first
step, h² or h³, stays to the end, whatever comes after. So the first rows take the whole way anew: row k integrates
from t_0 to t_{k+1}, with x_0 = (x_k − Σ_j w_j D_j)/a known from the row before. Each answer thus corrects the steps
that were taken before it was known, and costs no call (as in the corrector of Zhao et al. 2023). An error of h² in x_1
is one in D_1 and gives h³ in x_2, which is enough for order 3. Order 4 asks once more at t_1, after its correction:
one call more than steps.

A step from α = 0 and the step to t = 0 are DDIM's, as h = ∞ there and no polynomial in ℓ has a limit.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch

from .schedule import Schedule
from .tables import Table, Times, steps

__all__ = ["dpm_solver", "exponential"]

Moments = Callable[[float, int], list[float]]
SERIES = [[math.factorial(k) / math.factorial(k + n + 1) for n in range(20)] for k in range(4)]


def exponential(schedule: Schedule, times: Times, order: int = 3, corrected: bool = True) -> Table:
    """Exponential Adams–Bashforth of order 1 to 4 on any grid. Order 1 is `ddim`.

        x_r = (σ_r/σ_t) x_t + α_r Σ_j D_j ∫_0^h e^{v−h} Π_{i≠j} (v − v_i)/(v_j − v_i) dv,    v_j = ℓ_j − ℓ_t ≤ 0

    `corrected` starts it so that the whole has the order; without, orders 1, 2 … lead up to it, and the whole has
    order 2 at most.

    Raises: ValueError where the order is none of the four, times are fewer than it needs, not falling, or outside the
    schedule. Source: Zhang & Chen (2023), there for the noise and in t; Hochbruck & Ostermann (2010) for ODEs.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order is {order}; choose it from 1 to 4")
    return _table(schedule, times, order, corrected, _moments)


def dpm_solver(
    schedule: Schedule,
    times: Times,
    order: int = 2,
    corrected: bool = False,
    settled: bool = False,
    curvature: float = 1.0,
) -> Table:
    """DPM-Solver++ 2M (order 2) and 3M (order 3): the integral of the answers' Taylor polynomial at t.

        2M: M_0 D + ½ h M_0 D′        3M: M_0 D + M_1 D′ + ½ c M_2 D″        D′, D″ divided differences, c = curvature

    2M's second term is M_1 D′ within h³ ("midpoint"). The start has lower orders, as published, or is `corrected` as
    that of `exponential`, which order 3 needs. `settled` lowers the order to 2 and to 1 in the last two steps.

    curvature 1 is the integral, and with it 3M is `exponential` of order 3. The authors' code, and diffusers and
    k-diffusion after it, leave out a factor of 2 in D″: curvature ½, whose order is 2.

    Raises: ValueError where the order is neither, the curvature is not finite, or as `exponential`.
    Source: Lu et al. (2022b), algorithm 2, for 2M; their code for 3M.
    """
    if order not in (2, 3):
        raise ValueError(f"order is {order}; choose 2 (2M) or 3 (3M)")
    if not math.isfinite(curvature):
        raise ValueError(f"curvature is {curvature:g}; give 1 for the integral, 0.5 for the authors' code")

    def moments(h: float, count: int) -> list[float]:
        if count == 2:
            return [-math.expm1(-h), -math.expm1(-h) * h / 2]
        return [m * (curvature if k == 2 else 1) for k, m in enumerate(_moments(h, count))]

    return _table(schedule, times, order, corrected, moments, settled)


def _table(
    schedule: Schedule, times: Times, order: int, corrected: bool, moments: Moments, settled: bool = False
) -> Table:
    t, r = steps(schedule, times, order)
    grid = torch.cat([t, r[-1:]])
    ell = (schedule.log_snr(grid) / 2).tolist()
    for k, (now, then) in enumerate(pairwise(ell)):
        if not now < then:
            raise ValueError(f"times[{k}] and times[{k + 1}] have one log SNR, {2 * now:g}; leave one of them out")
    alpha, sigma = (level.tolist() for level in schedule(grid))
    calls = plan([math.isfinite(value) for value in ell], order, corrected, settled)
    a, b, before = [], torch.zeros(len(calls), order + 1, dtype=torch.float64), {}
    for call, (node, target, base, used) in enumerate(calls):
        h, rule = ell[target] - ell[base], _moments
        if base == node:
            rule, before = moments, {}
        shares = _weights([ell[calls[i][0]] - ell[base] for i in used], rule(h, len(used)))
        a.append(sigma[target] / sigma[node])
        after = {i: alpha[target] * share for i, share in zip(used, shares, strict=True)}
        for i in after | before:
            b[call, call - i] = after.get(i, 0.0) - a[-1] * before.get(i, 0.0)
        before = after
    width = int(b.any(0).nonzero().max()) + 1
    rows = torch.tensor(a, dtype=torch.float64)
    return Table(grid[[node for node, *_ in calls]], rows, b[:, :width], torch.zeros_like(rows), r[-1].item())


def plan(
    finite: list[bool], order: int, corrected: bool, settled: bool = False
) -> list[tuple[int, int, int, list[int]]]:
    """For each call the time where it is made, the time it leads to, where its integral begins, and the calls used."""
    calls, known = [], []
    first, last = int(not finite[0]), len(finite) - 1
    if first:
        calls.append((0, 1, 0, [0]))
    for node in range(first, last):
        known = [len(calls), *known]
        starts = corrected and node - first < order - 1
        if starts and order == 4 and node == first + 1:
            calls.append((node, node, first, known[:2]))
            known = [len(calls), *known[1:]]
        reach = min(order, last - node) if settled else order
        starts = starts and finite[node + 1] and reach > node - first
        calls.append((node, node + 1, first if starts else node, known[: reach if finite[node + 1] else 1]))
    return calls


def _weights(nodes: list[float], moments: list[float]) -> list[float]:
    """Σ_k c_jk M_k for each Lagrange polynomial Π_{i≠j} (v − v_i)/(v_j − v_i) = Σ_k c_jk v^k."""
    out = []
    for j, here in enumerate(nodes):
        line = [1.0]
        for other in nodes[:j] + nodes[j + 1 :]:
            shifted, kept = [0.0, *line], [*line, 0.0]
            line = [(s - other * c) / (here - other) for s, c in zip(shifted, kept, strict=True)]
        out.append(math.fsum(c * m for c, m in zip(line, moments, strict=True)))
    return out


def _moments(h: float, count: int) -> list[float]:
    """M_0 … M_{count−1}: h^{k+1} Σ_n (−h)^n k!/(k+n+1)! where h < 1, and by parts beyond."""
    if h < 1:
        return [h ** (k + 1) * math.fsum((-h) ** n * c for n, c in enumerate(SERIES[k])) for k in range(count)]
    out = [-math.expm1(-h)]
    for k in range(1, count):
        out.append(h**k - k * out[-1])
    return out
