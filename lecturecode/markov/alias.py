"""Draws from the columns of a matrix at constant cost each, and many chains that walk by them.

    n boxes, box k: threshold t_k, alias a_k.   u ~ U[0, 1):  k = ⌊nu⌋,  v = nu − k,  i = k if v < t_k else a_k
    Pr(i) = (1/n) [t_i + Σ_{k: a_k = i} (1 − t_k)] = p_i

Every p can be put into n boxes of equal size with at most two outcomes each: a box that p_k < 1/n does not fill is
filled up from an outcome that has more (Walker 1977). Here all columns are filled side by side, the light outcomes in
ascending order, so that what is left over at the end by rounding is nearly full. An outcome of probability 0 is never
drawn.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Tables", "tables", "walk"]

Tables = tuple[Tensor, Tensor]  # thresholds and aliases, each (n, n): row j serves column j of T
DRAWS = 2**16  # random numbers held at a time: they stay in the cache


def tables(T: Float[Tensor, "n n"]) -> Tables:
    """The boxes of each column of T, as the rows of two matrices."""
    n = len(T)
    filled, order = (T.detach().mT * (n / T.detach().sum(0))[:, None]).sort(1)
    columns = torch.arange(n, device=T.device)
    light = (filled < 1).sum(1)  # sorted: the light outcomes come first
    threshold, alias = (filled > 0).to(T.dtype), torch.full_like(order, n - 1)
    i, j = torch.zeros_like(light), light.clone()
    held = filled[columns, j.clamp(max=n - 1)]  # what the heavy outcome j still has
    for _ in range(n):
        open_boxes = (i < light) & (j < n)
        gives = open_boxes & (held >= 1)
        needs = open_boxes & ~gives
        least, heavy = i.clamp(max=n - 1), j.clamp(max=n - 1)
        after = (j + 1).clamp(max=n - 1)
        box = torch.where(gives, least, heavy)
        moved = gives | (needs & (j + 1 < n))
        content = torch.where(gives, filled[columns, least], held)
        threshold[columns, box] = torch.where(moved, content, threshold[columns, box])
        alias[columns, box] = torch.where(moved, torch.where(gives, heavy, after), alias[columns, box])
        held = held + torch.where(gives, filled[columns, least] - 1, 0.0)
        held = torch.where(needs, held + filled[columns, after] - 1, held)
        i, j = i + gives.long(), j + needs.long()
    home = order.argsort(1)
    return threshold.gather(1, home), order.gather(1, alias).gather(1, home)


def walk(
    boxes: Tables, start: Int[Tensor, "*chains"], steps: int, rng: torch.Generator
) -> Int[Tensor, "steps_and_one *chains"]:
    """The states of all chains at the times 0 … steps."""
    n, device = len(boxes[0]), start.device
    thresholds = boxes[0].flatten().to(torch.float32 if device.type == "mps" else torch.float64)
    aliases = boxes[1].flatten().int()  # 32-bit states: half the memory to move
    states = torch.empty(steps + 1, start.numel(), dtype=torch.int32, device=device)
    states[0] = start.flatten()
    at_once = max(1, DRAWS // max(1, start.numel()))
    kind = torch.float32 if rng.device.type == "mps" else torch.float64
    for first in range(0, steps, at_once):
        count = min(at_once, steps - first)
        level = torch.rand(count, start.numel(), generator=rng, device=rng.device, dtype=kind).mul_(n)
        box = level.int().clamp_(max=n - 1)
        part, box = level.sub_(box).to(thresholds.dtype).to(device), box.to(device)
        for t in range(count):
            at = torch.add(box[t], states[first + t], alpha=n)
            own = part[t] < thresholds.index_select(0, at)
            torch.where(own, box[t], aliases.index_select(0, at), out=states[first + t + 1])
    return states.long().view(steps + 1, *start.shape)
