"""Sums over one leaf of a machine, by its three groups or, where it is small, by its table.

With P(a,b,c) = e^{log_scale(a)} X(a,c) W(c,b) Y(a,b)/Z and M = XW, all pair marginals are products with W:
    P_AB = Y∘M,   P_AC = X∘(YWᵀ),   P_CB = W∘(XᵀY)     (each row a times e^{log_scale(a)}/Z).
Three products give log Z and every ⟨s_i s_j⟩ in one pass. The sums are kept in units of the largest row so far.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from . import table
from .groups import Groups, outer
from .leaves import Leaf
from .ranks import joined
from .states import log_weights, states

__all__ = ["log_sum", "moments", "row_sums"]

SPAN = {torch.float64: 650.0, torch.float32: 60.0}  # a row's scale stands at most this far above the unit of the sums


def log_sum(leaf: Leaf, share: tuple[int, int] = (0, 1)) -> Float[Tensor, ""]:
    """log Σ e^{w} over the leaf."""
    if leaf.groups is None:
        return leaf.own + log_weights(leaf.couplings, leaf.biases, leaf.alphabet).logsumexp(0)
    total = torch.full_like(leaf.own, -torch.inf)
    for rows in row_sums(leaf.groups, leaf.dtype, share):
        total = torch.logaddexp(total, rows.logsumexp(0))
    top, (one,) = joined(total, [torch.ones_like(total)], share[1])
    return leaf.own + top + one.log()


def row_sums(groups: Groups, dtype: torch.dtype, share: tuple[int, int] = (0, 1)) -> Iterator[Tensor]:
    """log Σ_{b,c} e^{w(a,b,c)} for the rows a of each block."""
    w = groups.w.to(dtype)
    m = w.new_empty(groups.rows, w.shape[1])
    for block in groups.blocks(dtype, share):
        torch.mm(block.x, w, out=m)
        yield block.log_scale + block.over_b(m).to(block.log_scale.dtype).log()


def moments(leaf: Leaf, share: tuple[int, int] = (0, 1)) -> tuple[Tensor, Tensor, Tensor]:
    """log Σ e^{w}, ⟨s⟩ and ⟨ssᵀ⟩ over the leaf's free units."""
    if leaf.groups is None:
        w = log_weights(leaf.couplings, leaf.biases, leaf.alphabet)
        log_z = w.logsumexp(0)
        return leaf.own + log_z, *table.moments((w - log_z).exp(), len(leaf.free), leaf.alphabet)
    groups, wide = leaf.groups, leaf.own.dtype
    k_a, n = groups.k_a, len(leaf.free)
    s_b, s_c = (states(k, leaf.alphabet, leaf.dtype, leaf.own.device) for k in (groups.k_b, groups.k_c))
    w = groups.w.to(leaf.dtype)
    m, q = w.new_empty(groups.rows, w.shape[1]), w.new_empty(groups.rows, w.shape[0])
    y, g = torch.empty_like(m), None
    top = torch.full_like(leaf.own, -torch.inf)
    of_a = leaf.own.new_zeros(k_a, n + 1)  # Σ_a a · (1, aᵀ, bᵀ, cᵀ), in units of e^top
    total = torch.zeros_like(leaf.own)
    for block in groups.blocks(leaf.dtype, share):
        torch.mm(block.x, w, out=m)
        rows = block.over_b(m).to(wide)
        largest = torch.maximum((block.log_scale + rows.log()).max(), block.log_scale.max() - SPAN[leaf.dtype])
        before, top = top, torch.maximum(top, largest)
        shrink = torch.where(before == top, torch.ones_like(top), (before - top).exp())
        unit = (block.log_scale - top).exp()
        p_a = unit * rows
        outer(block.y[0] * unit.to(leaf.dtype)[:, None], block.y[1], y)
        torch.mm(y, w.mT, out=q)
        g = block.x.mT @ y if g is None else g.mul_(shrink.to(leaf.dtype)).addmm_(block.x.mT, y)
        a = block.values
        thin = a.mT.to(leaf.dtype)
        to_b, to_c = thin @ m.mul_(y) @ s_b, thin @ q.mul_(block.x) @ s_c
        weighted = p_a[:, None] * a
        of_a = of_a * shrink + torch.cat([weighted.sum(0)[:, None], a.mT @ weighted, to_b.to(wide), to_c.to(wide)], 1)
        total = total * shrink + p_a.sum()
    top, (total, of_a, g) = joined(top, [total, of_a, torch.zeros_like(w) if g is None else g], share[1])
    log_total, total = total.log(), total.clamp(min=torch.finfo(wide).tiny)
    p_cb = g.mul_(w).div_(total.to(leaf.dtype)).to(wide)
    of_rest = _two_groups(p_cb, s_b.to(wide), s_c.to(wide))
    of_a = of_a / total
    mean = torch.cat([of_a[:, 0], of_rest[0]])
    cross = of_a[:, 1 + k_a :]
    second = torch.cat([of_a[:, 1:], torch.cat([cross.mT, of_rest[1]], 1)])
    return leaf.own + top + log_total, mean, second


def _two_groups(p: Float[Tensor, "c b"], s_b: Tensor, s_c: Tensor) -> tuple[Tensor, Tensor]:
    """⟨s⟩ and ⟨ssᵀ⟩ of (b, c) with the joint probabilities p(c,b)."""
    p_b, p_c = p.sum(0), p.sum(1)
    cross = s_b.mT @ (p.mT @ s_c)
    top = torch.cat([s_b.mT @ (p_b[:, None] * s_b), cross], 1)
    bottom = torch.cat([cross.mT, s_c.mT @ (p_c[:, None] * s_c)], 1)
    return torch.cat([p_b @ s_b, p_c @ s_c]), torch.cat([top, bottom])
