"""From grey levels to numbers with a density, and from that density back to a bound on a probability.

A level k of 0 … L − 1, written x = k/(L − 1), is spread evenly over its own part of [0, 1):  y = (k + u)/L, u uniform.

    log P(x) = log ∫_cell p(y) dy = −n log L + log E_u p(y) ≥ −n log L + E_u log p(y)

The left side is a probability, in nats for each example, never above zero, and can be compared with other models of
levels. log p(y) is the logarithm of a density and cannot. Equality holds where p is constant in every cell, so a model
trained on y is trained on the bound (Theis, van den Oord & Bethge 2016, section 3.1).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..rng import uniform

__all__ = ["dequantise", "quantise", "quantised_log_prob"]


def dequantise(x: Float[Tensor, "*batch n"], rng: torch.Generator, levels: int = 17) -> Float[Tensor, "*batch n"]:
    """y = (k + u)/L in [0, 1), for values x = k/(L − 1).

    Raises: ValueError where levels < 2, or a value of x is none of the levels.
    """
    k = _level(x, levels)
    u = uniform(tuple(x.shape), rng, x).clamp(max=1 - 4 * levels * torch.finfo(x.dtype).eps)
    return (k + u) / levels  # with u nearer to 1 it could be rounded up to the next cell


def quantise(y: Float[Tensor, "*batch n"], levels: int = 17) -> Float[Tensor, "*batch n"]:
    """The level x = k/(L − 1) of the cell that y is in. What lies outside [0, 1) goes to the nearest one.

    Raises: ValueError where levels < 2.
    """
    if levels < 2:
        raise ValueError(f"levels is {levels}; give at least two")
    return (y * levels).floor().clamp(0, levels - 1) / (levels - 1)


def quantised_log_prob(
    log_density: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch n"],
    rng: torch.Generator,
    draws: int = 1,
    levels: int = 17,
) -> Float[Tensor, "draws batch"]:
    """log p(y) − n log L in nats, for `draws` dequantisations y of each row.

    Its mean over the draws is unbiased for the bound on log P(x). The logarithm of the mean of its exponentials is a
    tighter bound in expectation, and tends to log P(x) with more draws, as the importance-weighted one does.

    log_density(y) is for y in [0, 1)ⁿ. If the model is one of z = 2y − 1, it is log p(z) + n log 2.

    Raises: ValueError where draws < 1, x is none of the levels, or log_density gives another shape.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; ask for at least one")
    checks.shape("x", x, (None, None))
    y = dequantise(x.expand(draws, *x.shape), rng, levels)
    log_prob = log_density(y.flatten(0, 1))
    if log_prob.shape != (draws * len(x),):
        raise ValueError(
            f"log_density gives shape {tuple(log_prob.shape)} for {draws * len(x)} rows; sum over all but the first"
        )
    return log_prob.reshape(draws, len(x)) - x.shape[1] * math.log(levels)


def _level(x: Tensor, levels: int) -> Tensor:
    """k of x = k/(L − 1)."""
    if levels < 2:
        raise ValueError(f"levels is {levels}; give at least two")
    k = (x * (levels - 1)).round()
    bad = ~((k >= 0) & (k < levels) & ((x * (levels - 1) - k).abs() < 1e-3))
    if checks.is_free(x) and bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"x{list(where)} is {x[where].item():g}, none of the {levels} levels 0, 1/{levels - 1}, … 1; "
            "round x to them first, or say how many there are"
        )
    return k
