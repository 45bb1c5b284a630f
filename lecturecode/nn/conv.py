"""Convolutional networks for square images, 8×8 or 28×28 for instance, which come and go as rows of side² numbers.

    down   4×4 convolution with stride 2 and padding 1:              side → side/2
    up     its adjoint, the transposed convolution of that shape:    side → 2·side

so an encoder with two widths goes 28 → 14 → 7 and a decoder back. Kernel 4 is a multiple of stride 2: each pixel is
reached by equally many weights, and no checkerboard is built in (Odena, Dumoulin & Olah 2016). Weights and biases start
uniform in ±1/√(numbers that enter one output), drawn from a given generator.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from .mlp import linear

__all__ = ["conv_decoder", "conv_encoder"]


def conv_encoder(
    side: int,
    channels: Sequence[int],
    outputs: int,
    rng: torch.Generator,
    activation: Callable[[], nn.Module] = nn.SiLU,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Rows of side² numbers ↦ `outputs` numbers: one halving for each entry of `channels`, then a linear layer.

    Encoder(conv_encoder(8, [16, 32], 2 * m, rng)) goes 8 → 4 → 2.

    Raises: ValueError where side is no multiple of 2 to the number of halvings, or a width is below one.
    """
    small = _small(side, channels, outputs)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, side, side))]
    for a, b in pairwise([1, *channels]):
        layer = nn.Conv2d(a, b, 4, stride=2, padding=1, device="meta", dtype=dtype).to_empty(device="cpu")
        layers += [_start(layer, 16 * a, rng), activation()]
    return nn.Sequential(*layers, nn.Flatten(), linear(channels[-1] * small**2, outputs, rng, dtype))


def conv_decoder(
    inputs: int,
    channels: Sequence[int],
    side: int,
    rng: torch.Generator,
    maps: int = 1,
    activation: Callable[[], nn.Module] = nn.SiLU,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """`inputs` numbers ↦ rows of maps·side² numbers: a linear layer, then one doubling for each entry of `channels`.

    Decoder(conv_decoder(m, [32, 16], 8, rng), Bernoulli()) goes 2 → 4 → 8. With maps=2 the row holds two whole images
    one after the other, as `PixelGaussian` takes them.

    Raises: ValueError where side is no multiple of 2 to the number of doublings, or a width is below one.
    """
    small = _small(side, channels, inputs, maps)
    first = linear(inputs, channels[0] * small**2, rng, dtype)
    layers: list[nn.Module] = [first, nn.Unflatten(1, (channels[0], small, small))]
    for a, b in pairwise([*channels, maps]):
        layer = nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, device="meta", dtype=dtype).to_empty(device="cpu")
        layers += [activation(), _start(layer, 4 * a, rng)]  # 2×2 of the 4×4 weights reach a pixel
    return nn.Sequential(*layers, nn.Flatten())


def _start(layer: nn.Module, inputs: int, rng: torch.Generator) -> nn.Module:
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            drawn = torch.rand(parameter.shape, generator=rng, device=rng.device, dtype=parameter.dtype)
            parameter.copy_((2 * drawn - 1) * bound)
    return layer


def _small(side: int, channels: Sequence[int], *others: int) -> int:
    if not channels or min(*channels, *others, 1) < 1:
        raise ValueError(f"channels is {list(channels)} beside {list(others)}; give at least one, all above zero")
    if side < 1 or side % 2 ** len(channels):
        raise ValueError(f"side is {side}; with {len(channels)} halvings it must be a multiple of {2 ** len(channels)}")
    return side // 2 ** len(channels)
