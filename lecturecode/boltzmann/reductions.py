"""What else can be read off the three-group product: marginals, the spread of the energy, exact draws.

Marginals are reductions of P_AB = Y∘M when the wanted units stand first. A draw takes a from the row sums, then b from
P(b|a) ∝ Y(a,b) M(a,b), then c from P(c|a,b) ∝ X(a,c) W(c,b). For the variance of w = y(a,b) + x(a,c) + t(c,b), with
each part measured from its own mean,
    Σ_c X W w²  =  y² M + 2y [(X∘x)W + X(W∘t)] + (X∘x²)W + 2(X∘x)(W∘t) + X(W∘t²):
six products, whose terms are all of the size of the fluctuations.
"""

import math
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from .. import rng as randomness
from . import leaf_sums, table
from .enumeration import LIMIT, check_sum, parts
from .groups import exponents, outer
from .leaves import PLAIN, RANGE, Leaf
from .ranks import share, summed
from .states import Alphabet, log_weights, rows_of_states

__all__ = ["log_weight_moments", "marginal", "sample"]

AT_ONCE = 2**20  # numbers in one row block of draws


def marginal(
    couplings: Tensor, biases: Tensor, alphabet: Alphabet, units: list[int], limit: int = LIMIT
) -> Float[Tensor, " two_to_k"]:
    """The distribution of `units`, bit i of the row number being units[i]. Raises: ValueError where n > limit."""
    check_sum(couplings, biases, limit)
    order = units + [i for i in range(len(biases)) if i not in set(units)]
    k = len(units)
    mirrored, found = parts(couplings[order][:, order], biases[order], alphabet, keep=k)
    p = reduce(torch.logaddexp, (_log_marginal(leaf, k) for leaf in found)).softmax(0)
    return ((p + p.flip(0)) / 2 if mirrored else p).to(biases.dtype)


def _log_marginal(leaf: Leaf, k: int) -> Float[Tensor, " two_to_k"]:
    """log of the leaf's weight for each value of the units 0 … k−1, of which some may be held."""
    wanted = [unit for unit in leaf.free if unit < k]
    free = len(wanted)
    if leaf.groups is None:
        grid = log_weights(leaf.couplings, leaf.biases, leaf.alphabet).view(-1, 2**free).logsumexp(0)
    else:
        groups, wide = leaf.groups, leaf.own.dtype
        w = groups.w.to(leaf.dtype)
        of_a, of_b = min(free, groups.k_a), max(0, free - groups.k_a)
        grid = leaf.own.new_full((2**of_b, 2**of_a), -torch.inf)
        for number, block in enumerate(groups.blocks(leaf.dtype)):
            p = (block.x @ w).mul_(outer(*block.y)).view(groups.rows, -1, 2**of_b).sum(1)
            log_p = block.log_scale + p.to(wide).log().mT  # (2^of_b, rows)
            start = number * groups.rows % 2**of_a
            if groups.rows > 2**of_a:
                log_p = log_p.view(2**of_b, -1, 2**of_a).logsumexp(1)
            columns = slice(start, start + log_p.shape[1])
            grid[:, columns] = torch.logaddexp(grid[:, columns], log_p)
    if free == k:
        return grid.flatten() + leaf.own
    at: list[slice | int] = [slice(None)] * k  # axis j is unit k − 1 − j
    for unit, value in zip(leaf.held, leaf.values, strict=True):
        if unit < k:
            at[k - 1 - unit] = int(value == max(leaf.alphabet))
    whole = grid.new_full([2] * k, -torch.inf)
    whole[tuple(at)] = (grid + leaf.own).view([2] * free)
    return whole.flatten()


