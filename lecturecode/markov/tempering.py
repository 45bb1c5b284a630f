"""Parallel tempering: replicas at several inverse temperatures that exchange their states.

    x = (x_1, …, x_K) ~ Π_k f_{β_k}(x_k)/Z_k                          K replicas of one system, β_1 < … < β_K
    neighbours k, l = k+1 swap with probability min(1, e^{−Δ})
    Δ = E_{β_l}(x_k) − E_{β_l}(x_l) − E_{β_k}(x_k) + E_{β_k}(x_l)     which for βE is (β_l − β_k)(E(x_k) − E(x_l))

The product is left invariant, hence so is each factor; the hot replicas cross the barriers and hand what they find to
the cold ones. One step: every replica by its own kernel, then the pairs (1,2), (3,4), …, then (2,3), (4,5), …
(Geyer 1991; Hukushima & Nemoto 1996; swaps of alternating pairs: Syed, Bouchard-Côté, Deligiannidis & Doucet 2022.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ..rng import uniform
from .exact import chained, locate, moves_matrix, transition_matrix
from .kernels import Kernel
from .units import a_number

__all__ = ["parallel_tempering"]


def parallel_tempering(
    energy: Callable[[Tensor, float], Tensor], kernel: Callable[[float], Kernel], betas: Sequence[int | float]
) -> Kernel:
    """The kernel that moves x of shape (…, K, n): replica k of each chain is at betas[k], so x[..., -1, :] is coldest.

    energy(x, beta) ↦ (…), E_β = −log f_β, and kernel(beta), which leaves f_β invariant: any path, as `ais` takes it.

    tempered = parallel_tempering(lambda x, beta: beta * machine.energy(x), kernel, [0.2, 0.5, 1.0])

    Raises: ValueError where fewer than two betas are given, they do not rise, one is negative or not finite, x has not
    one replica for each, or (on the CPU) an energy is NaN.
    """
    grid = [float(beta) for beta in betas]
    if len(grid) < 2:
        raise ValueError(f"betas has {len(grid)} values; give at least two, or use the kernel by itself")
    for k, beta in enumerate(grid):
        if not (math.isfinite(beta) and beta >= 0):
            raise ValueError(f"betas[{k}] is {beta:g}; give a finite inverse temperature, not negative")
    for k, (low, high) in enumerate(pairwise(grid), 1):
        if not low < high:
            raise ValueError(f"betas[{k}] is {high:g} after {low:g}; they must rise, the coldest replica last")
    return _Tempering(energy, tuple(kernel(beta) for beta in grid), tuple(grid))


@dataclass(frozen=True)
class _Tempering:
    energy: Callable[[Tensor, float], Tensor]
    kernels: tuple[Kernel, ...]
    betas: tuple[float, ...]

    def __call__(self, x: Float[Tensor, "*chains K n"], rng: torch.Generator) -> Float[Tensor, "*chains K n"]:
        self._fits(x)
        x = torch.stack([kernel(x[..., k, :], rng) for k, kernel in enumerate(self.kernels)], -2)
        for k in self._pairs():
            chance = self.swap_chance(x, k)
            taken = uniform(tuple(chance.shape), rng, chance) < chance
            x = torch.where(taken[..., None, None], self._swapped(x, k), x)
        return x

    def swap_chance(self, x: Float[Tensor, "*chains K n"], k: int) -> Float[Tensor, "*chains"]:
        """The probability with which the replicas k and k+1 exchange their states."""
        warm, cold, (low, high) = x[..., k, :], x[..., k + 1, :], self.betas[k : k + 2]
        fall = self.energy(cold, high) - self.energy(warm, high) + self.energy(warm, low) - self.energy(cold, low)
        a_number("a difference of energies", fall)
        return fall.exp().clamp(max=1)

    def matrix(self, states: Float[Tensor, "N K n"]) -> Float[Tensor, "N N"]:
        """T[i, j] = Pr(j → i) on the listed states of all replicas: every combination of the states of one."""
        self._fits(states)
        single = states.flatten(0, 1).unique(dim=0)
        T = states.new_ones(len(states), len(states))
        for k, kernel in enumerate(self.kernels):
            place = locate(single, states[:, k])
            T = T * transition_matrix(kernel, single)[place[:, None], place]
        steps = [T]
        for k in self._pairs():
            chance = self.swap_chance(states, k)
            ends = torch.stack([self._swapped(states, k), states])
            steps.append(moves_matrix(states, ends, torch.stack([chance, 1 - chance])))
        return chained(steps)

    def _pairs(self) -> list[int]:
        last = len(self.betas) - 1
        return [*range(0, last, 2), *range(1, last, 2)]

    def _swapped(self, x: Tensor, k: int) -> Tensor:
        order = list(range(len(self.betas)))
        order[k], order[k + 1] = order[k + 1], order[k]
        return torch.stack([x[..., i, :] for i in order], -2)

    def _fits(self, x: Tensor) -> None:
        if x.ndim < 2 or x.shape[-2] != len(self.betas):
            raise ValueError(
                f"x has shape {tuple(x.shape)}; its last two axes must be {len(self.betas)} replicas and the units, "
                "as those of x[:, None].repeat(1, K, 1)"
            )
