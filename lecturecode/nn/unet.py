"""A small U-Net for square images that come and go as rows of side² numbers.

    down   block, then a 4×4 convolution with stride 2:             side → side/2, its input kept as a skip
    up     transposed convolution, the skip beside it, block:       side/2 → side
    block  x + C_2 silu((1 + s) ⊙ norm(C_1 silu(norm x)) + t),      (s, t) affine in the condition c

with 3×3 convolutions C and group norms, which know nothing of the rest of the batch (Wu & He 2018). Every skip meets
maps of its own size, so that no detail has to pass through the smallest map (Ronneberger, Fischer & Brox 2015; with
the noise level in every block: Ho, Jain & Abbeel 2020, appendix B). The last convolution starts as zero.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from .. import checks
from .conditional import zeroed
from .mlp import linear
from .time import LevelEmbedding

__all__ = ["UNet"]


class UNet(nn.Module):
    """net(x, level, labels) for images: UNet(8, [32, 64], rng, classes=10) goes 8 → 4 → 8, with 32 and 64 maps.

    One entry of `channels` for each size, so one halving less than entries.

    Raises: ValueError where channels is empty or has an entry below one, or side cannot be halved that often, or only
    down to one pixel, whose norm forgets it.
    """

    def __init__(
        self,
        side: int,
        channels: Sequence[int],
        rng: torch.Generator,
        classes: int = 0,
        condition: int = 64,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        halvings = len(channels) - 1
        if halvings < 0 or min(channels) < 1:
            raise ValueError(f"channels is {list(channels)}; give at least one width, all above zero")
        if side < 1 or side % 2**halvings:
            raise ValueError(f"side is {side}; with {halvings} halvings it must be a multiple of {2**halvings}")
        if side == 2**halvings:
            raise ValueError(
                f"side is {side} and {halvings} halvings leave one pixel, which a norm makes zero; give fewer channels"
            )
        self.side = side
        self.condition = LevelEmbedding(condition, rng, classes, dtype=dtype)
        self.first = _conv(1, channels[0], 3, rng, dtype)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.grow, self.up = nn.ModuleList(), nn.ModuleList()
        for a, b in pairwise(channels):
            self.down.append(_Block(a, a, condition, rng, dtype))
            self.shrink.append(_conv(a, b, 4, rng, dtype, stride=2))
        self.middle = _Block(channels[-1], channels[-1], condition, rng, dtype)
        for a, b in pairwise(reversed(channels)):
            self.grow.append(_conv(a, b, 4, rng, dtype, stride=2, transposed=True))
            self.up.append(_Block(2 * b, b, condition, rng, dtype))
        self.norm = _norm(channels[0], dtype)
        self.last = zeroed(_conv(channels[0], 1, 3, rng, dtype))

    def forward(
        self, x: Float[Tensor, "batch n"], level: Float[Tensor, " batch"], labels: Tensor | None = None
    ) -> Float[Tensor, "batch n"]:
        """One answer for each row. Raises ValueError where x or the labels do not fit."""
        checks.shape("x", x, (None, self.side**2))
        c = self.condition(level, labels)
        maps, skips = self.first(x.unflatten(1, (1, self.side, self.side))), []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            skips.append(block(maps, c))
            maps = shrink(skips[-1])
        maps = self.middle(maps, c)
        for grow, block in zip(self.grow, self.up, strict=True):
            maps = block(torch.cat([grow(maps), skips.pop()], 1), c)
        return self.last(silu(self.norm(maps))).flatten(1)


class _Block(nn.Module):
    """Two convolutions around which x goes straight on; scale and shift of the second norm are the condition's."""

    def __init__(self, inputs: int, outputs: int, condition: int, rng: torch.Generator, dtype: torch.dtype):
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs, dtype), _conv(inputs, outputs, 3, rng, dtype)
        self.norm2, self.conv2 = _norm(outputs, dtype), _conv(outputs, outputs, 3, rng, dtype)
        self.film = linear(condition, 2 * outputs, rng, dtype)
        self.straight = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1, rng, dtype)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.film(c)[..., None, None].chunk(2, 1)
        h = torch.addcmul(shift, 1 + scale, self.norm2(self.conv1(silu(self.norm1(x)))))
        return self.straight(x) + self.conv2(silu(h))


def _norm(channels: int, dtype: torch.dtype) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, channels), channels, dtype=dtype)


def _conv(
    inputs: int,
    outputs: int,
    size: int,
    rng: torch.Generator,
    dtype: torch.dtype,
    stride: int = 1,
    transposed: bool = False,
) -> nn.Module:
    """A convolution that keeps the side, or halves it, or doubles it, started in ±1/√(numbers that enter an output)."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    padding = (size - 1) // 2
    layer = kind(inputs, outputs, size, stride, padding, device="meta", dtype=dtype).to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs * size**2 / (stride**2 if transposed else 1))
    with torch.no_grad():
        for parameter in layer.parameters():
            drawn = torch.rand(parameter.shape, generator=rng, device=rng.device, dtype=dtype)
            parameter.copy_((2 * drawn - 1) * bound)
    return layer
