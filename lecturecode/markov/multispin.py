"""Sixty-four Ising magnets in the bits of one word, with chance of their own: Metropolis on a periodic lattice.

    E(s) = −J Σ_⟨ij⟩ s_i s_j − b Σ_i s_i;   s_i ← −s_i with probability p = min(1, e^{−2 s_i (J Σ_j s_j + b)})

Bit k of word i is the spin of replica k at site i, 1 for up. How many of the four neighbours disagree with the site is
counted by adders that work on 64 replicas at a time, and p depends on this count (and on s_i where b ≠ 0).

The chance is a comparison, U < p, digit by digit in base two: U's digits are fair random bits, one word holds a digit
for each replica, and the first digit in which U and p differ decides. After k digits a replica is undecided with
probability 2^−k, so about eight words decide all 64 replicas, whatever p. One random number for all replicas, as
multispin programs often have it, makes them coalesce: replicas that meet never part again.
(Creutz, Jacobs & Rebbi 1979, for spins in the bits of words.)
"""

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from .lattice import Checkerboard
from .sites import check_spins, halves, joined, neighbours, refuse_odd, words

__all__ = ["Multispin", "multispin", "pack", "unpack"]

DIGITS = 64  # of p in base two: what is cut off is below 2^−64
STAGES = (6, 9, 12, 16, 20, 28, DIGITS)  # after these many digits the words that are decided are set aside


class Multispin:
    """The kernel that `multispin` makes: one sweep of words (…, rows · columns), 64 replicas each."""

    def __init__(self, rows: int, columns: int, coupling: float, field: float):
        refuse_odd(rows, columns, periodic=True)
        if rows < 2 or columns < 2:
            raise ValueError(f"a periodic lattice of {rows} × {columns}; both sides are even and at least 2")
        self.rows, self.columns, self.field = rows, columns, field
        self._one = Checkerboard(rows, columns, coupling, field, periodic=True, rule="metropolis")
        # (neighbours that disagree, s): the digits of p, or None where the flip is certain
        self._digits = {
            (apart, s): _digits(2 * (coupling * (4 - 2 * apart) + field * s)) for apart in range(5) for s in (-1, 1)
        }

    def __call__(self, x: Int[Tensor, "*words n"], rng: torch.Generator) -> Int[Tensor, "*words n"]:
        """One sweep, each site once. Raises: ValueError where x has another shape than (…, rows · columns)."""
        if x.ndim == 0 or x.numel() == 0 or x.shape[-1] != self.rows * self.columns:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; pass pack(spins), int64 of shape (…, {self.rows * self.columns})"
            )
        half = halves(x, self.rows, self.columns)
        for colour in (0, 1):
            half[colour] = half[colour] ^ self._flips(half[colour], half[1 - colour], colour, rng)
        return joined(*half).view(x.shape)

    def matrix(self, states: Float[Tensor, "two_to_n n"]) -> Float[Tensor, "two_to_n two_to_n"]:
        """T[i, j] = Pr(states[j] → states[i]) of one replica. Raises: ValueError as `Checkerboard.matrix`."""
        return self._one.matrix(states)

    def _flips(self, s: Tensor, other: Tensor, colour: int, rng: torch.Generator) -> Tensor:
        """A word for each site of the colour: which replicas flip there."""
        certain, classes = torch.zeros_like(s), []
        for (apart, up), mask in self._classes(s, other, colour).items():
            digits = self._digits[apart, up]
            if digits is None:
                certain |= mask
            else:
                classes.append((mask.view(-1), digits))
        return certain | _chance(classes, rng).view(s.shape) if classes else certain

    def _classes(self, s: Tensor, other: Tensor, colour: int) -> dict[tuple[int, int], Tensor]:
        """For each number of disagreeing neighbours (and each s, if there is a field) the replicas which have it."""
        a, b, c, d = (s ^ near for near in neighbours(other, colour, periodic=True))
        odd_ab, both_ab, odd_cd, both_cd = a ^ b, a & b, c ^ d, c & d
        ones, carry = odd_ab ^ odd_cd, odd_ab & odd_cd
        twos, fours = both_ab ^ both_cd ^ carry, both_ab & both_cd
        counts = [~(ones | twos | fours), ones & ~twos, twos & ~ones, ones & twos, fours]
        if self.field == 0:
            return {(apart, 1): mask for apart, mask in enumerate(counts)}
        return {(apart, up): mask & (s if up > 0 else ~s) for apart, mask in enumerate(counts) for up in (-1, 1)}


