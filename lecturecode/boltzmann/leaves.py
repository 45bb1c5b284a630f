"""A certificate that no weight is lost, and the halving of a machine until each part has one.

All terms of the three-group product are at most e^ℓ, and what the arithmetic drops is at most e^{ℓ − R} each, with
R = 708 in float64 and 87 in float32 (e^{−R} is the smallest normal number). At most 2^n terms are dropped, so
    ℓ − log Z < R − n log 2 − log(1/δ)
keeps the relative error of Z from underflow below δ. A lower bound of log Z stands in for log Z: Jensen's, n log 2 +
the mean of w over all configurations, else the weight of a configuration found by ascent.

Where the certificate fails, the unit with the strongest couplings is held at each of its values: Z is the sum of the
two halves. A half whose every configuration weighs less than δ 2^{−n} of the bound is left out. Parts of few units are
summed as a table, where nothing underflows that counts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from .groups import Groups, largest
from .states import SPIN, Alphabet

__all__ = ["PLAIN", "Leaf", "leaves"]

PLAIN = 16  # units up to which a part is summed as a table
LOST = {torch.float64: 1e-14, torch.float32: 1e-8}  # δ
RANGE = {torch.float64: 708.0, torch.float32: 87.0}  # R


@dataclass(frozen=True)
class Leaf:
    """A part of the configurations: units `held` at `values`, the others free, and how to sum over these.

    `groups` is None where the part is small: then its table is made. `dtype` is the precision of the product.
    """

    couplings: Float[Tensor, "m m"]
    biases: Float[Tensor, " m"]
    alphabet: Alphabet
    own: Float[Tensor, ""]
    free: tuple[int, ...]
    held: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    groups: Groups | None = None
    dtype: torch.dtype = torch.float64

    def clamp(self, unit: int, value: int) -> "Leaf":
        """The half in which the free unit number `unit` has this value."""
        rest = [i for i in range(len(self.free)) if i != unit]
        return replace(
            self,
            couplings=self.couplings[rest][:, rest],
            biases=self.biases[rest] + value * self.couplings[rest, unit],
            own=self.own + value * self.biases[unit],
            free=tuple(self.free[i] for i in rest),
            held=(*self.held, self.free[unit]),
            values=(*self.values, value),
        )

    def grouped(self, keep: int = 0) -> Groups:
        """The three groups of its free units, those below number `keep` in A and B."""
        return Groups(self.couplings, self.biases, self.alphabet, sum(unit < keep for unit in self.free))

    def most(self) -> Float[Tensor, ""]:
        """An upper bound of every log-weight: each field and each pair at its best."""
        pairs = self.couplings.abs() if self.alphabet == SPIN else self.couplings.clamp(min=0)
        return self.own + largest(self.biases, self.alphabet).sum() + pairs.sum() / 2


def leaves(root: Leaf, dtype: torch.dtype, keep: int = 0) -> Iterator[Leaf]:
    """The parts of a machine, each with its certificate; one leaf, the root, where the couplings are moderate.

    The root is in the widest precision of the device, `dtype` is the product's; where float32 has too little range
    the product is made in the wide one. The units below number `keep` stay out of group C.
    """
    if len(root.free) <= PLAIN:
        yield root
        return
    wide, n = root.biases.dtype, len(root.free)
    groups = root.grouped(keep)
    highest, bound = float(groups.scale() + root.own), float(_jensen(root))
    for product in dict.fromkeys((dtype, wide)):
        if highest - bound < _room(n, product):
            yield replace(root, groups=groups, dtype=product)
            return
    del groups
    bound = max(bound, float(_ascent(root)))
    room, negligible = _room(n, wide), n * math.log(2) - math.log(LOST[wide])
    parts = [root]
    while parts:
        part = parts.pop()
        most = float(part.most())
        if most < bound - negligible:
            continue
        if len(part.free) <= PLAIN:
            yield part
            continue
        groups = part.grouped(keep)
        if float(groups.scale() + part.own) - bound < room:
            yield replace(part, groups=groups, dtype=wide)
        else:
            strongest = int(part.couplings.abs().sum(0).argmax())
            parts += [part.clamp(strongest, value) for value in part.alphabet]


def _room(n: int, dtype: torch.dtype) -> float:
    return RANGE[dtype] - n * math.log(2) + math.log(LOST[dtype])


def _jensen(part: Leaf) -> Tensor:
    """n log 2 + the mean of w, at most log Z by Jensen's inequality."""
    middle = sum(part.alphabet) / 2
    mean = middle * part.biases.sum() + middle**2 * part.couplings.sum() / 2
    return part.own + mean + len(part.free) * math.log(2)


def _ascent(part: Leaf) -> Tensor:
    """The weight of the best configuration that turning one unit at a time reaches, from 2n + 2 starts."""
    couplings, biases, (lower, upper) = part.couplings, part.biases, part.alphabet
    n = len(biases)
    turned = 1 - 2 * torch.eye(n, dtype=biases.dtype, device=biases.device)
    along = torch.where(biases > 0, turned.new_ones(n), -turned.new_ones(n))
    up = torch.cat([turned * along, turned, along[None], torch.ones_like(along)[None]]) > 0
    s = torch.where(up, upper, lower).to(biases.dtype)
    for _ in range(n):
        before = s.clone()
        for i in range(n):
            s[:, i] = torch.where(s @ couplings[:, i] + biases[i] > 0, upper, lower).to(s.dtype)
        if torch.equal(before, s):
            break
    return part.own + (((s @ couplings) * s).sum(-1) / 2 + s @ biases).max()
