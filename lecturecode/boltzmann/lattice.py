"""log Z of a planar Ising magnet whose bonds and fields are all different: row by row, block by block.

    Z = Σ_s exp(Σ_{r,c} b_rc s_rc + Σ_{r,c} H_rc s_rc s_{r,c+1} + Σ_{r,c} K_rc s_rc s_{r+1,c})

A row of L sites has 2^L states. Let w_r(s) be the sum over all rows before r, row r being in state s. Then
    w_{r+1}(t) = exp(e_{r+1}(t)) Σ_s ∏_c exp(K_rc t_c s_c) w_r(s),   e_r(t) = Σ_c b_rc t_c + Σ_c H_rc t_c t_{c+1},
and Z = Σ_s w_R(s). The product over c is a Kronecker product, so it is applied to k ≈ 5 sites at a time: a matrix of
2^k × 2^k, which also holds b and H of its own sites, times w_r with the other sites as columns. A bond between two
blocks is a factor of its two sites. In all R·L·2^(L+k)/k multiplications, for any couplings.

Rows are kept as logarithms; within a row w_r is divided by its largest entry. What underflow can lose there is below
64·2^L times the smallest normal number, so it is below rounding if every entry that comes out is above 1/eps times
that. If one is not (couplings of about 10 and more), the row is done again one site at a time in logarithms, where
nothing underflows. Both ways are differentiable: ∂log Z/∂b_rc = ⟨s_rc⟩, ∂log Z/∂H_rc = ⟨s_rc s_{r,c+1}⟩. The backward
pass keeps the rows and computes the inside of each again.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import checks

__all__ = ["lattice_log_partition", "torus_log_partition"]

BLOCK = 6  # sites in a block, at most


def lattice_log_partition(
    horizontal: Float[Tensor, "rows bonds"],
    vertical: Float[Tensor, "gaps columns"],
    fields: Float[Tensor, "rows columns"],
    cylinder: bool = False,
    limit: int = 24,
) -> Float[Tensor, ""]:
    """log Z of spins ±1 on a lattice, with any couplings and fields (β is inside them), differentiable in all three.

    horizontal[r, c] couples (r, c) to (r, c + 1), vertical[r, c] couples (r, c) to (r + 1, c). Free boundaries have
    columns − 1 horizontal bonds a row; with `cylinder` there are `columns`, the last of which closes the row to a ring
    (two sites are then bound twice). The cost is 2^L a row, L being the narrower side. A cylinder is cut across its
    rings, at L = columns, or along them where 2·rows is less. Relative error about 1e-15 in float64 and 1e-6 in
    float32, couplings of 1000 included.

    Raises: ValueError where shapes, dtypes or devices do not fit, a value is not finite, or L is above `limit`.
    """
    rows, columns = _size(fields)
    if cylinder and columns < 2:
        raise ValueError("a ring of 1 site would be bound to itself; pass at least 2 columns, or cylinder=False")
    _check(horizontal, vertical, fields, (rows, columns if cylinder else columns - 1), (rows - 1, columns))
    return _narrower(horizontal, vertical, fields, limit)


def torus_log_partition(
    horizontal: Float[Tensor, "rows columns"],
    vertical: Float[Tensor, "rows columns"],
    fields: Float[Tensor, "rows columns"],
    limit: int = 24,
) -> Float[Tensor, ""]:
    """log Z with both sides closed: horizontal[r, −1] and vertical[−1, c] bind the last site to the first.

    The trace of a product of row matrices: 2^(2L) states in place of 2^L, so L ≤ 12. Otherwise as
    `lattice_log_partition`. Where a side has two sites, they are bound twice.

    Raises: ValueError as `lattice_log_partition`.
    """
    rows, columns = _size(fields)
    if min(rows, columns) < 2:
        raise ValueError(f"a torus of {rows} × {columns} binds a site to itself; pass at least 2 × 2")
    _check(horizontal, vertical, fields, (rows, columns), (rows, columns))
    return _narrower(horizontal, vertical, fields, limit)


def _size(fields: Tensor) -> tuple[int, int]:
    checks.shape("fields", fields, (None, None))
    return fields.shape[0], fields.shape[1]


def _check(horizontal: Tensor, vertical: Tensor, fields: Tensor, *bonds: tuple[int, int]) -> None:
    given = {"horizontal": horizontal, "vertical": vertical, "fields": fields}
    checks.same_device(**given)
    for (name, x), wanted in zip(given.items(), (*bonds, tuple(fields.shape)), strict=True):
        if tuple(x.shape) != wanted:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}, not {wanted}, for fields of shape {tuple(fields.shape)}; "
                "one bond for each pair of neighbours"
            )
        if x.dtype != fields.dtype:
            raise ValueError(f"{name} is {x.dtype} and fields is {fields.dtype}; convert one: {name}.to(fields)")
        checks.finite(name, x)


def _narrower(horizontal: Tensor, vertical: Tensor, fields: Tensor, limit: int) -> Tensor:
    """The lattice or its transpose, whichever has fewer boundary states. A side that closes doubles their exponent."""
    ways = [(horizontal, vertical, fields), (vertical.mT, horizontal.mT, fields.mT)]
    sizes = [f.shape[1] * (2 if down.shape[0] == f.shape[0] else 1) for _, down, f in ways]
    if min(sizes) > limit:
        raise ValueError(
            f"cannot sum over a lattice of {fields.shape[0]} × {fields.shape[1]}: its boundary has 2^{min(sizes)} "
            f"states; at most 2^{limit} are allowed here (limit=…); make one side narrower, or sample instead "
            "(lecturecode.markov)"
        )
    return _transfer(*ways[0 if sizes[0] <= sizes[1] else 1])


def _transfer(bonds: Tensor, down: Tensor, fields: Tensor) -> Tensor:
    """Row by row. `bonds` is as wide as `fields` if rows are rings, `down` as high if the last row meets the first."""
    (rows, sites), closed = fields.shape, down.shape[0] == fields.shape[0]
    if closed:  # one column for each state of the last row, which stands before the first
        s = _spins(sites, fields)
        weights = _row_weights(bonds[0], fields[0])[:, None] + (s * down[-1]) @ s.mT
    else:
        weights = _row_weights(bonds[0], fields[0])[:, None]
    blocks = _Blocks(bonds[1:], down[: rows - 1], fields[1:])
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (bonds, down, fields))
    for r in range(rows - 1):
        row = (weights, bonds[r + 1], down[r], fields[r + 1], *blocks.row(r))
        weights = checkpoint(_step, *row, use_reentrant=False, preserve_rng_state=False) if keep else _step(*row)
    return (weights.diagonal() if closed else weights).flatten().logsumexp(0)


class _Blocks:
    """For every row at once: the matrix of each block of sites and the factor of each bond between blocks."""

    def __init__(self, bonds: Tensor, down: Tensor, fields: Tensor):
        sites = fields.shape[1]
        count = -(-sites // BLOCK)
        ends = [round(j * sites / count) for j in range(count + 1)]
        self.matrices, self.scale = [], fields.new_zeros(len(fields))
        for a, b in pairwise(ends):
            s = _spins(b - a, fields)
            own = fields[:, a:b] @ s.mT + bonds[:, a : b - 1] @ (s[:, :-1] * s[:, 1:]).mT
            self._append(self.matrices, own[:, :, None] + (s * down[:, None, a:b]) @ s.mT)
        self.factors: list[Tensor] = []  # of the bonds that leave a block; the last one closes a ring
        pair = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).to(fields)
        for c in [b - 1 for b in ends[1:] if b <= bonds.shape[1]]:
            self._append(self.factors, bonds[:, c, None, None] * pair)

    def _append(self, to: list[Tensor], exponent: Tensor) -> None:
        largest = exponent.detach().amax((1, 2))
        to.append((exponent - largest[:, None, None]).exp())
        self.scale = self.scale + largest

    def row(self, r: int) -> tuple[Tensor, ...]:
        """Scale, matrices, factors of the step from row r to row r + 1."""
        return self.scale[r], *(m[r] for m in self.matrices), *(f[r] for f in self.factors)


def _step(weights: Tensor, bonds: Tensor, down: Tensor, fields: Tensor, scale: Tensor, *parts: Tensor) -> Tensor:
    """log w_{r+1} from log w_r, both (2^L, columns): in blocks if nothing underflows, else site by site."""
    count, largest = -(-len(fields) // BLOCK), weights.detach().max()
    matrices, factors = parts[:count], parts[count:]
    y = (weights - largest).exp().mT
    for j in reversed(range(count)):  # the block that comes last leaves as the first axis: after all, order is restored
        y = matrices[j] @ y.reshape(-1, len(matrices[j])).mT
        if j < count - 1:
            y = y.view(len(matrices[j]) // 2, 2, 2, -1) * factors[j][:, :, None]
    if len(factors) == count:
        y = y.reshape(2, -1, 2, weights.shape[1]) * factors[-1][:, None, :, None]
    limits = torch.finfo(y.dtype)
    if y.min() > 64 * limits.tiny / limits.eps * len(weights):
        return y.reshape(weights.shape).log() + (largest + scale)
    s = _spins(1, fields)[:, 0]
    for c in range(len(fields)):
        old = weights.reshape(1 << c, 2, 1, -1)
        lower, upper = (old[:, i] + (down[c] * s * s[i])[:, None] for i in (0, 1))
        weights = torch.logaddexp(lower, upper)
    return weights.reshape(1 << len(fields), -1) + _row_weights(bonds, fields)[:, None]


def _row_weights(bonds: Tensor, fields: Tensor) -> Tensor:
    """e(t) = Σ_c b_c t_c + Σ_c H_c t_c t_{c+1}, for the 2^L states of a row, the first site being the slowest."""
    s = _spins(1, fields)[:, 0]
    e = fields[0] * s
    for c in range(1, len(fields)):
        e = (e.view(-1, 2, 1) + (bonds[c - 1] * s[:, None] + fields[c]) * s).flatten()
    if len(bonds) == len(fields):
        e = (e.view(2, -1, 2) + bonds[-1] * s[:, None, None] * s).flatten()
    return e


def _spins(sites: int, like: Tensor) -> Tensor:
    """(2^sites, sites), the first site being the slowest."""
    number = torch.arange(1 << sites, device=like.device)
    shifts = torch.arange(sites - 1, -1, -1, device=like.device)
    return (2 * (number[:, None] >> shifts & 1) - 1).to(like.dtype)
