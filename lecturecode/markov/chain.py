"""A Markov chain on n states as one value: its matrix, and everything that the matrix decides.

T_ij = Pr(j → i) ≥ 0,   Σ_i T_ij = 1 for every j          columns sum to one
P(t) = T P(t′);   P(t_m) = T^m P(t_0);   T_m ⋯ T_1 P(t_0) where T changes with time
T P* = P*                                                 the stationary vector
T̃_ji = T_ij P_j / (T P)_i                                 one step back, by Bayes' rule
T = e^{Qt}                                                from rates Q_ij of j → i, columns summing to zero
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import checks
from . import alias, hitting, matrices, spectrum, structure
from .stationary import gth

__all__ = ["MarkovChain"]


@dataclass(frozen=True, eq=False)
class MarkovChain:
    """The chain with T[i, j] = Pr(j → i), float32 or float64, on the device of T.

    Raises: ValueError where T is not square, not finite, has a negative entry, or a column does not sum to one.
    """

    T: Tensor

    def __post_init__(self) -> None:
        matrices.check_matrix("T", self.T)

    @classmethod
    def from_rates(cls, Q: Tensor, time: int | float = 1.0) -> "MarkovChain":
        """T = e^{Qt}: the chain in continuous time with rates Q_ij of j → i, seen after `time`.

        Raises: ValueError where Q is not square or finite, a rate is negative, a column does not sum to zero, or
        time is negative or infinite.
        """
        matrices.check_rates(Q, time)
        return cls(matrices.exponential(Q, time))

    def evolve(self, p: Float[Tensor, "*batch n"], steps: int = 1) -> Float[Tensor, "*batch n"]:
        """T^steps p, for one vector or for each row of a batch; by products with p or by squaring T, the cheaper.

        Raises: ValueError where p is no probability vector along its last axis, has another length, dtype or device
        than T, or steps < 0.
        """
        matrices.check_distribution("p", p, self.T)
        if steps < 0:
            raise ValueError(f"steps is {steps}; a chain runs forward, backward runs .reverse(p)")
        T, n, rows = self.T, len(self.T), max(p[..., 0].numel(), 8)
        # One row moves n² numbers to use each once: 8 rows cost as much. A call costs as much as 50,000 products.
        if steps * (n * n * rows + 50_000) <= steps.bit_length() * (n**3 + 50_000):
            for _ in range(steps):
                p = p @ T.mT
        else:
            for power in range(steps.bit_length()):
                T = matrices.squared(T) if power else T
                p = p @ T.mT if steps >> power & 1 else p
        return p / p.sum(-1, keepdim=True) if steps > 1 else p  # T's columns sum to one up to rounding

    def stationary(self) -> Float[Tensor, " n"]:
        """P* with T P* = P*, each entry to a few units of its last digit; 0 in transient states. A copy.

        Raises: ValueError where there are several closed classes, and with them many stationary vectors.
        Source: Grassmann, Taksar & Heyman (1985), in blocks.
        """
        return self._stationary.clone()

    @cached_property
    def communicating_classes(self) -> list[list[int]]:
        """States that reach each other, in ascending order."""
        return structure.classes(self.T)

    @cached_property
    def closed_classes(self) -> list[list[int]]:
        """The communicating classes that are never left."""
        return structure.closed(self.T, self.communicating_classes)

    @property
    def is_irreducible(self) -> bool:
        """Whether each state reaches every other."""
        return len(self.communicating_classes) == 1

    @cached_property
    def period(self) -> int:
        """The least d for which T^{dm} converges as m grows: the least common multiple over the closed classes."""
        return math.lcm(*(structure.class_period(self.T, states) for states in self.closed_classes))

    def is_reversible(self, p: Tensor | None = None, tolerance: float | None = None) -> bool:
        """Detailed balance, T_ij p_j = T_ji p_i for all pairs, each relative to its larger side; p is P* by default.

        Raises: ValueError as `stationary` without p, and as `evolve` with it.
        """
        tolerance = matrices.TOLERANCE[self.T.dtype] if tolerance is None else tolerance
        return spectrum.balanced(self.T, self._or_stationary(p), tolerance)

    def reverse(self, p: Tensor | None = None) -> "MarkovChain":
        """T̃[j, i] = Pr(the state was j before the step | it is i after it), when it was drawn from p (default: P*).

        Raises: ValueError where a state has probability 0 after the step, or p is not a distribution that fits.
        """
        p = self._or_stationary(p)
        joint = (self.T * p).mT  # [j, i]
        after = joint.sum(0)
        if not (after > 0).all():
            state = int((after <= 0).nonzero()[0])
            raise ValueError(
                f"state {state} has probability 0 after the step, so Bayes' rule gives it no past; leave it out of T"
            )
        return MarkovChain(joint / after)

    @cached_property
    def spectral_gap(self) -> Float[Tensor, ""]:
        """1 − max |μ_k| over the eigenvalues μ_k ≠ 1, to about 1e-16 absolute where T is reversible; 1 if n = 1."""
        if self.is_irreducible and self.is_reversible():
            return spectrum.gap(self.T, self._stationary, 1)
        return spectrum.gap(self.T, None, len(self.closed_classes))

    def mixing_time(self, delta: float = 0.25) -> int:
        """The least t with TV(T^t p, P*) ≤ delta for every start p, by doubling; exact, for any chain that converges.

        Raises: ValueError where no limit is shared by all starts, delta is not between 0 and 1, or below T's digits.
        """
        _check_delta(delta, 1)
        if self.period > 1:
            raise ValueError(f"the chain has period {self.period}, so it never mixes; use (T + 1)/2, its lazy form")
        return spectrum.mixing_time(self.T, self._stationary, delta)

    def mixing_time_bounds(self, delta: float = 0.25) -> tuple[float, float]:
        """(1/γ − 1) log(1/2δ) and log(1/(δ min P*))/γ: t_mix(δ) of a reversible chain lies between.

        The upper one is to be rounded up.

        Raises: ValueError where the chain is not irreducible, aperiodic and reversible, or delta is not below ½.
        Source: Levin, Peres & Wilmer (2017), theorems 12.4 and 12.5.
        """
        _check_delta(delta, 0.5)
        if not (self.is_irreducible and self.period == 1 and self.is_reversible()):
            raise ValueError("the bounds hold for irreducible, aperiodic and reversible chains only; use mixing_time")
        return spectrum.mixing_time_bounds(float(self.spectral_gap), self._stationary, delta)

    def hitting_probabilities(self, targets: Sequence[int]) -> Float[Tensor, " n"]:
        """For each start the probability of ever entering `targets`. Raises: ValueError where T has no such state."""
        return hitting.hitting_probabilities(self.T, self._states(targets))

    def hitting_times(self, targets: Sequence[int]) -> Float[Tensor, " n"]:
        """For each start the mean number of steps to `targets`, ∞ where it may miss. Raises: ValueError, the same."""
        return hitting.hitting_times(self.T, self._states(targets))

    def absorption_probabilities(self) -> Float[Tensor, "classes n"]:
        """[c, j]: the probability that a chain from j ends in the closed class c. Columns sum to one."""
        return hitting.absorption(self.T)

    def sample(self, start: Int[Tensor, "*chains"], steps: int, rng: torch.Generator) -> Int[Tensor, "time *chains"]:
        """The states at the times 0 … steps of chains that start as told, all at once, by alias tables.

        Raises: ValueError where a start is no state, start is on another device than T, or steps < 0.
        """
        checks.same_device(T=self.T, start=start)
        if steps < 0:
            raise ValueError(f"steps is {steps}; give a number of steps from 0 on")
        if checks.is_free(start) and start.numel() and not 0 <= start.min() <= start.max() < len(self.T):
            raise ValueError(f"start has states from {start.min()} to {start.max()}; T has 0 … {len(self.T) - 1}")
        return alias.walk(self._tables, start.long(), steps, rng)

    @cached_property
    def _tables(self) -> alias.Tables:
        return alias.tables(self.T)

    @cached_property
    def _stationary(self) -> Tensor:
        if len(self.closed_classes) > 1:
            names = ", ".join("{" + ", ".join(map(str, states)) + "}" for states in self.closed_classes)
            raise ValueError(
                f"the chain has {len(self.closed_classes)} closed classes, {names}, each with a stationary vector of "
                "its own; pass the part of T that belongs to one, T[c][:, c]"
            )
        (states,) = self.closed_classes
        if len(states) == len(self.T):
            return gth(self.T)
        p = self.T.new_zeros(len(self.T))
        p[states] = gth(self.T[states][:, states])
        return p

    def _or_stationary(self, p: Tensor | None) -> Tensor:
        if p is None:
            return self._stationary
        matrices.check_distribution("p", p, self.T)
        if p.ndim != 1:
            raise ValueError(f"p has shape {tuple(p.shape)}; give one distribution, {len(self.T)} numbers")
        return p

    def _states(self, targets: Sequence[int]) -> list[int]:
        n = len(self.T)
        if not targets or not all(0 <= state < n for state in targets):
            raise ValueError(f"targets is {list(targets)}; name at least one of the states 0 … {n - 1}")
        return sorted(set(targets))


def _check_delta(delta: float, most: int | float) -> None:
    if not 0 < delta < most:
        raise ValueError(f"delta is {delta}; give a distance between 0 and {most:g}")
