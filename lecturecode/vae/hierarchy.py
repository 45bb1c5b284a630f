"""Hierarchical VAE: a Markov chain of latent variables h_1 … h_L above x, any number of levels.

    model       p(x, h_1 … h_L) = p(x|h_1) p(h_1|h_2) … p(h_{L−1}|h_L) p(h_L)
    bottom-up   q(h_1 … h_L|x) = q(h_1|x) q(h_2|h_1) … q(h_L|h_{L−1})
    top-down    q(h_1 … h_L|x) = q(h_L|x) q(h_{L−1}|h_L, x) … q(h_1|h_2, x)
    bound       ELBO = E_q[log p(x|h_1)] − Σ_l KL_l,   KL_l = E_q[log q_l − log p(h_l|h_{l+1})]

q_l is the factor of h_l. The model's own posterior has both forms, so neither loses anything by its shape. Top-down,
each KL_l is a mean of divergences, exact given the draws above it, and ≥ 0. Bottom-up, only the top one is: below it
h_{l+1} is drawn from h_l, so that KL_l is a mean of logarithms alone and may have either sign. (Rezende et al. 2014.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from ..rng import draw
from .bounds import check_examples, kl_to_prior, log_likelihood

__all__ = ["BottomUp", "HierarchicalElbo", "HierarchicalVAE", "LevelPosterior", "TopDown"]


@dataclass(frozen=True)
class HierarchicalElbo:
    """The parts of the bound for each example, in nats: level l is row l − 1 of `kl`."""

    reconstruction: Float[Tensor, " batch"]
    kl: Float[Tensor, "levels batch"]

    @property
    def value(self) -> Float[Tensor, " batch"]:
        """reconstruction − Σ_l KL_l ≤ log p(x) in expectation."""
        return self.reconstruction - self.kl.sum(0)


@runtime_checkable
class LevelPosterior(Protocol):
    """A q(h_1 … h_L|x): called, it draws each level from its factor. `top_down` says which way the factors look."""

    top_down: bool

    def __call__(self, x: Tensor, draws: int, rng: torch.Generator) -> list[tuple[Distribution, Tensor]]: ...


class BottomUp(nn.Module):
    """q(h_1|x) q(h_2|h_1) …: `encoders[l]` maps the level below, x for the first, to a distribution.

    An encoder may have no parameters at all: a fixed chain that adds noise is one.
    """

    top_down = False

    def __init__(self, encoders: Sequence[nn.Module]):
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor, draws: int, rng: torch.Generator) -> list[tuple[Distribution, Tensor]]:
        """[(q_1, h_1), …, (q_L, h_L)], each h_l of shape (draws, batch, m_l)."""
        levels: list[tuple[Distribution, Tensor]] = []
        for encoder in self.encoders:
            q = encoder(levels[-1][1] if levels else x)
            levels.append((q, draw(q, 1, rng)[0] if levels else draw(q, draws, rng)))
        return levels


class TopDown(nn.Module):
    """q(h_L|x) … q(h_1|h_2, x): `encoders[l](h above, x)` gives a distribution, the last one is called with x alone.

    `Concatenated(Encoder(net))` makes a module of two arguments from a network of their joint width.
    """

    top_down = True

    def __init__(self, encoders: Sequence[nn.Module]):
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor, draws: int, rng: torch.Generator) -> list[tuple[Distribution, Tensor]]:
        """[(q_1, h_1), …, (q_L, h_L)], each h_l of shape (draws, batch, m_l), drawn from the last to the first."""
        *below, top = self.encoders
        q = top(x)
        levels = [(q, draw(q, draws, rng))]
        for encoder in reversed(below):
            q = encoder(levels[0][1], x)
            levels.insert(0, (q, draw(q, 1, rng)[0]))
        return levels


class HierarchicalVAE(nn.Module):
    """posterior(x, draws, rng) → q and its draws, decoder(h_1) → p(x|h_1), priors[l](h above) → p(h_l|h_{l+1}).

    The last of `priors` is called without arguments. With one level this is `VAE`.

    vae = HierarchicalVAE(
        BottomUp([Encoder(mlp([64, 128, 16], rng)), Encoder(mlp([8, 32, 8], rng))]),
        Decoder(mlp([8, 128, 64], rng), Bernoulli()), [Encoder(mlp([4, 32, 16], rng)), StandardNormal(4)])

    Raises: ValueError where the posterior and `priors` have different numbers of levels.
    """

    def __init__(self, posterior: LevelPosterior, decoder: nn.Module, priors: Sequence[nn.Module]):
        super().__init__()
        encoders = getattr(posterior, "encoders", None)
        if len(priors) == 0 or (encoders is not None and len(encoders) != len(priors)):
            levels = "?" if encoders is None else len(encoders)
            raise ValueError(f"the posterior has {levels} levels and priors {len(priors)}; give a module to each level")
        self.posterior, self.decoder, self.priors = posterior, decoder, nn.ModuleList(priors)

    def elbo(self, x: Float[Tensor, "batch *n"], draws: int, rng: torch.Generator) -> HierarchicalElbo:
        """The reconstruction and KL_l of each level, as means over `draws`: nats for each example.

        Raises: ValueError where x is empty, of another dtype or device than the networks, or outside the likelihood's
        support, or draws < 1, or two factors of one level differ in shape.
        """
        levels = self._walk(x, draws, rng)
        terms = []
        for i, ((q, h), prior) in enumerate(zip(levels, self._priors(levels), strict=True)):
            closed = self.posterior.top_down or i == len(levels) - 1
            term = kl_to_prior(q, prior, h) if closed else (q.log_prob(h) - prior.log_prob(h)).mean(0)
            terms.append(term.mean(0) if term.ndim == 2 else term)
        return HierarchicalElbo(log_likelihood(self.decoder(levels[0][1]), x).mean(0), torch.stack(terms))

    def loss(self, x: Float[Tensor, "batch *n"], rng: torch.Generator, kl_weight: float = 1.0) -> Float[Tensor, ""]:
        """Mean over the batch of −E_q[log p(x|h_1)] + kl_weight · Σ_l KL_l, with one draw for each example."""
        bound = self.elbo(x, 1, rng)
        return (kl_weight * bound.kl.sum(0) - bound.reconstruction).mean()

    def iwae(self, x: Float[Tensor, "batch *n"], draws: int, rng: torch.Generator) -> Float[Tensor, " batch"]:
        """log (1/K) Σ p(x, h_1 … h_L)/q(h_1 … h_L|x) with K = `draws`, in nats per example. Raises: as `elbo`."""
        levels = self._walk(x, draws, rng)
        log_weights = log_likelihood(self.decoder(levels[0][1]), x)
        for (q, h), prior in zip(levels, self._priors(levels), strict=True):
            log_weights = log_weights + prior.log_prob(h) - q.log_prob(h)
        return log_weights.logsumexp(0) - math.log(draws)

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator) -> Float[Tensor, "count *n"]:
        """`count` draws of p(x): h_L from its prior, then each level given the one above, then x."""
        *below, top = self.priors
        h = draw(top(), count, rng)
        for prior in reversed(below):
            h = draw(prior(h), 1, rng)[0]
        return draw(self.decoder(h), 1, rng)[0]

    def _priors(self, levels: list[tuple[Distribution, Tensor]]) -> list[Distribution]:
        *below, top = self.priors
        return [*(prior(h) for prior, (_, h) in zip(below, levels[1:], strict=True)), top()]

    def _walk(self, x: Tensor, draws: int, rng: torch.Generator) -> list[tuple[Distribution, Tensor]]:
        check_examples(self, x, draws)
        return self.posterior(x, draws, rng)
