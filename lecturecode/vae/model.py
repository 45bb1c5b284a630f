"""The variational autoencoder: p(x,h) = p(x|h) p(h) with networks in p(x|h) and in q(h|x) ≈ p(h|x).

    prior     p(h) = N(h; 0, 1)
    decoder   p(x|h), whose parameters a network computes from h
    encoder   q(h|x) = N(h; μ(x), diag σ²(x)), whose μ and log σ² a network computes from x
    bound     ELBO(x) = E_q[log p(x|h)] − KL(q(h|x)‖p(h)) ≤ log p(x)

Any module that maps x to a distribution of h can stand for the encoder, and so for the others: only the ways in which
they are called are fixed. Device and dtype follow the inputs. (Kingma & Welling 2014.)
"""

import torch
from jaxtyping import Float
from torch import Tensor, distributions, nn

from .. import rng as randomness
from .bounds import Elbo, check_examples, kl_to_prior, log_likelihood
from .likelihoods import Likelihood

__all__ = ["VAE", "Decoder", "Encoder", "StandardNormal"]


class StandardNormal(nn.Module):
    """The prior N(0, 1) in m dimensions. Called without arguments it gives the distribution."""

    zero: Tensor

    def __init__(self, m: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        if m < 1:
            raise ValueError(f"m is {m}; a latent space has at least one dimension")
        self.register_buffer("zero", torch.zeros(m, dtype=dtype), persistent=False)

    def forward(self) -> distributions.Independent:
        normal = distributions.Normal(self.zero, torch.ones_like(self.zero), validate_args=False)
        return distributions.Independent(normal, 1, validate_args=False)


class Encoder(nn.Module):
    """q(h|x) = N(μ, diag σ²), where the network gives (μ, log σ²): 2m numbers along the last axis.

    Raises: ValueError where it gives an odd number of them.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Float[Tensor, "batch *n"]) -> distributions.Independent:
        output = self.net(x)
        if output.shape[-1] % 2:
            raise ValueError(f"the encoder's network gives {output.shape[-1]} numbers; it needs 2m: μ and log σ²")
        mean, log_variance = output.chunk(2, -1)
        normal = distributions.Normal(mean, (0.5 * log_variance).exp(), validate_args=False)
        return distributions.Independent(normal, 1, validate_args=False)


class Decoder(nn.Module):
    """p(x|h) = likelihood(net(h)), independent over the axes of x given h."""

    def __init__(self, net: nn.Module, likelihood: Likelihood):
        super().__init__()
        self.net = net
        self.likelihood = likelihood

    def forward(self, h: Float[Tensor, "*draws m"]) -> distributions.Independent:
        rows = self.net(h.reshape(-1, h.shape[-1]))
        output = rows.reshape(*h.shape[:-1], *rows.shape[1:])
        return distributions.Independent(self.likelihood(output), rows.ndim - 1, validate_args=False)


class VAE(nn.Module):
    """encoder(x) → q(h|x), decoder(h) → p(x|h), prior() → p(h).

    vae = VAE(Encoder(mlp([64, 256, 16], rng)), Decoder(mlp([8, 256, 64], rng), Bernoulli()), StandardNormal(8))
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module):
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, prior

    def elbo(self, x: Float[Tensor, "batch *n"], draws: int, rng: torch.Generator) -> Elbo:
        """(1/M) Σ_l log p(x|h⁽ˡ⁾) and KL(q(h|x)‖p(h)), M = `draws`, reparametrised: nats for each example.

        Raises: ValueError where x is empty, of another shape, dtype or device than the networks, or outside the
        likelihood's support, or draws < 1. Source: Kingma & Welling (2014), eq. 7.
        """
        self.check(x, draws)
        q = self.encoder(x)
        h = self.draw(q, draws, rng)
        return Elbo(log_likelihood(self.decoder(h), x).mean(0), kl_to_prior(q, self.prior(), h))

    def loss(self, x: Float[Tensor, "batch *n"], rng: torch.Generator, kl_weight: float = 1.0) -> Float[Tensor, ""]:
        """Mean over the batch of −E_q[log p(x|h)] + kl_weight · KL(q(h|x)‖p(h)), with one draw for each example.

        The sums over the axes of x and of h are inside. kl_weight = 1 gives minus the ELBO; others are the β-VAE of
        Higgins et al. (2017), eq. 4.
        """
        bound = self.elbo(x, 1, rng)
        return (kl_weight * bound.kl - bound.reconstruction).mean()

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator) -> Float[Tensor, "count *n"]:
        """`count` draws of p(x): h from the prior, then x from p(x|h)."""
        h = self.draw(self.prior(), count, rng)
        return randomness.draw(self.decoder(h), 1, rng)[0]

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "batch *n"]) -> Float[Tensor, "batch *n"]:
        """The mean of p(x|h) at h = the mean of q(h|x)."""
        self.check(x, 1)
        return self.decoder(self.encoder(x).mean).mean

    def draw(self, distribution: distributions.Distribution, count: int, rng: torch.Generator) -> Tensor:
        """`count` draws of a latent distribution, as functions of its parameters where the family allows it."""
        return randomness.draw(distribution, count, rng)

    def check(self, x: Tensor, draws: int) -> None:
        """The checks at the door. Values are read only where that stalls nothing; `Batches` reads them once."""
        check_examples(self, x, draws)
        net = self.encoder.net if isinstance(self.encoder, Encoder) else None
        first = next(iter(net), None) if isinstance(net, nn.Sequential) else net
        if isinstance(first, nn.Linear) and x.shape[-1] != first.in_features:
            raise ValueError(
                f"x has shape {tuple(x.shape)} and the encoder takes {first.in_features} numbers an example; "
                "reshape x, or give the network that first width"
            )
