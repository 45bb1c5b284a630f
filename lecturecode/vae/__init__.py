"""Variational autoencoders and the bounds that train them, with an exact member: a model of small tables."""

from .bounds import Elbo, iwae
from .likelihoods import Bernoulli, Gaussian
from .model import VAE, Decoder, Encoder, StandardNormal
from .tables import LatentTable

__all__ = ["VAE", "Bernoulli", "Decoder", "Elbo", "Encoder", "Gaussian", "LatentTable", "StandardNormal", "iwae"]
