"""Kernels: one step of many Markov chains at once, as a pure function (x, rng) ↦ x that leaves f = e^{−E} invariant.

    Gibbs        x_B ~ p(x_B | the rest), a block B of units after the other
    Metropolis   x′ ~ q(x′ | x), taken with probability min(1, e^{E(x) − E(x′)} q(x | x′)/q(x′ | x))

Chains lie along the leading axes of x, units along the last. A kernel is made from callables and knows no machine;
it changes nothing in place, and all its chance comes from `rng`. Those made here also know their `matrix(states)`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .steps import Flip, Gibbs, Independent, InTurn, Joint, Metropolis
from .units import Blocks, apart, ordered

__all__ = ["Kernel", "block_gibbs", "flip", "gibbs", "in_turn", "metropolis"]


@runtime_checkable
class Kernel(Protocol):
    """One step of every chain."""

    def __call__(self, x: Tensor, rng: torch.Generator, /) -> Tensor:
        """The states after one step; x itself is left as it was."""
        ...


def gibbs(
    conditional: Callable[[Tensor], Tensor],
    alphabet: Sequence[int | float],
    blocks: Blocks | None = None,
    scan: str = "systematic",
) -> Gibbs:
    """Each unit is drawn from p(x_i | the rest): all in the order 0 … n−1 (systematic), or one by chance (random).

    conditional(x) ↦ (…, n), for each unit the probability of its upper value given the others. With `blocks` the
    units of a block are drawn together, block after block; they must be independent given the rest, as the layers of
    a restricted machine or the colours of a chequerboard are. Each draw leaves p invariant, so the sweep does; it is
    reversible in general only if there is one block. The random scan, one block a step and each chain its own, is
    always reversible. Units in no block keep their values. Source: Geman & Geman (1984).

    Raises: ValueError where the alphabet is not (lower, upper), the blocks name a unit twice, none, or one that x does
    not have, the scan is another, or (on the CPU) a probability is NaN.
    """
    apart(blocks)
    return Gibbs(Independent(conditional, ordered(alphabet)), blocks, _known(scan))


def block_gibbs(
    energy: Callable[[Tensor], Tensor],
    alphabet: Sequence[int | float],
    blocks: Blocks,
    scan: str = "systematic",
) -> Gibbs:
    """As `gibbs`, for blocks whose units do depend on each other: x_B ~ p(x_B | the rest) ∝ e^{−E}, jointly.

    energy(x) ↦ (…), one number for each chain; it is asked for the 2^|B| patterns of a block at once. Strongly coupled
    units that one at a time would hardly ever turn over move together; a block of all units is an exact draw. With the
    random scan each block asks for the chains that chose it, which on an accelerator waits for the choice.

    Raises: ValueError as `gibbs`, or where (on the CPU) an energy is NaN.
    """
    apart(blocks)
    return Gibbs(Joint(energy, ordered(alphabet)), blocks, _known(scan))


def metropolis(
    energy: Callable[[Tensor], Tensor],
    propose: Kernel,
    log_proposal: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Metropolis:
    """x ← x′ with probability min(1, e^{E(x) − E(x′)} q(x | x′)/q(x′ | x)), else x stays; x′ = propose(x, rng).

    energy(x) ↦ one number for each chain. log_proposal(x′, x) ↦ log q(x′ | x), up to a constant; without it the
    proposal must be symmetric, as likely from x to x′ as back. Then the kernel is reversible with respect to e^{−E}.
    Source: Metropolis et al. (1953); Hastings (1970).

    Raises: ValueError where (on the CPU) a difference of energies is NaN.
    """
    return Metropolis(energy, propose, log_proposal)


def flip(alphabet: Sequence[int | float], unit: int | None = None) -> Flip:
    """The symmetric proposal that gives one unit its other value: `unit`, or for each chain one chosen uniformly.

    Raises: ValueError where the alphabet is not (lower, upper), or x has no such unit.
    """
    return Flip(sum(ordered(alphabet)), unit)


def in_turn(kernels: Sequence[Kernel]) -> InTurn:
    """One kernel after another, as one step: it leaves invariant what each of them does.

    in_turn([metropolis(energy, flip(SPIN, i)) for i in range(n)]) is a systematic sweep, not reversible in general.

    Raises: ValueError where there is no kernel.
    """
    if not kernels:
        raise ValueError("kernels is empty; give at least one")
    return InTurn(tuple(kernels))


def _known(scan: str) -> str:
    if scan not in ("systematic", "random"):
        raise ValueError(f"scan is {scan!r}; give 'systematic' or 'random'")
    return scan
