"""Dormand and Prince's pair of orders 5 and 4: a smooth path followed from one end to the other, with steps of its own.

    k_i = slope(x + h Σ_{j<i} a_ij k_j, s + c_i h),    x ← x + h Σ_i b_i k_i,    error = h Σ_i e_i k_i

The error is that of the formula of order 4 within the same seven slopes; the answer is the one of order 5. A step is
kept where |error| ≤ tolerance (1 + |x|) in every entry, and the next one is 0.9 (tolerance/error)^{1/5} times as long.
The last slope of a kept step is the first of the next: six calls a step. (Hairer, Nørsett & Wanner 1993, section II.4
and table II.5.2.)
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks

__all__ = ["integrate"]

C = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # b: the seventh slope is taken at the new point
)
E = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

FIRST = 0.01  # of the way: the step that is tried first


def integrate(
    slope: Callable[[Tensor, float], Tensor],
    x: Float[Tensor, "batch n"],
    start: float,
    stop: float,
    tolerance: float,
) -> tuple[Float[Tensor, "batch n"], int]:
    """x at `stop` of dx/ds = slope(x, s) from x at `start`, either way, and how often the slope was called.

    All rows take the same steps, as short as the worst of them needs.

    Raises: ValueError where the tolerance is not above zero; FloatingPointError where the steps come down to rounding
    before the tolerance is met.
    """
    checks.positive("tolerance", tolerance)
    s, h, calls = start, FIRST * (stop - start), 1
    if start == stop:
        return x.clone(), 0
    first = slope(x, s)
    while s != stop:
        last = abs(h) >= abs(stop - s) * (1 - 1e-12)
        h = stop - s if last else h
        k, there = [first], x
        for c, row in zip(C[1:], A[1:], strict=True):
            there = x + sum_of(k, [h * a for a in row])
            k.append(slope(there, s + c * h if c < 1 or not last else stop))
        calls += len(k) - 1
        size = tolerance * (1 + torch.maximum(x.abs(), there.abs()))
        error = (sum_of(k, [h * e for e in E]) / size).abs().max().item()
        if error <= 1:
            s, x, first = stop if last else s + h, there, k[-1]
        h *= 5 if error == 0 else min(max(0.9 * error**-0.2, 0.2), 5.0)
        if not abs(h) > 4 * math.ulp(max(abs(s), abs(stop - start))) and s != stop:
            raise FloatingPointError(
                f"a step of {abs(h):.1g} is still too long for the tolerance {tolerance:g} at {s:g}, on the way from "
                f"{start:g} to {stop:g}; raise the tolerance, or keep away from where the slope has no bound"
            )
    return x, calls


def sum_of(slopes: list[Tensor], weights: list[float]) -> Tensor:
    """Σ_i w_i k_i, without the terms that are zero."""
    total = slopes[0] * weights[0]
    for slope, weight in zip(slopes[1:], weights[1:], strict=True):
        if weight:
            total.add_(slope, alpha=weight)
    return total
