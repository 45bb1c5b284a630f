"""How a network is told the noise level: sinusoids of one number, with periods that fit its range.

    ψ(λ) = (sin ω_1 λ, … sin ω_K λ, cos ω_1 λ, … cos ω_K λ),    ω_k = 2π/period_k,

with periods on a geometric ladder from `longest` to `shortest`. The longest is twice the range, so that no two levels
have the same features; the shortest is what the network may resolve. For λ = log SNR in [−20, 20] these are 80 and 2.

The ladder of Vaswani et al. (2017, section 3.5) has ω from 1 down to 1e-4, for integer positions up to thousands. Of t
in [0, 1] all its sines are nearly ωt and all its cosines nearly 1 − ω²t²/2: over that interval three singular values of
the features are above a thousandth of the largest, however many features there are.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import checks
from .mlp import linear

__all__ = ["LevelEmbedding", "ladder", "sinusoids"]

REACH = 20.0  # levels are log SNRs within ±20


def ladder(count: int, longest: float = 4 * REACH, shortest: float = 2.0) -> Float[Tensor, " count"]:
    """`count` frequencies 2π/period in float64, their periods falling from `longest` to `shortest` by equal factors.

    Raises: ValueError where count < 2, or not 0 < shortest < longest.
    """
    if count < 2 or not 0 < shortest < longest < math.inf:
        raise ValueError(
            f"count is {count}, longest {longest:g} and shortest {shortest:g}; give at least two frequencies, and "
            "periods with 0 < shortest < longest"
        )
    line = torch.linspace(math.log(longest), math.log(shortest), count, dtype=torch.float64)
    return 2 * math.pi * (-line).exp()


def sinusoids(x: Float[Tensor, " batch"], frequencies: Float[Tensor, " count"]) -> Float[Tensor, "batch features"]:
    """(sin ω_k x, cos ω_k x), one row for each x: first all sines, then all cosines.

    Raises: ValueError where x is no row of numbers.
    """
    checks.shape("x", x, (None,))
    angles = x[:, None] * frequencies.to(x)
    return torch.cat([angles.sin(), angles.cos()], 1)


class LevelEmbedding(nn.Module):
    """(level, labels) ↦ a vector of `width` numbers: silu(A ψ(level) + e_label), the condition of a whole network.

    Labels run from 0 to classes − 1, and `classes` itself stands for "no label"; e has classes + 1 rows, which start
    as independent N(0, 1). With classes = 0 there is no label.

    Raises: ValueError where width < 1, features < 4 or odd, or classes < 0.
    """

    def __init__(
        self,
        width: int,
        rng: torch.Generator,
        classes: int = 0,
        features: int = 32,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if width < 1 or features < 4 or features % 2 or classes < 0:
            raise ValueError(
                f"width is {width}, features {features} and classes {classes}; give a width above zero, an even number "
                "of features from 4 on, and classes ≥ 0"
            )
        self.classes = classes
        self.register_buffer("frequencies", ladder(features // 2).to(dtype), persistent=False)
        self.project = linear(features, width, rng, dtype)
        if classes:
            start = torch.randn(classes + 1, width, generator=rng, device=rng.device, dtype=dtype)
            self.rows = nn.Parameter(start.to("cpu"))

    def forward(self, level: Float[Tensor, " batch"], labels: Tensor | None = None) -> Tensor:
        """One row for each level. Raises ValueError where labels are missing, unwanted or out of range."""
        summed = self.project(sinusoids(level, self.get_buffer("frequencies")))
        if self.classes:
            summed = summed + self.rows[self._checked(labels, level)]
        elif labels is not None:
            raise ValueError("labels were given to a network without classes; make it with classes=…")
        return nn.functional.silu(summed)

    def _checked(self, labels: Tensor | None, level: Tensor) -> Tensor:
        if labels is None or labels.shape != level.shape or labels.is_floating_point():
            given = "none" if labels is None else f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(
                f"labels: {given}, beside {len(level)} levels; give one integer for each, {self.classes} for no label"
            )
        if checks.is_free(labels) and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= self.classes:
            raise ValueError(
                f"labels go from {int(labels.min())} to {int(labels.max())}; they are 0 … {self.classes - 1}, "
                f"and {self.classes} for no label"
            )
        return labels
