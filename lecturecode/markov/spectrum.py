"""How fast a chain forgets: its spectral gap, its mixing time, and the bounds that tie the two together.

    γ = 1 − max |μ_k|, over the eigenvalues μ_k ≠ 1 of T                      (the absolute gap)
    d(t) = max_j TV(T^t e_j, P*),   t_mix(δ) = min {t : d(t) ≤ δ}
    reversible:   (1/γ − 1) log(1/2δ) ≤ t_mix(δ) ≤ ⌈log(1/(δ min_i P*_i)) / γ⌉

d never rises, so t_mix is found by doubling and halving: about 2 log₂ t_mix products of matrices, however slow the
chain. (Levin, Peres & Wilmer 2017, section 4.5, theorems 12.4 and 12.5.)
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .matrices import squared

__all__ = ["balanced", "gap", "mixing_time", "mixing_time_bounds"]

DOUBLINGS = 100


def balanced(T: Float[Tensor, "n n"], p: Float[Tensor, " n"], tolerance: float) -> bool:
    """T_ij p_j = T_ji p_i for every pair, each relative to the larger of the two."""
    flow = T * p
    return bool(((flow - flow.mT).abs() <= tolerance * torch.maximum(flow, flow.mT)).all())


def gap(T: Float[Tensor, "n n"], p: Float[Tensor, " n"] | None, ones: int) -> Float[Tensor, ""]:
    """γ, where 1 is an eigenvalue `ones` times; with p, of which T is reversible, by the symmetric √p_j T_ij/√p_i."""
    if p is not None:
        root = p.sqrt()
        symmetric = T * root / root[:, None]
        eigenvalues = torch.linalg.eigvalsh((symmetric + symmetric.mT) / 2)
    else:
        eigenvalues = torch.linalg.eigvals(T)
    rest = eigenvalues[(eigenvalues - 1).abs().argsort()[ones:]].abs()
    return 1 - rest.max().clamp(max=1) if len(rest) else T.new_ones(())


def mixing_time(T: Float[Tensor, "n n"], p: Float[Tensor, " n"], delta: float) -> int:
    """t_mix(δ) of a chain that converges to p.

    Raises: ValueError where the distance stays above δ: δ is below what the digits of T resolve.
    """
    n = len(T)
    if _distance(torch.eye(n, dtype=T.dtype, device=T.device), p) <= delta:
        return 0
    powers = [T]
    while _distance(powers[-1], p) > delta:
        if len(powers) > DOUBLINGS:
            raise ValueError(f"the distance to P* stays above delta = {delta:g}; give a larger delta, or float64")
        powers.append(squared(powers[-1]))
    far, steps = None, 0  # the longest power known to be too far
    for k in range(len(powers) - 2, -1, -1):
        trial = powers[k] if far is None else far @ powers[k]
        if _distance(trial, p) > delta:
            far, steps = trial, steps + 2**k
    return steps + 1


def mixing_time_bounds(gamma: float, p: Float[Tensor, " n"], delta: float) -> tuple[float, float]:
    """(1/γ − 1) log(1/2δ) and log(1/(δ min P*))/γ."""
    lower = (1 / gamma - 1) * math.log(1 / (2 * delta))
    return max(lower, 0.0), math.log(1 / (delta * float(p.min()))) / gamma


def _distance(T: Tensor, p: Tensor) -> float:
    return float((T - p[:, None]).abs().sum(0).max() / 2)
