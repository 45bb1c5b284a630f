"""Elimination without a subtraction: stationary vectors and absorption with full relative accuracy.

    T p = p,  Σ p = 1:   for k = n−1 … 1, with s_k = Σ_{i<k} T_ik, the probability of leaving k for a lower state,
    T_ij ← T_ij + T_ik T_kj / s_k   (i, j < k)       the chain watched only while it is below k
    p_0 = 1,   p_k = Σ_{j<k} T_kj p_j / s_k          back, then divided by the sum

Gaussian elimination would take the pivot 1 − T_kk, which cancels; the columns sum to one, so it is s_k, a sum. Every
number is then a sum, product or quotient of positive ones and keeps its digits, however close the chain is to falling
apart (Grassmann, Taksar & Heyman 1985; the error bound is O'Cinneide 1993). For many states the last 32 go at once:
with M = 1 − T_BB = (1 − C) D (1 − R), C upper and R lower triangular, both ≥ 0,
    T_AA ← T_AA + T_AB (1 − R)⁻¹ D⁻¹ (1 − C)⁻¹ T_BA
is two triangular solves, in which nothing is subtracted either, and one matrix product.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["eliminate", "gth", "solve"]

BLOCK, PLAIN, LARGE = 32, 64, 2.0**60


def gth(T: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """The stationary vector of an irreducible T, whose diagonal is never read.

    Raises: ValueError where ratios of its entries are beyond the range of the dtype.
    """
    n = len(T)
    if n > PLAIN and torch.isfinite(p := _blocked(T.detach().clone(memory_format=torch.contiguous_format))).all():
        return p
    T = T.detach().clone(memory_format=torch.contiguous_format)
    leaving = T.new_ones(n)
    for k in range(n - 1, 0, -1):
        leaving[k] = T[:k, k].sum()
        T[:k, :k].addr_(T[:k, k] / leaving[k], T[k, :k])
    p = T.new_zeros(n)
    p[0] = 1
    for k in range(1, n):
        p[k] = torch.dot(T[k, :k], p[:k]) / leaving[k]
        p[: k + 1] *= torch.where(p[k] > LARGE, 1 / LARGE, 1.0)  # a power of two: no digit is lost
    if not torch.isfinite(p).all():
        raise ValueError(f"the stationary probabilities span more than {T.dtype} can hold; their ratios overflow")
    return p / p.sum()


def eliminate(within: Float[Tensor, "k k"], out: Float[Tensor, " k"]) -> tuple[Tensor, Tensor, Tensor]:
    """(1 − C, the diagonal of D, 1 − R) with (1 − C) D (1 − R) = 1 − within.

    `out` is each column's probability of leaving these states; column and `out` sum to one, and the diagonal is not
    read.
    """
    size = len(within)
    work = torch.cat([out[None], within.detach()])  # all the rest as one more row, the lowest state
    pivots = torch.empty_like(out)
    for k in range(size - 1, -1, -1):
        pivots[k] = work[: k + 1, k].sum()
        work[: k + 1, k] /= pivots[k]
        work[: k + 1, :k].addr_(work[: k + 1, k], work[k + 1, :k])
    one = torch.eye(size, dtype=within.dtype, device=within.device)
    C, R = work[1:].triu(1), work[1:].tril(-1) / pivots[:, None]
    return one - C, pivots, one - R


def solve(within: Float[Tensor, "k k"], out: Float[Tensor, " k"], right: Float[Tensor, "k m"]) -> Float[Tensor, "k m"]:
    """(1 − withinᵀ)⁻¹ right for right ≥ 0, without a subtraction: Σ_t (withinᵀ)^t right."""
    upper, pivots, lower = eliminate(within, out)
    y = torch.linalg.solve_triangular(lower.mT, right, upper=True, unitriangular=True)
    return torch.linalg.solve_triangular(upper.mT, y / pivots[:, None], upper=False, unitriangular=True)


def _blocked(T: Tensor) -> Tensor:
    """T is spoiled. Not finite where p spans more than the range of its numbers."""
    ends = list(range(len(T), 1, -BLOCK))
    factors = []
    for end in ends:
        start = max(end - BLOCK, 1)
        A, B = slice(0, start), slice(start, end)
        upper, pivots, lower = eliminate(T[B, B], T[A, B].sum(0))
        back = torch.linalg.solve_triangular(upper, T[B, A], upper=True, unitriangular=True) / pivots[:, None]
        ahead = torch.linalg.solve_triangular(lower, T[A, B], upper=False, left=False, unitriangular=True)
        T[A, A].addmm_(ahead, back)
        factors.append((B, lower, back))
    p = T.new_zeros(len(T))
    p[0] = 1
    for B, lower, back in reversed(factors):
        straight = (back @ p[: B.start])[:, None]
        p[B] = torch.linalg.solve_triangular(lower, straight, upper=False, unitriangular=True)[:, 0]
        largest = p[: B.stop].max()
        p[: B.stop] *= torch.where(largest > LARGE, 1 / LARGE, 1.0)
    return p / p.sum()
