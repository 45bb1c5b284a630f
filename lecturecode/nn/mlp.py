"""Multilayer perceptrons: x ↦ W_L a(W_{L−1} … a(W_1 x + c_1) …) + c_L.

Weights and biases start uniform in ±1/√(inputs), torch's own rule for a linear layer, but drawn from a given
generator: two calls with one seed make the same network.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

__all__ = ["linear", "mlp"]


def linear(inputs: int, outputs: int, rng: torch.Generator, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """x ↦ Wx + c with W and c uniform in ±1/√inputs, drawn from `rng`."""
    layer = nn.Linear(inputs, outputs, device="meta", dtype=dtype).to_empty(device="cpu")  # draws nothing itself
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            drawn = torch.rand(parameter.shape, generator=rng, device=rng.device, dtype=dtype)
            parameter.copy_((2 * drawn - 1) * bound)
    return layer


def mlp(
    widths: Sequence[int],
    rng: torch.Generator,
    activation: Callable[[], nn.Module] = nn.SiLU,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """Linear layers of the given widths with `activation` between them: mlp([64, 256, 16], rng) has two.

    Raises: ValueError where there are fewer than two widths or one is below one.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths is {list(widths)}; give at least an input and an output width, all above zero")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [linear(inputs, outputs, rng, dtype), activation()]
    return nn.Sequential(*layers[:-1])
