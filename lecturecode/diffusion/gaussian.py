"""Independent Gaussians with a mean for each entry: what every step of a diffusion is made of."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..rng import normal

__all__ = ["Gaussian"]


@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussians N(mean, variance): the variance broadcasts against the mean and may be zero."""

    mean: Float[Tensor, "batch *d"]
    variance: Tensor

    def log_prob(self, x: Float[Tensor, "batch *d"]) -> Float[Tensor, " batch"]:
        """log N(x; mean, variance) in nats, summed over all but the first axis.

        Raises: ValueError where a variance is zero, so that there is no density.
        """
        _spread(self.variance)
        terms = (x - self.mean).square() / self.variance + (2 * math.pi * self.variance).log()
        return -terms.expand_as(x).flatten(1).sum(1) / 2

    def kl(self, other: "Gaussian") -> Float[Tensor, " batch"]:
        """KL(self ‖ other) = ½ Σ [v/w − 1 − log(v/w) + (m − n)²/w] in nats, summed over all but the first axis.

        Raises: ValueError where a variance w is zero.
        """
        _spread(other.variance)
        ratio = self.variance / other.variance
        terms = ratio - 1 - ratio.log() + (self.mean - other.mean).square() / other.variance
        return terms.expand_as(self.mean).flatten(1).sum(1) / 2

    def sample(self, rng: torch.Generator) -> Float[Tensor, "batch *d"]:
        """One draw: mean + √variance ε."""
        return self.mean + self.variance.sqrt() * normal(tuple(self.mean.shape), rng, self.mean)


def _spread(variance: Tensor) -> None:
    if checks.is_free(variance) and not (variance > 0).all():
        raise ValueError(
            f"a variance is {variance.min().item():g}, so the Gaussian is a point without a density; take a step that "
            "ends before t = 0"
        )
