"""Kernels: one step of many Markov chains at once, as a pure function (x, rng) ↦ x that leaves f = e^{−E} invariant.

    Gibbs        x_i ~ p(x_i | the rest), unit after unit
    Metropolis   x′ proposed with symmetric probability, taken with probability min(1, e^{E(x) − E(x′)})

Chains lie along the leading axes of x, units along the last. A kernel is made from callables and knows no machine;
it changes nothing in place, and all its chance comes from `rng`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..rng import uniform

__all__ = ["Kernel", "flip", "gibbs", "metropolis"]


@runtime_checkable
class Kernel(Protocol):
    """One step of every chain."""

    def __call__(self, x: Tensor, rng: torch.Generator, /) -> Tensor:
        """The states after one step; x itself is left as it was."""
        ...


def gibbs(
    conditional: Callable[[Tensor], Tensor],
    alphabet: Sequence[int | float],
    blocks: Sequence[Sequence[int]] | None = None,
) -> Kernel:
    """One systematic sweep: each unit in turn is drawn from p(x_i | the rest), in the order 0 … n−1.

    conditional(x) ↦ (…, n), for each unit the probability of its upper value given the others. With `blocks` the
    units of a block are drawn together, block after block; they must be independent given the rest, as the layers of
    a restricted machine or the colours of a chequerboard are. Each draw leaves p invariant, so the sweep does; it is
    reversible in general only if there is one block. Units in no block keep their values. Source: Geman & Geman (1984).

    Raises: ValueError where the alphabet is not (lower, upper), the blocks name a unit twice, none, or one that x does
    not have, or (on the CPU) a probability is NaN.
    """
    lower, upper = _ordered(alphabet)
    _apart(blocks)

    def sweep(x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        n = x.shape[-1]
        order = [[i] for i in range(n)] if blocks is None else blocks
        x = x.clone()
        for units in (_index(block, n) for block in order):
            chance = conditional(x)[..., units]
            _a_number("a conditional probability", chance)
            high = uniform(tuple(chance.shape), rng, chance) < chance
            x[..., units] = torch.where(high, upper, lower).to(x.dtype)
        return x

    return sweep


def metropolis(energy: Callable[[Tensor], Tensor], propose: Kernel) -> Kernel:
    """x ← x′ with probability min(1, e^{E(x) − E(x′)}), else x stays; x′ = propose(x, rng).

    energy(x) ↦ one number for each chain. The proposal must be symmetric, as likely from x to x′ as back; then the
    kernel is reversible with respect to e^{−E}. Source: Metropolis et al. (1953).

    Raises: ValueError where (on the CPU) a difference of energies is NaN.
    """

    def step(x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        other = propose(x, rng)
        fall = energy(x) - energy(other)
        _a_number("a difference of energies", fall)
        taken = uniform(tuple(fall.shape), rng, fall) < fall.exp()
        return torch.where(taken[..., None], other, x)

    return step


def flip(alphabet: Sequence[int | float], unit: int | None = None) -> Kernel:
    """The symmetric proposal that gives one unit its other value: `unit`, or for each chain one chosen uniformly.

    Raises: ValueError where the alphabet is not (lower, upper), or x has no such unit.
    """
    total = sum(_ordered(alphabet))

    def proposal(x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        n = x.shape[-1]
        if unit is None:
            level = uniform((*x.shape[:-1], 1), rng, x)
            chosen = (level * n).long().clamp(max=n - 1) == torch.arange(n, device=x.device)
        else:
            chosen = torch.arange(n, device=x.device) == _there(unit, n)
        return torch.where(chosen, total - x, x)

    return proposal


def _ordered(alphabet: Sequence[int | float]) -> tuple[int | float, int | float]:
    if len(alphabet) != 2 or not alphabet[0] < alphabet[1]:
        raise ValueError(f"alphabet is {alphabet}; give the two values of a unit as (lower, upper), such as (-1, 1)")
    return alphabet[0], alphabet[1]


def _there(unit: int, n: int) -> int:
    if not 0 <= unit < n:
        raise ValueError(f"unit is {unit}, and x has the units 0 … {n - 1}")
    return unit


def _index(block: Sequence[int], n: int) -> slice | list[int]:
    """The units of a block as a slice if they follow each other: a list is copied to the device at each use."""
    first, last = _there(min(block), n), _there(max(block), n)
    return slice(first, last + 1) if list(block) == list(range(first, last + 1)) else list(block)


def _a_number(name: str, values: Tensor) -> None:
    if checks.is_free(values) and values.isnan().any():
        where = tuple(values.isnan().nonzero()[0].tolist())
        raise ValueError(f"{name} is NaN in chain {list(where)}; check the weights and the states that were passed")


def _apart(blocks: Sequence[Sequence[int]] | None) -> None:
    named = [unit for block in blocks or () for unit in block]
    if blocks is not None and (not named or not all(blocks) or len(set(named)) < len(named)):
        raise ValueError(f"blocks is {blocks}; name each unit once, such as [[0, 1], [2, 3]]")
