"""Markov chains over many states or many units: kernels that leave a target invariant, and what is built on them."""

from .ais import Annealed, ais, geometric
from .kernels import Kernel, flip, gibbs, metropolis

__all__ = ["Annealed", "Kernel", "ais", "flip", "geometric", "gibbs", "metropolis"]
