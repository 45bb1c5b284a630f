"""A multilayer perceptron that is told a noise level and, if it has classes, a label.

    c   = silu(A ψ(λ) + e_label)
    h_1 = W_0 x + b_0,    h_{i+1} = h_i + silu((1 + s_i) ⊙ W_i h_i + t_i),    (s_i, t_i) = B_i c + d_i
    y   = W h_{L+1} + b,  with W = b = 0 at the start

Scale and shift of each layer depend on the condition c (FiLM: Perez, Strub, de Vries, Dumoulin & Courville 2018,
eq. 2), and the answer starts as zero, so that the first step of training sees the target itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import checks
from .mlp import linear
from .time import LevelEmbedding

__all__ = ["ConditionalMLP", "zeroed"]


def zeroed(layer: nn.Module) -> nn.Module:
    """The same layer with all its parameters set to zero."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer


class ConditionalMLP(nn.Module):
    """net(x, level, labels): rows of `inputs` numbers and their condition ↦ rows of as many numbers.

    ConditionalMLP(64, 256, rng, layers=2, classes=10)

    Raises: ValueError where a width or the number of layers is below one.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        rng: torch.Generator,
        layers: int = 2,
        classes: int = 0,
        condition: int = 64,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if min(inputs, width, layers) < 1:
            raise ValueError(f"inputs is {inputs}, width {width} and layers {layers}; give at least one of each")
        self.inputs = inputs
        self.condition = LevelEmbedding(condition, rng, classes, dtype=dtype)
        self.first = linear(inputs, width, rng, dtype)
        self.layers = nn.ModuleList([linear(width, width, rng, dtype) for _ in range(layers)])
        self.film = linear(condition, 2 * width * layers, rng, dtype)
        self.last = zeroed(linear(width, inputs, rng, dtype))

    def forward(
        self, x: Float[Tensor, "batch n"], level: Float[Tensor, " batch"], labels: Tensor | None = None
    ) -> Float[Tensor, "batch n"]:
        """One answer for each row. Raises ValueError where x or the labels do not fit."""
        checks.shape("x", x, (None, self.inputs))
        films = self.film(self.condition(level, labels)).chunk(2 * len(self.layers), 1)
        h = self.first(x)
        for layer, scale, shift in zip(self.layers, films[::2], films[1::2], strict=True):
            h = h + nn.functional.silu(torch.addcmul(shift, 1 + scale, layer(h)))
        return self.last(h)
