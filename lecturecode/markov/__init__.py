"""Markov chains over many states or many units: kernels that leave a target invariant, and what is built on them."""

from .ais import Annealed, ais, geometric
from .chain import MarkovChain
from .clusters import swendsen_wang
from .continuous import hmc, langevin, mala
from .diagnostics import autocorrelation, autocorrelation_time, effective_sample_size, r_hat, standard_error
from .exact import Exact, transition_matrix
from .kernels import Kernel, block_gibbs, flip, gibbs, in_turn, metropolis
from .lattice import checkerboard
from .matrices import evolve
from .multispin import multispin, pack, unpack
from .run import Run, run
from .tempering import parallel_tempering

__all__ = [
    "Annealed",
    "Exact",
    "Kernel",
    "MarkovChain",
    "Run",
    "ais",
    "autocorrelation",
    "autocorrelation_time",
    "block_gibbs",
    "checkerboard",
    "effective_sample_size",
    "evolve",
    "flip",
    "geometric",
    "gibbs",
    "hmc",
    "in_turn",
    "langevin",
    "mala",
    "metropolis",
    "multispin",
    "pack",
    "parallel_tempering",
    "r_hat",
    "run",
    "standard_error",
    "swendsen_wang",
    "transition_matrix",
    "unpack",
]
