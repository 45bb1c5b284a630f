"""Stochastic matrices at the door, their ordered products, and the exponential of a matrix of rates.

    T_ij ≥ 0, Σ_i T_ij = 1 for every j                        each column sums to one
    P(t_m) = T_m ⋯ T_1 P(t_0)                                 the latest on the left
    Q_ij ≥ 0 (i ≠ j), Σ_i Q_ij = 0:   dP/dt = Q P,   P(t) = e^{Qt} P(0)

With q the largest rate of leaving a state and P = 1 + Q/q, a stochastic matrix, e^{Qt} = Σ_k e^{−qt} (qt)^k/k! P^k: a
mean of powers of P, in which nothing is subtracted (uniformisation, Jensen 1953). It is summed for a time with qt ≤ 1
and then squared.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks

__all__ = ["check_distribution", "check_matrix", "check_rates", "evolve", "exponential", "squared"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
TERMS = {torch.float64: 19, torch.float32: 12}  # 1/19! and 1/12! are below the last digit


def check_matrix(name: str, T: Tensor) -> None:
    """T is a stochastic matrix, columns summing to one. Raises: ValueError where it is not."""
    _check_square(name, T)
    if T.min() < 0:
        i, j = (T < 0).nonzero()[0].tolist()
        raise ValueError(f"{name}[{i}, {j}] is {T[i, j].item():g}; a probability is not negative: check the entry")
    _check_columns(name, T, 1, 1.0)


def check_rates(Q: Tensor, time: int | float) -> None:
    """Q has rates off its diagonal and columns that sum to zero, time ≥ 0. Raises: ValueError where not."""
    _check_square("Q", Q)
    rates = Q - torch.diag(Q.diagonal())
    if (rates < 0).any():
        i, j = (rates < 0).nonzero()[0].tolist()
        raise ValueError(f"Q[{i}, {j}] is {Q[i, j].item():g}; a rate off the diagonal is not negative")
    _check_columns("Q", Q, 0, max(1.0, float(rates.sum(0).max())))
    if not 0 <= time < math.inf:
        raise ValueError(f"time is {time}; give a finite time from 0 on")


def check_distribution(name: str, p: Tensor, T: Tensor) -> None:
    """p holds probabilities of the states of T along its last axis. Raises: ValueError where it does not."""
    checks.same_device(**{"T": T, name: p})
    if p.ndim == 0 or p.shape[-1] != len(T):
        raise ValueError(f"{name} has shape {tuple(p.shape)}; give {len(T)} probabilities along its last axis")
    if p.dtype != T.dtype:
        raise ValueError(f"{name} is {p.dtype} and T {T.dtype}; pass {name}.to({T.dtype})")
    if checks.is_free(p):
        checks.probabilities(name, p)


def evolve(matrices: Iterable[Float[Tensor, "n n"]], p: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """T_m ⋯ T_1 p for the matrices T_1, T_2, … in the order of time, for one vector or for each row of a batch.

    Raises: ValueError where a matrix is not stochastic by columns (it is named), or p does not fit it.
    """
    for k, T in enumerate(matrices):
        check_matrix(f"matrices[{k}]", T)
        check_distribution("p", p, T)
        p = p @ T.mT
    return p


def exponential(Q: Float[Tensor, "n n"], time: int | float) -> Float[Tensor, "n n"]:
    """e^{Qt} by its positive series; the diagonal of Q is not read, each column's is minus the sum of its rates."""
    rates = (Q - torch.diag(Q.diagonal())).detach()
    leaving = rates.sum(0)
    fastest = float(leaving.max())
    jumps = rates / (fastest or 1.0) + torch.diag((fastest - leaving) / (fastest or 1.0))
    halvings = max(0, math.ceil(math.log2(fastest * time))) if fastest * time > 0 else 0
    short = fastest * time / 2**halvings
    one = torch.eye(len(Q), dtype=Q.dtype, device=Q.device)
    T = one
    for k in range(TERMS[Q.dtype], 0, -1):
        T = one + (short / k) * (jumps @ T)
    T = T / T.sum(0)
    for _ in range(halvings):
        T = squared(T)
    return T


def squared(T: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """T², its columns brought back to the sum one: otherwise a rounding of T doubles with each squaring."""
    T = T @ T
    return T / T.sum(0)


def _check_square(name: str, T: Tensor) -> None:
    if T.ndim != 2 or T.shape[0] != T.shape[1] or not len(T):
        raise ValueError(f"{name} has shape {tuple(T.shape)}; give a square matrix, one row and one column a state")
    if T.dtype not in TOLERANCE:
        raise ValueError(f"{name} is {T.dtype}; pass {name}.to(torch.float64)")
    if not torch.isfinite(T.sum()):
        checks.finite(name, T)


def _check_columns(name: str, T: Tensor, wanted: int, scale: int | float) -> None:
    tolerance = TOLERANCE[T.dtype] * scale
    columns = T.sum(0)
    wrong = (columns - wanted).abs() > tolerance
    if wrong.any():
        j = int(wrong.nonzero()[0])
        if ((T.sum(1) - wanted).abs() <= tolerance).all():
            cure = f"its rows sum to {wanted}, so pass {name}.mT"
        else:
            cure = f"divide by {name}.sum(0)" if wanted else f"set {name}[{j}, {j}] to minus the sum of the others"
        total = f"{columns[j].item():.6g}"
        total = f"{columns[j].item():.12g}" if total == str(wanted) else total
        raise ValueError(f"column {j} of {name} sums to {total}, not {wanted}; {cure}")
