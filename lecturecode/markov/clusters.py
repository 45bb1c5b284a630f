"""Swendsen and Wang's cluster step for the Ising magnet on a square lattice.

    E(s) = −Σ_⟨ij⟩ J_ij s_i s_j − Σ_i b_i s_i

    bonds given spins   ω_ij = 1 with probability 1 − e^{−2|J_ij|} if J_ij s_i s_j > 0, else 0
    spins given bonds   each cluster C of the graph ω flips as a whole with probability 1/(1 + e^{2 Σ_{i∈C} b_i s_i})

Both are exact conditionals of one joint distribution of (s, ω) whose marginal over s is e^{−E}/Z. So the step leaves
e^{−E} invariant, and it is reversible: Σ_ω P(s′|ω) P(ω|s) P(s) = Σ_ω P(s′|ω) P(s|ω) P(ω) does not change when s and s′
are exchanged. J may have any signs and b any values; with fields or frustration the step is right, but no longer fast.
(Swendsen & Wang 1987; Edwards & Sokal 1988.)
"""

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from .. import checks
from ..rng import uniform
from .sites import Couplings, bonds, check_spins, codes

__all__ = ["SwendsenWang", "components", "swendsen_wang"]

CHUNK = 4096  # graphs of bonds that `matrix` looks at together


class SwendsenWang:
    """The kernel that `swendsen_wang` makes: called, one step of every chain; `matrix`, its exact matrix."""

    def __init__(self, rows: int, columns: int, coupling: Couplings, field: float | Tensor, periodic: bool):
        self.pairs, self.couplings, self.fields = bonds(rows, columns, coupling, field, periodic)
        self._chance = -torch.expm1(-2 * self.couplings.abs())

    def __call__(self, x: Num[Tensor, "*chains n"], rng: torch.Generator) -> Num[Tensor, "*chains n"]:
        """One step of every chain. Raises: ValueError where x is not (…, rows · columns) of ±1."""
        check_spins(x, len(self.fields))
        kind = torch.float32 if x.device.type == "mps" else torch.float64
        s = x.reshape(-1, x.shape[-1])
        first, second = pairs = self.pairs.to(x.device)
        chance, sign = self._chance.to(x.device, kind), self.couplings.sign().to(x.device, s.dtype)
        level = uniform((len(s), len(chance)), rng, chance)
        label = components((s[:, first] * s[:, second] == sign) & (level < chance), pairs, s.shape[1])
        own = self.fields.to(x.device, kind)
        push = torch.zeros_like(own.expand(len(s), -1)).scatter_add_(1, label, own * s.to(kind))
        flips = uniform(tuple(push.shape), rng, push) < torch.sigmoid(-2 * push)
        return torch.where(flips.gather(1, label), -s, s).view(x.shape)

    def matrix(self, states: Float[Tensor, "two_to_n n"]) -> Float[Tensor, "two_to_n two_to_n"]:
        """T[i, j] = Pr(states[j] → states[i]): a sum over all graphs of bonds and all signs of their clusters.

        Raises: ValueError where `states` does not hold all 2^n configurations once, or n > 10.
        """
        n = len(self.fields)
        code, s = codes(states, n, 10), states.to(torch.float64)
        checks.same_device(states=states, field=self.fields)
        partitions, weights = self._partitions(s)
        site, number = (torch.arange(k, device=s.device) for k in (n, len(code)))
        row = torch.empty_like(code).scatter_(0, code, number)
        T = torch.zeros(len(code), len(code), dtype=torch.float64, device=s.device)
        for label, weight in zip(partitions, weights, strict=True):
            member = (label == label.unique()[:, None]).long()  # (clusters, n)
            turned = (number[: 2 ** len(member), None] >> site[: len(member)]) & 1
            stays = torch.sigmoid(2 * member.double() @ (self.fields * s).mT)  # (clusters, states)
            share = weight.expand(len(turned), -1).clone()
            for k, chance in enumerate(stays):
                share *= torch.where(turned[:, k, None] > 0, 1 - chance, chance)
            mask = turned @ (member << site).sum(1)
            T.view(-1).index_add_(0, (row[code ^ mask[:, None]] * len(code) + number).view(-1), share.view(-1))
        return T

    def _partitions(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Labels of every partition into clusters, and its probability given each state (partitions, states)."""
        count, n = self.pairs.shape[1], len(self.fields)
        satisfied = s[:, self.pairs[0]] * s[:, self.pairs[1]] == self.couplings.sign()
        found: dict[tuple[int, ...], Tensor] = {}
        bond = torch.arange(count, device=s.device)
        for numbers in torch.arange(2**count, device=s.device).split(CHUNK):
            graph = (numbers[:, None] >> bond) & 1
            weight = s.new_ones(len(graph), len(s))
            for k, chance in enumerate(self._chance):
                on = graph[:, k, None] > 0
                weight *= torch.where(satisfied[:, k], torch.where(on, chance, 1 - chance), (~on).double())
            label, place = components(graph > 0, self.pairs, n).unique(dim=0, return_inverse=True)
            sums = s.new_zeros(len(label), len(s)).index_add_(0, place, weight)
            for key, value in zip(map(tuple, label.tolist()), sums, strict=True):
                found[key] = found[key] + value if key in found else value
        return torch.tensor(list(found), device=s.device), torch.stack(list(found.values()))


def swendsen_wang(
    rows: int,
    columns: int,
    coupling: Couplings = 1.0,
    field: float | Float[Tensor, "rows columns"] = 0.0,
    periodic: bool = False,
) -> SwendsenWang:
    """Clusters of aligned neighbours flip at once; f = exp(Σ_⟨ij⟩ J s_i s_j + Σ_i b_i s_i), β being inside J and b.

    `coupling` is a number or (horizontal, vertical), as `checkerboard` takes it; odd periodic sides are allowed.

    Raises: ValueError where a side is below 1, a number is not finite, or tensors have other shapes.
    Source: Swendsen & Wang (1987); with fields and signs by the joint distribution of Edwards & Sokal (1988).
    """
    return SwendsenWang(rows, columns, coupling, field, periodic)


def components(on: Bool[Tensor, "graphs bonds"], pairs: Int[Tensor, "2 bonds"], n: int) -> Int[Tensor, "graphs n"]:
    """For each graph and site the smallest site that its bonds connect it with.

    All graphs at once: every root with a lower root across a bond is hung below it, paths are halved until each site
    points at its root, and bonds inside a component are dropped; O(log n) rounds (after Shiloach & Vishkin 1982).
    """
    parent = torch.arange(on.shape[0] * n, device=on.device)
    graph, bond = on.nonzero(as_tuple=True)
    first, second = pairs[0][bond] + graph * n, pairs[1][bond] + graph * n
    while len(first):
        low, high = torch.minimum(parent[first], parent[second]), torch.maximum(parent[first], parent[second])
        parent.scatter_reduce_(0, high, low, "amin")
        while not torch.equal(above := parent[parent], parent):
            parent = above
        across = parent[first] != parent[second]
        first, second = first[across], second[across]
    return parent.view(-1, n) - torch.arange(on.shape[0], device=on.device)[:, None] * n
