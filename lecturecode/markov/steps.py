"""What the kernels do, and their matrices.

    Gibbs        T[i, j] = p(i_B | the rest of j) where i and j agree outside the block B, else 0
    Metropolis   T[i, j] = Q[i, j] min(1, e^{E_j − E_i} q(j | i)/q(i | j)) for i ≠ j; a column's rest is on its diagonal

The probabilities that are drawn and those that are listed come from the same lines.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..rng import uniform
from .exact import chained, moves_matrix, transition_matrix
from .units import Blocks, a_number, assigned, listed, patterns, there

__all__ = ["Flip", "Gibbs", "InTurn", "Independent", "Joint", "Metropolis"]

Step = Callable[[Tensor, torch.Generator], Tensor]

Units = slice | list[int]


@dataclass(frozen=True)
class Independent:
    """Units that are independent given the rest, drawn by their conditional probabilities."""

    conditional: Callable[[Tensor], Tensor]
    alphabet: tuple[int | float, int | float]

    def draw(self, x: Tensor, units: Units, rng: torch.Generator) -> Tensor:
        """x with these units drawn anew."""
        fresh = self._fresh(self._chance(x)[..., units], rng).to(x.dtype)
        x = x.clone()
        x[..., units] = fresh
        return x

    def draw_one(self, x: Tensor, order: list[Units], chosen: Int[Tensor, "..."], rng: torch.Generator) -> Tensor:
        """x with the units of one block drawn anew, in each chain those of the block that is chosen there."""
        names, owner = list(range(x.shape[-1])), [-1] * x.shape[-1]
        for number, units in enumerate(order):
            for unit in names[units] if isinstance(units, slice) else units:
                owner[unit] = number
        moves = chosen[..., None] == torch.tensor(owner, device=x.device)
        return torch.where(moves, self._fresh(self._chance(x), rng).to(x.dtype), x)

    def moves(self, x: Tensor, units: Units) -> tuple[Tensor, Tensor]:
        """Where x may go when these units are drawn, and with which probabilities."""
        chance = self._chance(x)[..., units]
        up = patterns(chance.shape[-1], x.device)[:, None]
        return assigned(x, units, self.alphabet), torch.where(up, chance, 1 - chance).prod(-1)

    def _chance(self, x: Tensor) -> Tensor:
        chance = self.conditional(x)
        a_number("a conditional probability", chance)
        return chance

    def _fresh(self, chance: Tensor, rng: torch.Generator) -> Tensor:
        lower, upper = self.alphabet
        return torch.where(uniform(tuple(chance.shape), rng, chance) < chance, upper, lower)


@dataclass(frozen=True)
class Joint:
    """Units of a block drawn together, by the energies of all patterns of the block."""

    energy: Callable[[Tensor], Tensor]
    alphabet: tuple[int | float, int | float]

    def draw(self, x: Tensor, units: Units, rng: torch.Generator) -> Tensor:
        """x with these units drawn anew."""
        ways, chance = self.moves(x, units)
        level = uniform(tuple(chance.shape[1:]), rng, chance)
        chosen = (level >= chance.cumsum(0)[:-1]).sum(0)
        return ways.gather(0, chosen[None, ..., None].expand(1, *x.shape))[0]

    def draw_one(self, x: Tensor, order: list[Units], chosen: Int[Tensor, "..."], rng: torch.Generator) -> Tensor:
        """x with the units of one block drawn anew, in each chain those of the block that is chosen there."""
        x = x.clone()
        for number, units in enumerate(order):
            here = chosen == number
            if here.any():
                x[here] = self.draw(x[here], units, rng)
        return x

    def moves(self, x: Tensor, units: Units) -> tuple[Tensor, Tensor]:
        """Where x may go when these units are drawn, and with which probabilities."""
        ways = assigned(x, units, self.alphabet)
        energy = self.energy(ways)
        a_number("an energy", energy)
        return ways, (-energy).softmax(0)


@dataclass(frozen=True)
class Gibbs:
    """Block after block, or one block by chance."""

    rule: Independent | Joint
    blocks: Blocks | None
    scan: str

    def __call__(self, x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        order = listed(self.blocks, x.shape[-1])
        if self.scan == "random":
            level = uniform(tuple(x.shape[:-1]), rng, x)
            return self.rule.draw_one(x, order, (level * len(order)).long().clamp(max=len(order) - 1), rng)
        for units in order:
            x = self.rule.draw(x, units, rng)
        return x

    def matrix(self, states: Float[Tensor, "N n"]) -> Float[Tensor, "N N"]:
        """T[i, j] = Pr(j → i) on the listed states."""
        order = listed(self.blocks, states.shape[-1])
        steps = [moves_matrix(states, *self.rule.moves(states, units)) for units in order]
        return torch.stack(steps).mean(0) if self.scan == "random" else chained(steps)


@dataclass(frozen=True)
class Metropolis:
    """Propose, then take or stay."""

    energy: Callable[[Tensor], Tensor]
    propose: Step
    log_proposal: Callable[[Tensor, Tensor], Tensor] | None

    def __call__(self, x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        other = self.propose(x, rng)
        taken = self.acceptance(x, other)
        taken = uniform(tuple(taken.shape), rng, taken) < taken
        return torch.where(taken[..., None], other, x)

    def acceptance(self, x: Tensor, other: Tensor) -> Tensor:
        """min(1, e^{E(x) − E(other)} q(x | other)/q(other | x))."""
        fall = self.energy(x) - self.energy(other)
        if self.log_proposal is not None:
            fall = fall + self.log_proposal(x, other) - self.log_proposal(other, x)
        a_number("a difference of energies", fall)
        return fall.exp().clamp(max=1)

    def matrix(self, states: Float[Tensor, "N n"]) -> Float[Tensor, "N N"]:
        """T[i, j] = Pr(j → i) on the listed states; the proposal must know its own matrix."""
        T = transition_matrix(self.propose, states).clone().fill_diagonal_(0)
        end, start = T.nonzero(as_tuple=True)
        T[end, start] *= self.acceptance(states[start], states[end])
        return T + torch.diag((1 - T.sum(0)).clamp(min=0))


@dataclass(frozen=True)
class Flip:
    """One unit takes its other value."""

    total: int | float
    unit: int | None

    def __call__(self, x: Float[Tensor, "*chains n"], rng: torch.Generator) -> Float[Tensor, "*chains n"]:
        n = x.shape[-1]
        if self.unit is None:
            level = uniform((*x.shape[:-1], 1), rng, x)
            chosen = (level * n).long().clamp(max=n - 1) == torch.arange(n, device=x.device)
        else:
            chosen = torch.arange(n, device=x.device) == there(self.unit, n)
        return torch.where(chosen, self.total - x, x)

    def matrix(self, states: Float[Tensor, "N n"]) -> Float[Tensor, "N N"]:
        """T[i, j] = Pr(j → i) on the listed states."""
        n = states.shape[-1]
        units = range(n) if self.unit is None else [there(self.unit, n)]
        one_up = torch.eye(n, dtype=torch.bool, device=states.device)[list(units), None]
        ends = torch.where(one_up, self.total - states, states)
        return moves_matrix(states, ends, states.new_full(ends.shape[:2], 1 / len(units)))


@dataclass(frozen=True)
class InTurn:
    """One kernel after another."""

    kernels: tuple[Step, ...]

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        for kernel in self.kernels:
            x = kernel(x, rng)
        return x

    def matrix(self, states: Tensor) -> Tensor:
        """T_last … T_first on the listed states."""
        return chained([transition_matrix(kernel, states) for kernel in self.kernels])
