"""Two half circles that interlock: the smallest data set whose density no Gaussian resembles.

    upper    (cos a, sin a),               a uniform in [0, π]
    lower    (1 − cos a, ½ − sin a)

each with probability one half, plus Gaussian noise in both directions.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["moons"]


def moons(count: int, rng: torch.Generator, noise: float = 0.1) -> Float[Tensor, "count 2"]:
    """`count` independent points of the plane, float32: a point of one of the two arcs plus noise·N(0, I).

    Which arc a point belongs to is drawn too, so any two draws together are one draw of their sum.

    Raises: ValueError where count < 1 or noise is negative. Same arcs as scikit-learn's make_moons.
    """
    if count < 1 or not 0 <= noise < math.inf:
        raise ValueError(f"count is {count} and noise {noise:g}; ask for at least one point, and noise ≥ 0")
    place = torch.rand(2, count, generator=rng, device=rng.device)
    lower, angle = place[0] < 0.5, place[1] * math.pi
    x = torch.where(lower, 1 - angle.cos(), angle.cos())
    y = torch.where(lower, 0.5 - angle.sin(), angle.sin())
    return torch.stack([x, y], 1) + noise * torch.randn(count, 2, generator=rng, device=rng.device)
