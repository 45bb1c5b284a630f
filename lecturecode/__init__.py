"""Exact tools and small models for a course on generative models: from Boltzmann machines to diffusion."""

from .device import best_device, best_dtype
from .distance import frechet
from .divergence import entropy, js, kl, tv
from .rng import seeded

__version__ = "0.1.0"
__all__ = ["best_device", "best_dtype", "entropy", "frechet", "js", "kl", "seeded", "tv"]
