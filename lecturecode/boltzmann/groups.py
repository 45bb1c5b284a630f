"""The three-group product: all 2^n configurations by one matrix product, in constant memory.

Split the units into A, B and C. Once the units of A have the values a, they act on B and on C by fields alone, so
    Z = Σ_a e^{w_A(a)} Σ_{b,c} e^{F_C(a)·c} W(c,b) e^{F_B(a)·b},   F_B(a) = J_BA a,   F_C(a) = J_CA a,
where W holds the weights of the machine of B and C alone. With X(a,c) = e^{F_C(a)·c} and Y(a,b) = e^{F_B(a)·b},
    Z = Σ_{a,b} e^{w_A(a)} Y(a,b) (XW)(a,b):
one multiply-add for each configuration and 2^|A|+|B|, 2^|A|+|C|, 2^|B|+|C| exponentials. The rows a are streamed in
blocks. (Williams 2005 for MAX-2-CSP; the exponentials of a row are an outer product of those of two halves.)

Scales keep all factors at most one: the largest entry is taken out of W, and out of each row of X and Y the exact
maxima r_C(a), r_B(a) of their exponents. What underflows is then below e^{ℓ − 708} in Z, where `scale` is
    ℓ = max_a [w_A(a) + r_C(a) + r_B(a)] + max w_BC.
(Williams 2005, section 4.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .states import Alphabet, log_weights, rows_of_states, states

__all__ = ["Block", "Groups"]

WIDTH = {"cuda": 13}  # most units in B and in C, from the cache: a product of 2^11 numbers a side is at full rate
ROWS = {"cuda": 2**13}  # of A in one block


Factors = tuple[Float[Tensor, "rows _"], Float[Tensor, "rows _"]]  # over the high and the low units of a group


@dataclass(frozen=True)
class Block:
    """Some rows a of A: their values, the log of what was taken out of them, X and its factors, and those of Y."""

    numbers: Int[Tensor, " rows"]
    values: Float[Tensor, "rows k_a"]
    log_scale: Float[Tensor, " rows"]
    fields: tuple[Float[Tensor, "rows k_b"], Float[Tensor, "rows k_c"]]
    x: Float[Tensor, "rows two_to_kc"]
    x_factors: Factors
    y: Factors

    def over_b(self, m: Float[Tensor, "rows two_to_kb"]) -> Float[Tensor, " rows"]:
        """Σ_b Y(a,b) m(a,b), without forming Y."""
        high, low = self.y
        inner = torch.bmm(m.view(*high.shape, low.shape[1]), low[:, :, None])[:, :, 0]
        return (inner * high).sum(1)


class Groups:
    """The split of one machine, units in the order given: A first, then B, then C. `w` is W, its largest entry one."""

    def __init__(self, couplings: Tensor, biases: Tensor, alphabet: Alphabet, keep: int = 0):
        n, device = len(biases), biases.device
        most = WIDTH.get(device.type, 11)
        self.k_c = min(most, n // 3, n - keep)
        self.k_b = min(most, (n - self.k_c) // 2)
        self.k_a = n - self.k_b - self.k_c
        self.alphabet, self.couplings, self.biases = alphabet, couplings, biases
        a = self.k_a
        log_w = log_weights(couplings[a:, a:], biases[a:], alphabet).view(2**self.k_c, 2**self.k_b)
        self.top = log_w.max()
        self.w = log_w.sub_(self.top).exp_()
        self.rows = min(ROWS.get(device.type, 2**10), 2**a)

    def scale(self) -> Float[Tensor, ""]:
        """ℓ: no configuration weighs more than e^ℓ."""
        starts = range(0, 2**self.k_a, self.rows)
        return torch.stack([self._of(self._numbers(start))[1].max() for start in starts]).max()

    def blocks(self, dtype: torch.dtype, share: tuple[int, int] = (0, 1)) -> Iterator[Block]:
        """The blocks of rows with number ≡ rank (mod ranks). Their X share one buffer: each is valid until the next."""
        rank, ranks = share
        buffer = self.biases.new_empty((self.rows, 2**self.k_c), dtype=dtype)
        for start in range(rank * self.rows, 2**self.k_a, ranks * self.rows):
            yield self.block(self._numbers(start), dtype, buffer)

    def block(self, numbers: Int[Tensor, " rows"], dtype: torch.dtype, buffer: Tensor | None = None) -> Block:
        """The block of any rows, by their numbers."""
        values, log_scale, of_b, of_c = self._of(numbers)
        high, low = self._factors(of_c, dtype)
        x = outer(high, low, buffer)
        return Block(numbers, values, log_scale, (of_b, of_c), x, (high, low), self._factors(of_b, dtype))

    def _numbers(self, start: int) -> Tensor:
        return torch.arange(start, start + self.rows, device=self.biases.device)

    def _of(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """a, the log of what is taken out of its row, F_B(a), F_C(a)."""
        k_a = self.k_a
        a = rows_of_states(numbers, k_a, self.alphabet, self.biases.dtype)
        own = ((a @ self.couplings[:k_a, :k_a]) * a).sum(-1) / 2 + a @ self.biases[:k_a]
        fields = a @ self.couplings[:k_a, k_a:]
        log_scale = own + largest(fields, self.alphabet).sum(-1) + self.top
        return a, log_scale, fields[:, : self.k_b], fields[:, self.k_b :]

    def _factors(self, fields: Tensor, dtype: torch.dtype) -> Factors:
        """exp(F·s − max) over all s as an outer product: its factors over the high and the low half of the units."""
        low = fields.shape[1] // 2
        high, low = (
            exponents(part, self.alphabet) - largest(part, self.alphabet).sum(-1, keepdim=True)
            for part in (fields[:, low:], fields[:, :low])
        )
        return high.to(dtype).exp_(), low.to(dtype).exp_()


def exponents(fields: Float[Tensor, "rows k"], alphabet: Alphabet) -> Float[Tensor, "rows two_to_k"]:
    """F·s for every s."""
    return fields @ states(fields.shape[1], alphabet, fields.dtype, fields.device).mT


def outer(high: Tensor, low: Tensor, buffer: Tensor | None = None) -> Float[Tensor, "rows two_to_k"]:
    """high ⊗ low, row by row: the index of `low` runs fastest."""
    grid = None if buffer is None else buffer.view(len(high), high.shape[1], low.shape[1])
    return torch.mul(high[:, :, None], low[:, None, :], out=grid).flatten(1)


def largest(fields: Tensor, alphabet: Alphabet) -> Tensor:
    """max over the two values s of F·s: the exact scale of each factor."""
    lower, upper = alphabet
    return torch.maximum(lower * fields, upper * fields)
