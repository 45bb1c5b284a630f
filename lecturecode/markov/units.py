"""Units with two values each: alphabets, blocks, the patterns of a block, and what is said of them at the door.

A pattern of a block B is one assignment of lower or upper to each of its units: 2^|B| of them, bit i of a pattern's
number for the i-th unit named.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .. import checks

__all__ = ["Blocks", "a_number", "apart", "assigned", "ordered", "patterns"]

Blocks = Sequence[Sequence[int]]


def ordered(alphabet: Sequence[int | float]) -> tuple[int | float, int | float]:
    """(lower, upper). Raises: ValueError where the alphabet is anything else."""
    if len(alphabet) != 2 or not alphabet[0] < alphabet[1]:
        raise ValueError(f"alphabet is {alphabet}; give the two values of a unit as (lower, upper), such as (-1, 1)")
    return alphabet[0], alphabet[1]


def there(unit: int, n: int) -> int:
    """The unit itself. Raises: ValueError where x has no such unit."""
    if not 0 <= unit < n:
        raise ValueError(f"unit is {unit}, and x has the units 0 … {n - 1}")
    return unit


def apart(blocks: Blocks | None) -> None:
    """Raises: ValueError where a unit is named twice, or a block is empty, or there is none."""
    named = [unit for block in blocks or () for unit in block]
    if blocks is not None and (not named or not all(blocks) or len(set(named)) < len(named)):
        raise ValueError(f"blocks is {blocks}; name each unit once, such as [[0, 1], [2, 3]]")


def listed(blocks: Blocks | None, n: int) -> list[slice | list[int]]:
    """The units of each block, in order; without blocks one block a unit."""
    return [index(block, n) for block in ([[i] for i in range(n)] if blocks is None else blocks)]


def index(block: Sequence[int], n: int) -> slice | list[int]:
    """The units of a block as a slice if they follow each other: a list is copied to the device at each use."""
    first, last = there(min(block), n), there(max(block), n)
    return slice(first, last + 1) if list(block) == list(range(first, last + 1)) else list(block)


def patterns(count: int, device: torch.device) -> Bool[Tensor, "ways count"]:
    """Which of `count` units are up, in each of the 2^count ways."""
    return (torch.arange(2**count, device=device)[:, None] >> torch.arange(count, device=device)) & 1 == 1


def assigned(
    x: Float[Tensor, "*chains n"], units: slice | list[int], alphabet: tuple[int | float, int | float]
) -> Float[Tensor, "ways *chains n"]:
    """x with the units set to each of their patterns."""
    lower, upper = alphabet
    up = patterns(x[..., units].shape[-1], x.device)
    ways = x.expand(len(up), *x.shape).clone()
    values = torch.where(up, upper, lower).to(x.dtype)
    ways[..., units] = values.reshape(len(up), *[1] * (x.ndim - 1), -1)
    return ways


def a_number(name: str, values: Tensor) -> None:
    """Raises: ValueError where a value is NaN; looked at where that is free."""
    if checks.is_free(values) and values.sum().isnan() and values.isnan().any():  # the sum is cheap; ∞ − ∞ is no NaN
        where = tuple(values.isnan().nonzero()[0].tolist())
        raise ValueError(f"{name} is NaN in chain {list(where)}; check the weights and the states that were passed")
