"""Diffusion models: schedules, noise, denoisers with exact members, bounds and samplers."""

from .betas import Cosine, FromBetas, Linear
from .bound import DiffusionElbo, continuous_elbo, elbo
from .denoiser import Denoise, Denoiser, Given, Guided
from .dequantise import dequantise, quantise, quantised_log_prob
from .directions import DirectionTable
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
from .few_calls import FewCalls, few_calls
from .fitted import fitted
from .flow import FLOW, Straight, flow_velocity, score, slopes, velocity
from .gaussian import Gaussian
from .gaussian_data import GaussianData, GaussianGap
from .gaussian_flow import gaussian_exponential, noise_exponential
from .grids import karras_grid, log_snr_grid, uniform_grid
from .likelihood import Likelihood, decode, encode, follow, log_likelihood
from .mixture import GaussianMixtureDenoiser
from .multistep import dpm_solver, exponential
from .pilot import Pilot
from .prediction import CLEAN, NOISE, SCORE, VELOCITY, Prediction, preconditioned
from .process import forward, levels, marginal, noise_end, posterior, transition
from .rectify import flow_matching_loss, rectified_pairs, straightness
from .sampler import Counted, sample, walk
from .schedule import EDM, Schedule, VarianceExploding, VariancePreserving, terminal_snr
from .shortest_path import dynamic_grid
from .stochastic import Churn, euler_maruyama, heun
from .tables import Table, ancestral, ddim, euler
from .terms import end_weights, rising_grid, step_weights
from .weighting import LogNormalTimes, UniformTimes, min_snr, of_prediction, simple

__all__ = [
    "CLEAN",
    "EDM",
    "FLOW",
    "NOISE",
    "SCORE",
    "VELOCITY",
    "Churn",
    "Cosine",
    "Counted",
    "Denoise",
    "Denoiser",
    "DiffusionElbo",
    "DirectionTable",
    "DiscreteDenoiser",
    "DiscreteProcess",
    "EmpiricalDenoiser",
    "EnumeratedDiffusion",
    "FewCalls",
    "FromBetas",
    "Gaussian",
    "GaussianData",
    "GaussianDenoiser",
    "GaussianGap",
    "GaussianMixtureDenoiser",
    "Given",
    "Guided",
    "Likelihood",
    "Linear",
    "LogNormalTimes",
    "Pilot",
    "Prediction",
    "Schedule",
    "Straight",
    "Table",
    "UniformTimes",
    "VarianceExploding",
    "VariancePreserving",
    "all_states",
    "ancestral",
    "bound_terms",
    "continuous_elbo",
    "ddim",
    "decode",
    "dequantise",
    "dpm_solver",
    "dynamic_grid",
    "elbo",
    "encode",
    "end_weights",
    "euler",
    "euler_maruyama",
    "exponential",
    "few_calls",
    "fitted",
    "flow_matching_loss",
    "flow_velocity",
    "follow",
    "forward",
    "gaussian_exponential",
    "heun",
    "karras_grid",
    "levels",
    "log_likelihood",
    "log_snr_grid",
    "marginal",
    "min_snr",
    "model_distribution",
    "noise_end",
    "noise_exponential",
    "of_prediction",
    "posterior",
    "preconditioned",
    "quantise",
    "quantised_log_prob",
    "rectified_pairs",
    "rising_grid",
    "row_numbers",
    "sample",
    "sample_sites",
    "score",
    "simple",
    "slopes",
    "step_weights",
    "straightness",
    "tabulated",
    "terminal_snr",
    "transition",
    "uniform_grid",
    "velocity",
    "walk",
]
