"""Diffusion models: schedules, noise, denoisers with exact members, bounds and samplers."""

from .betas import Cosine, FromBetas, Linear
from .bound import DiffusionElbo, continuous_elbo, elbo
from .denoiser import Denoise, Denoiser, Given, Guided
from .discrete import DiscreteProcess
from .discrete_model import DiscreteDenoiser, sample_sites
from .empirical import EmpiricalDenoiser
from .enumerated import (
    EnumeratedDiffusion,
    all_states,
    bound_terms,
    model_distribution,
    row_numbers,
    tabulated,
)
from .exact import GaussianDenoiser
from .gaussian import Gaussian
from .gaussian_data import GaussianData, GaussianGap
from .grids import karras_grid, log_snr_grid, uniform_grid
from .mixture import GaussianMixtureDenoiser
from .prediction import CLEAN, NOISE, SCORE, VELOCITY, Prediction, preconditioned
from .process import forward, levels, marginal, noise_end, posterior, transition
from .sampler import Counted, sample, walk
from .schedule import EDM, Schedule, VarianceExploding, VariancePreserving, terminal_snr
from .tables import Table, ancestral, ddim, euler
from .terms import end_weights, rising_grid, step_weights
from .weighting import LogNormalTimes, UniformTimes, min_snr, of_prediction, simple

__all__ = [
    "CLEAN",
    "EDM",
    "NOISE",
    "SCORE",
    "VELOCITY",
    "Cosine",
    "Counted",
    "Denoise",
    "Denoiser",
    "DiffusionElbo",
    "DiscreteDenoiser",
    "DiscreteProcess",
    "EmpiricalDenoiser",
    "EnumeratedDiffusion",
    "FromBetas",
    "Gaussian",
    "GaussianData",
    "GaussianDenoiser",
    "GaussianGap",
    "GaussianMixtureDenoiser",
    "Given",
    "Guided",
    "Linear",
    "LogNormalTimes",
    "Prediction",
    "Schedule",
    "Table",
    "UniformTimes",
    "VarianceExploding",
    "VariancePreserving",
    "all_states",
    "ancestral",
    "bound_terms",
    "continuous_elbo",
    "ddim",
    "elbo",
    "end_weights",
    "euler",
    "forward",
    "karras_grid",
    "levels",
    "log_snr_grid",
    "marginal",
    "min_snr",
    "model_distribution",
    "noise_end",
    "of_prediction",
    "posterior",
    "preconditioned",
    "rising_grid",
    "row_numbers",
    "sample",
    "sample_sites",
    "simple",
    "step_weights",
    "tabulated",
    "terminal_snr",
    "transition",
    "uniform_grid",
    "walk",
]
