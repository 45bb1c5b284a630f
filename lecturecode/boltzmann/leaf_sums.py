"""Sums over one leaf of a machine, by its three groups or, where it is small, by its table.

With P(a,b,c) = e^{log_scale(a)} X(a,c) W(c,b) Y(a,b)/Z and M = XW, all pair marginals are products with W:
    P_AB = Y∘M,   P_AC = X∘(YWᵀ),   P_CB = W∘(XᵀY)     (each row a times e^{log_scale(a)}/Z).
Three products give log Z and every ⟨s_i s_j⟩ in one pass. The sums over a row need no further table: X and Y are outer
products, so what is wanted of a row are sums against its factors.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from . import table
from .groups import Factors, Groups, outer
from .leaves import Leaf
from .ranks import joined, summed
from .states import Alphabet, log_weights, states

__all__ = ["log_sum", "moments", "row_sums"]

SPAN = {torch.float64: 600.0, torch.float32: 40.0}  # ℓ stands this far above the unit of the sums: room on both sides


def log_sum(leaf: Leaf, share: tuple[int, int] = (0, 1)) -> Float[Tensor, ""]:
    """log Σ e^{w} over the leaf."""
    if leaf.groups is None:
        return leaf.own + log_weights(leaf.couplings, leaf.biases, leaf.alphabet).logsumexp(0)
    total = torch.full_like(leaf.own, -torch.inf)
    for rows in row_sums(leaf.groups, leaf.dtype, share):
        total = torch.logaddexp(total, rows.logsumexp(0))
    return leaf.own + joined(total, share[1])


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
    s_b, s_c = (states(k, leaf.alphabet, wide, leaf.own.device) for k in (groups.k_b, groups.k_c))
    w = groups.w.to(leaf.dtype)
    m, q = w.new_empty(groups.rows, w.shape[1]), w.new_empty(groups.rows, w.shape[0])
    y, g = torch.empty_like(m), None
    top = groups.scale() - SPAN[leaf.dtype]
    of_a = leaf.own.new_zeros(k_a, n + 1)  # Σ_a a · (1, aᵀ, bᵀ, cᵀ), in units of e^top
    total = torch.zeros_like(leaf.own)
    for block in groups.blocks(leaf.dtype, share):
        unit = (block.log_scale - top).exp().to(leaf.dtype)[:, None]
        scaled = block.y[0] * unit, block.y[1]
        torch.mm(block.x, w, out=m)
        torch.mm(outer(*scaled, y), w.mT, out=q)
        g = block.x.mT @ y if g is None else g.addmm_(block.x.mT, y)
        b_sum, p_a = _mean_of_rows(scaled, m, leaf.alphabet, wide)
        c_sum, _ = _mean_of_rows(block.x_factors, q, leaf.alphabet, wide)
        a = block.values
        rest = torch.cat([p_a[:, None], p_a[:, None] * a, b_sum, c_sum], 1)
        of_a, total = of_a + a.mT @ rest, total + p_a.sum()
    total, of_a, g = summed([total, of_a, torch.zeros_like(w) if g is None else g], share[1])
    log_total, total = total.log(), total.clamp(min=torch.finfo(wide).tiny)
    p_cb = g.mul_(w).div_(total.to(leaf.dtype)).to(wide)
    of_rest = _two_groups(p_cb, s_b, s_c)
    of_a = of_a / total
    mean = torch.cat([of_a[:, 0], of_rest[0]])
    cross = of_a[:, 1 + k_a :]
    second = torch.cat([of_a[:, 1:], torch.cat([cross.mT, of_rest[1]], 1)])
    return leaf.own + top + log_total, mean, second


def _mean_of_rows(factors: Factors, m: Tensor, alphabet: Alphabet, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Σ_s Y(a,s) m(a,s) s for each row a, and the same without s, from the two factors of Y alone."""
    high, low = factors
    grid = m.view(*high.shape, low.shape[1])
    of_high = (high * torch.bmm(grid, low[:, :, None])[:, :, 0]).to(wide)
    of_low = (low * torch.bmm(high[:, None, :], grid)[:, 0, :]).to(wide)
    tables = [states(p.shape[1].bit_length() - 1, alphabet, wide, p.device) for p in (of_low, of_high)]
    return torch.cat([of_low @ tables[0], of_high @ tables[1]], 1), of_high.sum(1)


def _two_groups(p: Float[Tensor, "c b"], s_b: Tensor, s_c: Tensor) -> tuple[Tensor, Tensor]:
    """⟨s⟩ and ⟨ssᵀ⟩ of (b, c) with the joint probabilities p(c,b)."""
    p_b, p_c = p.sum(0), p.sum(1)
    cross = s_b.mT @ (p.mT @ s_c)
    top = torch.cat([s_b.mT @ (p_b[:, None] * s_b), cross], 1)
    bottom = torch.cat([cross.mT, s_c.mT @ (p_c[:, None] * s_c)], 1)
    return torch.cat([p_b @ s_b, p_c @ s_c]), torch.cat([top, bottom])
