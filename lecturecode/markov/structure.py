"""Who reaches whom: the communicating classes of a chain and its period, from the pattern of T alone.

    j → i             where T_ij > 0
    i ~ j             i reaches j and j reaches i: the communicating classes
    closed class      no arrow leaves it; every chain has at least one; states in no closed class are transient
    period            of a class: the greatest common divisor of the lengths of its cycles

Nothing is rounded here: an entry is an arrow if it is above zero, however small. Sets of states are the bits of
Python's integers, so that a search over n states costs about n²/64 operations. (Classes by two searches, after
Kosaraju, as in Sharir 1981; the period by the levels of one search, Denardo 1977.)
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["class_period", "classes", "closed", "reaching"]


def classes(T: Float[Tensor, "n n"]) -> list[list[int]]:
    """The communicating classes, each ascending, in the order of their least states."""
    if (T > 0).all():
        return [list(range(len(T)))]
    out, into = arrows(T.mT), arrows(T)
    left, finished = (1 << len(T)) - 1, []
    while left:
        path = [_lowest(left)]
        left &= left - 1
        while path:
            if onward := out[path[-1]] & left:
                path.append(_lowest(onward))
                left &= ~(1 << path[-1])
            else:
                finished.append(path.pop())
    left, found = (1 << len(T)) - 1, []
    for state in reversed(finished):
        if left >> state & 1:
            reached = _spread(1 << state, into, left)
            left &= ~reached
            found.append(list(_bits(reached)))
    return sorted(found)


def closed(T: Float[Tensor, "n n"], parts: list[list[int]]) -> list[list[int]]:
    """Those of the classes that no arrow leaves."""
    if len(parts) == 1:
        return parts
    label = torch.empty(len(T), dtype=torch.long)
    for number, states in enumerate(parts):
        label[states] = number
    label = label.to(T.device)
    leaving = ((T > 0) & (label[:, None] != label)).any(0)
    open_classes = set(label[leaving].tolist())
    return [states for number, states in enumerate(parts) if number not in open_classes]


def class_period(T: Float[Tensor, "n n"], states: list[int]) -> int:
    """The period of one class: an arrow from level k of a search to level l closes a cycle of length k + 1 − l."""
    out = arrows(T[states][:, states].mT)
    levels, left = [1], (1 << len(states)) - 2
    while left:
        onward = _union(out, levels[-1]) & left
        levels.append(onward)
        left &= ~onward
    level_of = {state: k for k, level in enumerate(levels) for state in _bits(level)}
    period = 0
    for k, level in enumerate(levels):
        ends = _union(out, level)
        while ends:
            there = level_of[_lowest(ends)]
            period = math.gcd(period, k + 1 - there)
            ends &= ~levels[there]
    return period


def reaching(T: Float[Tensor, "n n"], targets: list[int]) -> list[int]:
    """The states from which some path leads into `targets`, these among them."""
    start = sum(1 << state for state in set(targets))
    return list(_bits(_spread(start, arrows(T), (1 << len(T)) - 1)))


def arrows(T: Float[Tensor, "n n"]) -> list[int]:
    """For each row of T the set of columns with an entry above zero, as the bits of an integer."""
    n, width = len(T), -(-len(T) // 8)
    bits = torch.zeros(n, width * 8, dtype=torch.uint8, device=T.device)
    bits[:, :n] = T > 0
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=T.device)
    packed = bytes((bits.view(n, width, 8) * powers).sum(-1, dtype=torch.uint8).flatten().tolist())
    return [int.from_bytes(packed[row * width : (row + 1) * width], "little") for row in range(n)]


def _spread(start: int, onward: list[int], within: int) -> int:
    """All that is reached from the set `start` by arrows inside `within`."""
    reached = front = start & within
    while front:
        front = _union(onward, front) & within & ~reached
        reached |= front
    return reached


def _union(sets: list[int], members: int) -> int:
    union = 0
    for state in _bits(members):
        union |= sets[state]
    return union


def _bits(members: int) -> Iterator[int]:
    while members:
        yield _lowest(members)
        members &= members - 1


def _lowest(members: int) -> int:
    return (members & -members).bit_length() - 1
