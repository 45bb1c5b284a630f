"""The Ising magnet on a square lattice, one colour of the chequerboard after the other.

    E(s) = −Σ_⟨ij⟩ J_ij s_i s_j − Σ_i b_i s_i,   h_i = b_i + Σ_j J_ij s_j

A site has all its neighbours on the other colour. Given one colour, the sites of the other are independent, so they
are updated at once and the order among them does not matter:

    heat bath    s_i ← +1 with probability 1/(1 + e^{−2h_i})
    metropolis   s_i ← −s_i with probability min(1, e^{−2 s_i h_i})

Each half-step is reversible; the sweep, black then white, leaves e^{−E} invariant and is not. Site (r, c) is unit
r·columns + c. A periodic lattice with an odd side has no two colours. Along a periodic side of two sites the pair is
bound twice, and along a side of one site nothing is bound.

With one coupling and one field for all sites h takes few values. The probabilities then lie in a table, the colours in
half-lattices of int8, and a random word of 64 bits serves two sites (Isakov, Zintchenko, Rønnow & Troyer 2015).
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from ..rng import uniform
from .sites import Couplings, bonds, check_spins, codes, halves, joined, neighbours, refuse_odd, words

__all__ = ["Checkerboard", "checkerboard"]

RULES = ("heat bath", "metropolis")


class Checkerboard:
    """The kernel that `checkerboard` makes: called, one sweep of every chain; `matrix`, its exact matrix."""

    def __init__(self, rows: int, columns: int, coupling: Couplings, field: float | Tensor, periodic: bool, rule: str):
        if rule not in RULES:
            raise ValueError(f"rule is {rule!r}; there are {' and '.join(map(repr, RULES))}")
        self.pairs, self.couplings, self.fields = bonds(rows, columns, coupling, field, periodic)
        refuse_odd(rows, columns, periodic)
        self.rows, self.columns, self.periodic, self.rule = rows, columns, periodic, rule
        site = torch.arange(rows * columns, device=self.fields.device)
        self._colours = [site[(site // columns + site % columns) % 2 == colour] for colour in (0, 1)]
        self._table = None
        if isinstance(coupling, (int, float)) and isinstance(field, (int, float)) and rows % 2 == columns % 2 == 0:
            near = torch.arange(-4, 5, dtype=torch.float64) * coupling + field
            chance = torch.cat([self._upper(near, torch.full_like(near, s)) for s in (-1, 1)])
            self._table = ((chance * 2**32).round().clamp(max=2**32 - 1) - 2**31).to(torch.int32)

    def __call__(self, x: Num[Tensor, "*chains n"], rng: torch.Generator) -> Num[Tensor, "*chains n"]:
        """One sweep of every chain: each site once. Raises: ValueError where x is not (…, rows · columns) of ±1."""
        check_spins(x, len(self.fields))
        return self._by_sites(x, rng) if self._table is None else self._by_halves(x, self._table.to(x.device), rng)

    def matrix(self, states: Float[Tensor, "two_to_n n"]) -> Float[Tensor, "two_to_n two_to_n"]:
        """T[i, j] = Pr(states[j] → states[i]): a product over the sites of each colour, one after the other.

        Raises: ValueError where `states` does not hold all 2^n configurations once, or n > 12.
        """
        code = codes(states, len(self.fields), 12)
        T = torch.eye(len(code), dtype=torch.float64, device=code.device)
        for units in (colour.to(states.device) for colour in self._colours):
            s = states.to(torch.float64)
            up = self._upper(self._field(s, units), s[:, units])
            held = code & ~sum(1 << int(unit) for unit in units)
            half = (held[:, None] == held).to(torch.float64)
            for k, unit in enumerate(units):
                half *= torch.where(s[:, None, unit] > 0, up[:, k], 1 - up[:, k])
            T = half @ T
        return T

    def _upper(self, field: Tensor, s: Tensor) -> Tensor:
        """The probability of +1 after the update, given the local field and the value before."""
        if self.rule == "heat bath":
            return torch.sigmoid(2 * field)
        flips = (-2 * s * field).clamp(max=0).exp()
        return torch.where(s > 0, 1 - flips, flips)

    def _field(self, s: Tensor, units: Tensor) -> Tensor:
        """h of these units, from a table of neighbours made once for each device."""
        neighbour, weight = self._around
        weight, fields = weight.to(s.device, s.dtype), self.fields.to(s.device, s.dtype)
        return fields[units] + (s[..., neighbour[units].to(s.device)] * weight[units]).sum(-1)

    @property
    def _around(self) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "_neighbours"):
            n = len(self.fields)
            neighbour, weight, filled = torch.zeros(n, 4).long(), torch.zeros(n, 4).double(), [0] * n
            for (i, j), J in zip(self.pairs.mT.tolist(), self.couplings.tolist(), strict=True):
                for here, there in ((i, j), (j, i)):
                    neighbour[here, filled[here]], weight[here, filled[here]] = there, J
                    filled[here] += 1
            self._neighbours = neighbour, weight
        return self._neighbours

    def _by_sites(self, x: Tensor, rng: torch.Generator) -> Tensor:
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        s = x.to(exact, copy=True)
        for units in (colour.to(x.device) for colour in self._colours):
            up = self._upper(self._field(s, units), s[..., units])
            s[..., units] = torch.where(uniform(tuple(up.shape), rng, up) < up, 1.0, -1.0).to(exact)
        return s.to(x.dtype)

    def _by_halves(self, x: Tensor, table: Tensor, rng: torch.Generator) -> Tensor:
        half = halves(x.to(torch.int8), self.rows, self.columns)
        for colour in (0, 1):
            near = neighbours(half[1 - colour], colour, self.periodic)
            index = sum(near[1:], near[0]) + 4 + 9 * ((half[colour] + 1) >> 1)
            chance = table.index_select(0, index.flatten().int())
            level = words((chance.numel() + 1) // 2, rng, x.device).view(torch.int32)[: chance.numel()]
            half[colour] = ((level < chance).to(torch.int8) * 2 - 1).view(index.shape)
        return joined(*half).view(x.shape).to(x.dtype)


def checkerboard(
    rows: int,
    columns: int,
    coupling: Couplings = 1.0,
    field: float | Float[Tensor, "rows columns"] = 0.0,
    periodic: bool = False,
    rule: str = "heat bath",
) -> Checkerboard:
    """One sweep over black, then white; f = exp(Σ_⟨ij⟩ J s_i s_j + Σ_i b_i s_i), β being inside J and b.

    `coupling` is a number, or (horizontal, vertical): horizontal[r, c] binds (r, c) to (r, c + 1) and vertical[r, c]
    binds (r, c) to (r + 1, c). They are (rows, columns − 1) and (rows − 1, columns) with free edges, and both (rows,
    columns) on a periodic lattice. With numbers and even sides probabilities are rounded to multiples of 2^−32.

    Raises: ValueError where a periodic lattice has an odd side, a side is below 1, a number is not finite, tensors
    have other shapes, or the rule is another.
    """
    return Checkerboard(rows, columns, coupling, field, periodic, rule)
