"""Boltzmann machines, exact where they can be: energies, enumeration, learning."""

from .averages import Moments, Thermodynamics
from .gaussian import GaussianRestrictedBoltzmannMachine
from .ising import ising
from .lattice import lattice_log_partition, torus_log_partition
from .learning import FreeEnergy, Persistent, contrastive_divergence, contrastive_loss
from .machine import BoltzmannMachine
from .restricted import LayerMoments, RestrictedBoltzmannMachine
from .states import BIT, SPIN, states

__all__ = [
    "BIT",
    "SPIN",
    "BoltzmannMachine",
    "FreeEnergy",
    "GaussianRestrictedBoltzmannMachine",
    "LayerMoments",
    "Moments",
    "Persistent",
    "RestrictedBoltzmannMachine",
    "Thermodynamics",
    "contrastive_divergence",
    "contrastive_loss",
    "ising",
    "lattice_log_partition",
    "states",
    "torus_log_partition",
]
