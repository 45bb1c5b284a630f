"""The exact sum over two layers of bits that are coupled across and not within.

    Z = Σ_g e^{c·g} Π_i (1 + e^{a_i(g)}),   a = b + W g,   g in {0, 1}^q: the narrow layer, i = 1 … p: the wide one

Split g into two halves, a_i = a_i′(left) + a_i″(right), with u_i = exp a_i′ and v_i = exp a_i″. Three factors are one
inner product of eight terms,

    (1 + u₁v₁)(1 + u₂v₂)(1 + u₃v₃) = ⟨(1,u₁)⊗(1,u₂)⊗(1,u₃), (1,v₁)⊗(1,v₂)⊗(1,v₃)⟩,

so for a block of left halves against all right halves a group costs one thin matrix product F and one product entry by
entry. Each pair (1, u) is divided by max(1, u), so that no factor is above 2, and none below e^{−D_i} with

    D_i = max min(|a_i′|, |a_i″|) over halves with fields of opposite sign.

The logarithm is taken before Σ D_i reaches what the floating-point range allows; a unit with D_i beyond a third of it
is added as log(1 + e^a) by itself. The moments come from one pass more: with p the probabilities of a block, U ∘ (p/F)V
and V ∘ (p/F)ᵀU are the probabilities of left (right) half and group together, sums of positive terms throughout.

Memory stays constant. |Δ log Z| is below 1e-14 (float32, for MPS: 1e-6) of the largest |c·g| or Σ log(1 + e^a) in it.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..rng import uniform
from .states import BIT, rows_of_states, states

__all__ = ["Layers", "log_sum"]

TABLE = 2**24  # numbers in a table that is held at once
TILE, TILE_ON_A_GPU = 2**16, 2**22  # states in a block: the first fits in a core's cache
RIGHT = 10  # bits of the right half, at most


def log_sum(weights: Float[Tensor, "p q"], wide: Float[Tensor, " p"], narrow: Float[Tensor, " q"]) -> Float[Tensor, ""]:
    """log Z in the precision of its arguments, with the gradients E[x_i g_j], E[x_i] and E[g_j] by one more pass.

    Second derivatives go through the table of all fields, and are refused where it has more than 2^24 numbers.
    """
    return _LogSum.apply(weights, wide, narrow)  # type: ignore[return-value]


class _LogSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, wide: Tensor, narrow: Tensor) -> Tensor:
        log_z = Layers(weights, wide, narrow).row_sums().logsumexp(0)
        ctx.save_for_backward(weights, wide, narrow, log_z)
        return log_z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        *parameters, log_z = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for
            return tuple(grad * moment for moment in _moments_by_table(*parameters))
        return tuple(grad * moment for moment in Layers(*parameters).moments(log_z))


class Layers:
    """Σ_g e^{c·g} Π_i (1 + e^{a_i(g)}), laid out: rows are states of the left half of g, columns of the right."""

    def __init__(self, weights: Float[Tensor, "p q"], wide: Float[Tensor, " p"], narrow: Float[Tensor, " q"]):
        q, self.like = weights.shape[1], weights
        right = min(q // 2, RIGHT)
        self.rows, self.columns = 2 ** (q - right), 2**right
        self.rows_a_block = max(1, (TILE if weights.device.type == "cpu" else TILE_ON_A_GPU) // self.columns)
        reach = 600.0 if weights.dtype == torch.float64 else 60.0  # of 708 and 87: the rest is for other factors
        depth = _depth(weights[:, : q - right], wide, weights[:, q - right :])
        self.order = depth.argsort()
        self.easy = int((depth <= reach / 3).sum())
        self.groups = -(-self.easy // 3)
        self.runs = _runs(depth[self.order][: self.easy].tolist(), reach)
        self.left = weights[self.order, : q - right].mT.contiguous(), wide[self.order], narrow[: q - right]
        self.right = weights[self.order, q - right :].mT.contiguous(), torch.zeros_like(wide), narrow[q - right :]
        self.right_half = self._half(self._bits(torch.arange(self.columns, device=weights.device), right), *self.right)
        self.v = self.right_half[2].mT.contiguous()
        self.buffer = weights.new_empty(self.rows_a_block, self.columns)

    def row_sums(self) -> Float[Tensor, " rows"]:
        """For every left half the log of the sum over right halves; their logsumexp is log Z."""
        sums = self.like.new_empty(self.rows)  # made first: small tensors kept between large ones fragment the heap
        for rows in self._blocks():
            sums[rows] = self._block(rows)[0].logsumexp(1)
        return sums

    def moments(self, log_z: Float[Tensor, ""]) -> tuple[Tensor, Tensor, Tensor]:
        """E[x_i g_j], E[x_i] and E[g_j]."""
        p, on = len(self.order), torch.zeros_like(self.left[2])
        above, below = self.v.new_zeros(p, len(on) + 1), self.v.new_zeros(p, self.columns)
        held, together = self.v.new_zeros(self.columns), torch.zeros_like(self.v)
        for rows in self._blocks():
            total, (field, _, u, left) = self._block(rows)
            weight = total.sub_(log_z).exp_()
            share, buffer = torch.empty_like(u), self.buffer[: len(rows)]
            for g in range(self.groups):
                torch.div(weight, torch.mm(u[g], self.v[g], out=buffer), out=buffer)
                torch.mm(buffer, self.v[g].mT, out=share[g])
                together[g].addmm_(u[g].mT, buffer)
            parts = [_ones(share.mul_(u))[:, : self.easy]]
            for i in range(self.easy, p):
                one = weight * torch.sigmoid(field[:, i, None] + self.right_half[0][:, i])
                parts.append(one.sum(1)[:, None])
                below[i] += one.sum(0)
            left = torch.cat([left, torch.ones_like(left[:, :1])], 1)
            above += torch.cat(parts, 1).mT @ left
            on += weight.sum(1) @ left[:, :-1]
            held += weight.sum(0)
        below[: self.easy] = _ones(together.mul_(self.v).mT)[:, : self.easy].mT
        back = self.order.argsort()
        product = torch.cat([above[:, :-1], below @ self.right_half[3]], 1)[back]
        return product, above[back, -1], torch.cat([on, held @ self.right_half[3]])

    def sample(self, count: int, rng: torch.Generator) -> Float[Tensor, "count q"]:
        """Independent draws of g: its left half from the row sums, its right half from the weights in that row."""
        level = uniform((2, count), rng, self.like)
        rise = self.row_sums().softmax(0).cumsum(0)
        row = torch.searchsorted(rise, level[0] * rise[-1], right=True).clamp_(max=self.rows - 1)
        column, (kept, which) = torch.empty_like(row), row.unique(return_inverse=True)
        for start in range(0, len(kept), self.rows_a_block):
            rows = kept[start : start + self.rows_a_block]
            mine = (which >= start) & (which < start + len(rows))
            local = which[mine] - start
            rise = self._block(rows)[0].softmax(1).cumsum(1)  # then one rising vector, row r shifted by r
            rise = (rise / rise[:, -1:] + torch.arange(len(rows), device=row.device)[:, None]).flatten()
            found = torch.searchsorted(rise, level[1][mine] + local, right=True) - local * self.columns
            column[mine] = found.clamp_(0, self.columns - 1)
        return torch.cat([self._bits(row, len(self.left[2])), self._bits(column, len(self.right[2]))], 1)

    def _bits(self, numbers: Tensor, count: int) -> Tensor:
        return rows_of_states(numbers, count, BIT, self.like.dtype)

    def _blocks(self) -> tuple[Tensor, ...]:
        return torch.arange(self.rows, device=self.like.device).split(self.rows_a_block)

    def _half(
        self, bits: Tensor, weights: Tensor, bias: Tensor, narrow: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fields, log scales, the eight-term vectors of all groups (groups, states, 8), and the bits themselves."""
        field = bits @ weights + bias
        easy = torch.nn.functional.pad(field[:, : self.easy], (0, -self.easy % 3), value=-math.inf)
        top = easy.clamp(min=0)
        pairs = torch.stack([-top, easy - top], -1).exp_().view(len(bits), -1, 3, 2).transpose(0, 1)
        one, two, three = pairs.unbind(2)
        kron = one[..., :, None, None] * two[..., None, :, None] * three[..., None, None, :]
        return field, top.sum(1) + bits @ narrow, kron.reshape(self.groups, len(bits), 8), bits

    def _block(self, rows: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Log weights of some rows, (rows, columns), and their left half."""
        half = field, scale, u, _ = self._half(self._bits(rows, len(self.left[2])), *self.left)
        total, buffer = scale[:, None] + self.right_half[1], self.buffer[: len(rows)]
        for run in self.runs:
            product = u[run[0]] @ self.v[run[0]]
            for g in run[1:]:
                product.mul_(torch.mm(u[g], self.v[g], out=buffer))
            total += product.log_()
        for i in range(self.easy, len(self.order)):
            alone = field[:, i, None] + self.right_half[0][:, i]
            total += torch.logaddexp(torch.zeros_like(alone), alone)
        return total, half


def _moments_by_table(weights: Tensor, wide: Tensor, narrow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same moments in the plain way, as differentiable functions of the parameters."""
    p, q = weights.shape
    if p * 2**q > TABLE:
        raise ValueError(
            f"a second derivative of log Z holds a table of 2^{q} · {p} fields, and 2^24 are allowed; "
            "take first derivatives (without create_graph), or a smaller machine"
        )
    g = states(q, BIT, weights.dtype, weights.device)
    field = g @ weights.mT + wide
    weight = (g @ narrow + torch.logaddexp(torch.zeros_like(field), field).sum(1)).softmax(0)
    x = torch.sigmoid(field)
    return x.mT @ (weight[:, None] * g), weight @ x, weight @ g


def _ones(table: Tensor) -> Tensor:
    """(groups, states, 8) -> (states, 3·groups): of the eight configurations of three units, those with each at 1."""
    bits = torch.tensor([[(k >> s) & 1 for s in (2, 1, 0)] for k in range(8)], dtype=table.dtype, device=table.device)
    return (table @ bits).transpose(0, 1).flatten(1)


def _depth(left: Tensor, bias: Tensor, right: Tensor) -> Tensor:
    """D_i, from the exact ranges of both fields."""
    top, low = (bias + part for part in (left.clamp(min=0).sum(1), left.clamp(max=0).sum(1)))
    right_top, right_low = right.clamp(min=0).sum(1), right.clamp(max=0).sum(1)
    return torch.maximum(torch.minimum(top, -right_low), torch.minimum(-low, right_top)).clamp(min=0)


def _runs(depth: list[float], reach: float) -> list[list[int]]:
    """Groups whose product stays within e^{±reach}, in order."""
    runs, down, up = [], math.inf, 0.0
    for g in range(0, len(depth), 3):
        step, down_here = 3 * math.log(2), sum(depth[g : g + 3])
        if down + down_here > reach or up + step > reach:
            runs.append([])
            down = up = 0.0
        runs[-1].append(g // 3)
        down, up = down + down_here, up + step
    return runs
