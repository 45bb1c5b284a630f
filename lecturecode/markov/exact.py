"""A kernel's matrix on a space that can be listed, exact: T[i, j] = Pr(states[j] → states[i]), columns sum to one.

    a step with several ends      T[i, j] = Σ_k w_k(j) [end_k(j) = i]
    one step after another        T = T_last … T_first
    a step chosen by chance       T = Σ_k w_k T_k

The kernels of this package know their finitely many moves and their probabilities, from the same lines that draw
them; `transition_matrix` asks a kernel for its `matrix(states)`. Every statement about it is then linear algebra.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import checks

__all__ = ["Exact", "chained", "locate", "moves_matrix", "transition_matrix"]


@runtime_checkable
class Exact(Protocol):
    """A kernel that knows its matrix."""

    def matrix(self, states: Tensor, /) -> Tensor:
        """T[i, j] = Pr(states[j] → states[i]); states are the rows of a table, and every one of them is there."""
        ...


def transition_matrix(
    kernel: Callable[[Tensor, torch.Generator], Tensor], states: Float[Tensor, "N ..."]
) -> Float[Tensor, "N N"]:
    """T[i, j] = Pr(j → i) of one step of the kernel on these states, one a row, without sampling.

    T = transition_matrix(gibbs(machine.conditional, SPIN), boltzmann.states(8)); T @ machine.probabilities()

    Any object with a method `matrix(states)` will do. The dtype and the device are those of the states; take float64.

    Raises: ValueError where the kernel has no such method, a state stands twice, the kernel leaves the states, or a
    column does not sum to one.
    """
    if not isinstance(kernel, Exact):
        raise ValueError(
            f"{kernel} has no method matrix(states), so its moves cannot be listed; build it from gibbs, block_gibbs, "
            "metropolis, flip, in_turn and parallel_tempering, or give it one"
        )
    locate(states, states)
    T = kernel.matrix(states)
    wanted = (len(states), len(states))
    if T.shape != wanted:
        raise ValueError(
            f"{kernel}.matrix(states) has shape {tuple(T.shape)}, not {wanted}; one row and column a state"
        )
    checks.probabilities("the transposed matrix", T.mT)
    return T


def locate(states: Float[Tensor, "N *event"], x: Float[Tensor, "*batch"]) -> Int[Tensor, "..."]:
    """The row number of each x among the states; x has the states' event axes last.

    Raises: ValueError where a state stands twice, or an x is not among them.
    """
    event = states.shape[1:]
    rows = x.reshape(-1, *event)
    _, label = torch.cat([states, rows]).flatten(1).unique(dim=0, return_inverse=True)
    known, asked = label[: len(states)], label[len(states) :]
    number = torch.full((int(label.max()) + 1,), -1, device=x.device)
    number[known] = torch.arange(len(states), device=x.device)
    if (number >= 0).sum() < len(states):
        raise ValueError(f"a state stands twice among the {len(states)}; list each once, as boltzmann.states does")
    found = number[asked]
    if (found < 0).any():
        outside = rows[found < 0][0].tolist()
        raise ValueError(f"{outside} can be reached and is not among the {len(states)} states; list the whole space")
    return found.reshape(x.shape[: x.ndim - len(event)])


def moves_matrix(
    states: Float[Tensor, "N *event"], ends: Float[Tensor, "ways N ..."], weights: Float[Tensor, "ways N"]
) -> Float[Tensor, "N N"]:
    """The matrix of a step that leads from state j to ends[k, j] with probability weights[k, j], k = 0, 1, …"""
    size = len(states)
    T = torch.zeros(size * size, dtype=states.dtype, device=states.device)
    start = torch.arange(size, device=states.device).expand(len(ends), -1)
    return T.index_add_(0, (locate(states, ends) * size + start).flatten(), weights.flatten()).reshape(size, size)


def chained(matrices: Sequence[Float[Tensor, "N N"]]) -> Float[Tensor, "N N"]:
    """The matrix of the steps one after another, the first of them first."""
    T = matrices[0]
    for step in matrices[1:]:
        T = step @ T
    return T
