"""Variational autoencoders and the bounds that train them, with an exact member: a model of small tables."""

from .bounds import Elbo, iwae, iwae_loss
from .chain import GaussianChain, LinearGaussian
from .conditional import Concatenated, ConditionalVAE
from .grey import ContinuousBernoulli, DiscretisedGaussian, DiscretisedLogistic
from .hierarchy import BottomUp, HierarchicalElbo, HierarchicalVAE, TopDown
from .likelihoods import Bernoulli, Gaussian, PixelGaussian
from .linear import LinearGaussianVAE, SampleMoments
from .model import VAE, Decoder, Encoder, StandardNormal
from .tables import LatentTable

__all__ = [
    "VAE",
    "Bernoulli",
    "BottomUp",
    "Concatenated",
    "ConditionalVAE",
    "ContinuousBernoulli",
    "Decoder",
    "DiscretisedGaussian",
    "DiscretisedLogistic",
    "Elbo",
    "Encoder",
    "Gaussian",
    "GaussianChain",
    "HierarchicalElbo",
    "HierarchicalVAE",
    "LatentTable",
    "LinearGaussian",
    "LinearGaussianVAE",
    "PixelGaussian",
    "SampleMoments",
    "StandardNormal",
    "TopDown",
    "iwae",
    "iwae_loss",
]