def multispin(rows: int, columns: int, coupling: float = 1.0, field: float = 0.0) -> Multispin:
    """Metropolis on a periodic lattice for 64 replicas a word: black, then white; β is inside coupling and field.

    Raises: ValueError where a side is odd or below 2, or a number is not finite.
    """
    return Multispin(rows, columns, coupling, field)


def pack(spins: Num[Tensor, "replicas n"]) -> Int[Tensor, "words n"]:
    """Spins ±1 of 64·w replicas as w words a site: replica 64w + k is bit k of word w.

    Raises: ValueError where the number of replicas is no multiple of 64, or a spin is not ±1.
    """
    if spins.ndim != 2 or len(spins) == 0 or len(spins) % 64:
        raise ValueError(f"spins has shape {tuple(spins.shape)}; pass (replicas, n), a multiple of 64 replicas")
    check_spins(spins, spins.shape[1])
    place = torch.arange(64, device=spins.device)[:, None]
    return ((spins > 0).long().view(-1, 64, spins.shape[1]) << place).sum(1)


def unpack(x: Int[Tensor, "words n"], dtype: torch.dtype = torch.float64) -> Num[Tensor, "replicas n"]:
    """The spins ±1 of all replicas: (64 · words, n)."""
    bits = (x[:, None] >> torch.arange(64, device=x.device)[:, None]) & 1
    return (2 * bits - 1).to(dtype).view(-1, x.shape[-1])


def _digits(cost: float) -> list[int] | None:
    """e^{−cost} in base two, after the point; None where the cost is not positive."""
    if cost <= 0:
        return None
    top, bottom = torch.tensor(-cost, dtype=torch.float64).exp().item().as_integer_ratio()
    number = top * 2**DIGITS // bottom
    return [(number >> (DIGITS - 1 - k)) & 1 for k in range(DIGITS)]


def _chance(classes: list[tuple[Tensor, list[int]]], rng: torch.Generator) -> Tensor:
    """Bits that are one with the probability of the class which their replica is in, each by its own random digits."""
    masks, digits = [mask for mask, _ in classes], list(zip(*(each for _, each in classes), strict=True))
    taken, where, begin = torch.zeros_like(masks[0]), None, 0
    for end in STAGES:
        undecided = _union(masks)
        of_p = {(1,) * len(masks): undecided.clone()}
        wins, same = torch.zeros_like(undecided), torch.empty_like(undecided)
        for digit in digits[begin:end]:
            if digit not in of_p:
                of_p[digit] = _union([mask for mask, one in zip(masks, digit, strict=True) if one] or [wins & 0])
            torch.bitwise_xor(of_p[digit], words(len(same), rng, same.device), out=same).bitwise_and_(undecided)
            wins |= undecided.bitwise_xor_(same).bitwise_and_(of_p[digit])  # U's digit is 0 and that of p is 1
            undecided, same = same, undecided
        if where is None:
            taken = wins
        else:
            taken[where] |= wins
        left = undecided.nonzero()[:, 0]
        if len(left) == 0:
            break
        where, begin = left if where is None else where[left], end
        masks = [(mask & undecided)[left] for mask in masks]
    return taken


def _union(masks: list[Tensor]) -> Tensor:
    total = torch.zeros_like(masks[0])
    for mask in masks:
        total |= mask
    return total
