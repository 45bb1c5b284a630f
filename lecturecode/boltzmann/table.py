"""Averages over a machine of few units by the whole table of its log-weights w(s), in the order of `states`.

    log Z = log Σ_s e^{w(s)},   ⟨g⟩ = Σ_s e^{w(s) − log Z} g(s)

This is the plain way. It is differentiable to any order, and the three-group product is held against it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..rng import uniform
from .states import Alphabet, states

__all__ = ["draw_rows", "log_weight_moments", "moments"]


def moments(p: Float[Tensor, " two_to_n"], n: int, alphabet: Alphabet) -> tuple[Tensor, Tensor]:
    """⟨s⟩ and ⟨ssᵀ⟩ of the probabilities p, by thin products over the two halves of the units."""
    low = n // 2
    s_low, s_high = (states(k, alphabet, p.dtype, p.device) for k in (low, n - low))
    table = p.reshape(len(s_high), len(s_low))
    p_low, p_high = table.sum(0), table.sum(1)
    cross = s_high.mT @ (table @ s_low)
    mean = torch.cat([p_low @ s_low, p_high @ s_high])
    top = torch.cat([s_low.mT @ (p_low[:, None] * s_low), cross.mT], 1)
    bottom = torch.cat([cross, s_high.mT @ (p_high[:, None] * s_high)], 1)
    return mean, torch.cat([top, bottom])


def log_weight_moments(w: Float[Tensor, " two_to_n"]) -> tuple[Tensor, Tensor, Tensor]:
    """log Z, ⟨w⟩ and Var(w), the last as a sum of squares: nothing cancels."""
    log_z = w.logsumexp(0)
    p = (w - log_z).exp()
    mean = (p * w).sum() / p.sum()
    return log_z, mean, (p * (w - mean).square()).sum()


def draw_rows(p: Float[Tensor, " rows"], count: int, rng: torch.Generator) -> Int[Tensor, " count"]:
    """`count` independent row numbers with these probabilities (they need not sum to one), by the inverse."""
    cumulative = p.cumsum(0)
    level = uniform((count,), rng, p) * cumulative[-1]
    return torch.searchsorted(cumulative, level, right=True).clamp(max=len(p) - 1)
