"""Configurations of n two-valued units, and the table of their log-weights.

An alphabet is a pair (lower, upper): (−1, 1) for spins, (0, 1) for bits. Row r of a table is the configuration whose
unit i has the upper value where bit i of r is one. With J symmetric and its diagonal zero the log-weight of a row is
    w(s) = ½ sᵀJs + bᵀs.
Cut the units into a low and a high half: w is the sum of a part for each half and of s_highᵀ J s_low, so the whole
table is one thin product, and no 2^n × n table is built.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks

__all__ = ["BIT", "SPIN", "Alphabet", "check_input", "log_weights", "states"]

Alphabet = tuple[int, int]
SPIN: Alphabet = (-1, 1)
BIT: Alphabet = (0, 1)
TABLE = 24  # units up to which a table of 2^n numbers is made


def states(
    n: int, alphabet: Sequence[int] = SPIN, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Float[Tensor, "two_to_n n"]:
    """All 2^n configurations, one a row: unit i of row r has the upper value where bit i of r is one.

    Raises: ValueError where n < 0 or n > 24 (the table would have 2^n · n numbers), or the alphabet is another.
    """
    alphabet = check_alphabet(alphabet)
    if not 0 <= n <= TABLE:
        raise ValueError(
            f"a table of 2^{n} configurations; n from 0 to {TABLE} fits in memory, beyond it use a machine"
        )
    return rows_of_states(torch.arange(2**n, device=device), n, alphabet, dtype)


def log_weights(
    couplings: Float[Tensor, "n n"], biases: Float[Tensor, "*batch n"], alphabet: Alphabet
) -> Float[Tensor, "*batch two_to_n"]:
    """w(s) = ½ sᵀJs + bᵀs for every configuration, in the order of `states`; differentiable, for a batch of biases."""
    n, low = len(couplings), len(couplings) // 2
    s_low = states(low, alphabet, couplings.dtype, couplings.device)
    s_high = states(n - low, alphabet, couplings.dtype, couplings.device)
    own_low = ((s_low @ couplings[:low, :low]) * s_low).sum(-1) / 2 + biases[..., :low] @ s_low.mT
    own_high = ((s_high @ couplings[low:, low:]) * s_high).sum(-1) / 2 + biases[..., low:] @ s_high.mT
    batch, one = biases.shape[:-1], torch.ones_like
    left = [(s_high @ couplings[low:, :low]).expand(*batch, -1, -1), own_high[..., None], one(own_high[..., None])]
    right = [s_low.mT.expand(*batch, -1, -1), one(own_low[..., None, :]), own_low[..., None, :]]
    return (torch.cat(left, -1) @ torch.cat(right, -2)).flatten(-2)


def working_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device that has no float64 (MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def check_alphabet(alphabet: Sequence[int]) -> Alphabet:
    """SPIN or BIT itself, also for a list of the two values. Raises: ValueError where it is neither."""
    if tuple(alphabet) not in (SPIN, BIT):
        raise ValueError(f"the alphabet is {alphabet}; give SPIN = (-1, 1) or BIT = (0, 1)")
    return SPIN if tuple(alphabet) == SPIN else BIT


def check_units(name: str, s: Tensor, alphabet: Alphabet) -> None:
    """Raises ValueError where a value of s is not in the alphabet."""
    lower, upper = alphabet
    outside = (s != lower) & (s != upper)
    if outside.any():
        where = tuple(outside.nonzero()[0].tolist())
        cure = "pass 2 * s - 1" if alphabet == SPIN else "pass (s + 1) / 2"
        raise ValueError(
            f"{name}{list(where)} is {s[where].item():g}, and the units take {lower} and {upper}; "
            f"{cure}, or give the machine the other alphabet"
        )


def check_input(name: str, s: Tensor, width: int | None, alphabet: Alphabet, like: Tensor) -> None:
    """Raises ValueError where s is empty, of another width, dtype or device than `like`, or outside the alphabet."""
    if s.ndim == 0 or 0 in s.shape:
        raise ValueError(
            f"{name} has shape {tuple(s.shape)}; pass at least one configuration, its units on the last axis"
        )
    if width is not None and s.shape[-1] != width:
        raise ValueError(f"{name} has {s.shape[-1]} units on its last axis and the model {width}; reshape it")
    checks.same_device(**{name: s, "model": like})
    if s.dtype != like.dtype:
        raise ValueError(f"{name} is {s.dtype} and the model {like.dtype}; pass {name}.to({like.dtype})")
    if checks.is_free(s):
        check_units(name, s, alphabet)


def rows_of_states(numbers: Tensor, n: int, alphabet: Alphabet, dtype: torch.dtype) -> Float[Tensor, "rows n"]:
    """The configurations with these row numbers."""
    lower, upper = alphabet
    bits = (numbers[:, None] >> torch.arange(n, device=numbers.device)).bitwise_and_(1)
    return bits.to(dtype).mul_(upper - lower).add_(lower)
