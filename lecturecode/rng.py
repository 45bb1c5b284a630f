"""Randomness by hand: every draw names its generator, and the generator's device decides the numbers.

A draw is made where the generator lives and then moved, so that one CPU seed gives the same numbers on a
CPU, a CUDA device and an MPS device. Nothing in this package draws from torch's global generator.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributions

__all__ = ["draw", "normal", "permutation", "seeded", "uniform"]


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that starts at `seed`."""
    return torch.Generator(device).manual_seed(seed)


def normal(shape: tuple[int, ...], rng: torch.Generator, like: Tensor) -> Float[Tensor, "..."]:
    """Independent draws of N(0, 1), with the dtype and the device of `like`."""
    return torch.randn(shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)


def uniform(shape: tuple[int, ...], rng: torch.Generator, like: Tensor) -> Float[Tensor, "..."]:
    """Independent draws from [0, 1), with the dtype and the device of `like`."""
    return torch.rand(shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)


def permutation(count: int, rng: torch.Generator, device: torch.device | str = "cpu") -> Int[Tensor, " count"]:
    """A uniformly random order of 0 … count−1."""
    return torch.randperm(count, generator=rng, device=rng.device).to(device)


def draw(distribution: distributions.Distribution, count: int, rng: torch.Generator) -> Tensor:
    """`count` independent draws: shape (count, *batch, *event).

    Where the family allows it the draw is reparametrised: h = μ + σ ε for a Gaussian, with ε from `rng`, so that
    gradients reach μ and σ. Otherwise the inverse of the distribution function is applied to uniform draws.

    Raises: ValueError where a family has neither form here, or count < 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one draw")
    while isinstance(distribution, distributions.Independent):
        distribution = distribution.base_dist
    shape = torch.Size([count, *distribution.batch_shape, *distribution.event_shape])
    for family, rule in _RULES.items():
        if isinstance(distribution, family):
            return rule(distribution, shape, rng)
    try:
        level = uniform(shape, rng, distribution.mean)
        eps = torch.finfo(level.dtype).eps
        return distribution.icdf(level.clamp(eps / 2, 1 - eps))  # at 0 and 1 it may be infinite
    except NotImplementedError:
        raise ValueError(
            f"cannot draw from {type(distribution).__name__} with a generator: it has no inverse distribution "
            "function; use Normal, MultivariateNormal, Bernoulli, Categorical or a family with icdf"
        ) from None


def _draw_normal(d: distributions.Normal, shape, rng):
    return torch.addcmul(d.loc, d.scale, normal(shape, rng, d.loc))


def _draw_multivariate_normal(d: distributions.MultivariateNormal, shape, rng):
    return d.loc + (d.scale_tril @ normal(shape, rng, d.loc)[..., None])[..., 0]


def _draw_bernoulli(d: distributions.Bernoulli, shape, rng):
    return (uniform(shape, rng, d.probs) < d.probs).to(d.probs.dtype)


def _draw_categorical(d: distributions.Categorical, shape, rng):
    cumulative = d.probs.cumsum(-1)
    level = uniform(shape, rng, d.probs)[..., None] * cumulative[..., -1:]
    return (level >= cumulative).sum(-1).clamp(max=d.probs.shape[-1] - 1)


_RULES = {
    distributions.Normal: _draw_normal,
    distributions.MultivariateNormal: _draw_multivariate_normal,
    distributions.Bernoulli: _draw_bernoulli,
    distributions.Categorical: _draw_categorical,
}