def log_weight_moments(
    couplings: Tensor, biases: Tensor, alphabet: Alphabet, limit: int = LIMIT
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """log Z, ⟨w⟩ and Var(w). Raises: ValueError where n > limit."""
    check_sum(couplings, biases, limit)
    ranks = share(couplings, biases) if len(biases) > PLAIN else (0, 1)
    mirrored, found = parts(couplings, biases, alphabet)
    rows = []
    for leaf in found:
        if leaf.groups is None:
            log_z, mean, variance = table.log_weight_moments(log_weights(leaf.couplings, leaf.biases, leaf.alphabet))
            rows.append(torch.stack([log_z + leaf.own, mean + leaf.own, variance]))
        else:
            rows.append(torch.stack(_spread(leaf, ranks)))
    log_z, mean, variance = torch.stack(rows).unbind(1)
    total = log_z.logsumexp(0)
    weights = (log_z - total).exp()
    there = weights > 0  # the others' averages are of nothing
    mean, variance = torch.where(there, mean, 0.0), torch.where(there, variance, 0.0)
    middle = weights @ mean
    twice = math.log(2) if mirrored else 0.0
    results = total + twice, middle, weights @ (variance + (mean - middle).square())
    return tuple(x.to(biases.dtype) for x in results)  # type: ignore[return-value]


def _spread(leaf: Leaf, ranks: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """log Z, ⟨w⟩ and Var(w) of one leaf."""
    wide = leaf.own.dtype
    log_z, s, ss = leaf_sums.moments(leaf, ranks)
    groups = leaf.grouped()  # W anew: its logarithms are wanted too
    k_a = groups.k_a
    energy = leaf.couplings * ss
    cut = k_a + groups.k_b
    mean_x = energy[:k_a, cut:].sum()
    mean_t = energy[k_a:, k_a:].sum() / 2 + leaf.biases[k_a:] @ s[k_a:]
    mean = energy.sum() / 2 + leaf.biases @ s
    w = groups.w.to(leaf.dtype)
    t = log_weights(leaf.couplings[k_a:, k_a:], leaf.biases[k_a:], leaf.alphabet).view(w.shape) - mean_t
    wt = w * t.to(leaf.dtype)
    wtt = wt * t.to(leaf.dtype)
    variance = torch.zeros_like(leaf.own)
    for block in groups.blocks(leaf.dtype, ranks):
        a = block.values
        own = ((a @ leaf.couplings[:k_a, :k_a]) * a).sum(-1) / 2 + a @ leaf.biases[:k_a]
        x = (exponents(block.fields[1], leaf.alphabet) - mean_x).to(leaf.dtype)
        y = (own[:, None] + exponents(block.fields[0], leaf.alphabet) - (mean - mean_x - mean_t)).to(leaf.dtype)
        xx = block.x * x
        m = (xx * x) @ w + 2 * (xx @ wt) + block.x @ wtt
        m += 2 * y * (xx @ w + block.x @ wt) + y.square() * (block.x @ w)
        # log Z is −∞ where all is lost
        unit = (block.log_scale + leaf.own - log_z).clamp(max=RANGE[leaf.dtype] - 8).exp()
        variance = variance + (unit * block.over_b(m).to(wide)).sum()
    return log_z, mean + leaf.own, summed([variance], ranks[1])[0]


def sample(
    couplings: Tensor, biases: Tensor, alphabet: Alphabet, count: int, rng: torch.Generator, limit: int = LIMIT
) -> Float[Tensor, "count n"]:
    """`count` independent draws. Raises: ValueError where n > limit."""
    check_sum(couplings, biases, limit)
    mirrored, found = parts(couplings, biases, alphabet)
    out, log_z, leaf = biases.new_empty(count, len(biases)), [], None
    for leaf in found:
        log_z.append(leaf_sums.log_sum(leaf))
    alone = [leaf] if leaf and len(log_z) == 1 else None  # several are made anew: together they may not fit in memory
    which = torch.zeros(count, dtype=torch.int64)
    if not alone:
        which = table.draw_rows(torch.stack(log_z).softmax(0), count, rng)
    for number, leaf in enumerate(alone or parts(couplings, biases, alphabet)[1]):
        rows = (which == number).nonzero()[:, 0].to(out.device)
        if len(rows):
            s = out.new_empty(len(rows), len(biases))
            s[:, list(leaf.free)] = _draw(leaf, len(rows), rng).to(out.dtype)
            s[:, list(leaf.held)] = s.new_tensor(leaf.values)
            out[rows] = s
    if mirrored:
        out *= torch.where(randomness.uniform((count, 1), rng, out) < 0.5, 1.0, -1.0).to(out.dtype)
    return out


def _draw(leaf: Leaf, count: int, rng: torch.Generator) -> Float[Tensor, "count m"]:
    """Draws of the leaf's free units."""
    if leaf.groups is None:
        p = log_weights(leaf.couplings, leaf.biases, leaf.alphabet).softmax(0)
        return rows_of_states(table.draw_rows(p, count, rng), len(leaf.free), leaf.alphabet, p.dtype)
    groups, wide = leaf.groups, leaf.own.dtype
    w = groups.w.to(leaf.dtype)
    log_rows = torch.cat(list(leaf_sums.row_sums(groups, leaf.dtype)))
    a = table.draw_rows(log_rows.softmax(0), count, rng)
    drawn = []
    for some in a.split(max(1, AT_ONCE // max(w.shape))):
        block = groups.block(some, leaf.dtype)
        b = _pick((block.x @ w).mul_(outer(*block.y)).to(wide), rng)
        c = _pick((block.x * w.mT[b]).to(wide), rng)
        pieces = [(some, groups.k_a), (b, groups.k_b), (c, groups.k_c)]
        drawn.append(torch.cat([rows_of_states(rows, k, leaf.alphabet, wide) for rows, k in pieces], 1))
    return torch.cat(drawn)


def _pick(weights: Float[Tensor, "rows k"], rng: torch.Generator) -> Tensor:
    """One column of each row, with probability proportional to its weight."""
    cumulative = weights.cumsum(1)
    level = randomness.uniform((len(weights), 1), rng, weights) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, level, right=True)[:, 0].clamp(max=weights.shape[1] - 1)
