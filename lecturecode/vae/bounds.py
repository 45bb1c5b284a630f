"""Lower bounds of log p(x) from draws h⁽ˡ⁾ of an encoder q(h|x), in nats per example.

    ELBO   E_q[log p(x|h)] − KL(q(h|x)‖p(h))             ≤ log p(x)
    IWAE   E[log (1/K) Σ_l w_l],  w_l = p(x,h⁽ˡ⁾)/q(h⁽ˡ⁾|x)   ≤ log p(x), rising with K

The first is the second at K = 1, with the part that has a closed form taken exactly.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from ..divergence import kl

if TYPE_CHECKING:
    from .model import VAE

__all__ = ["Elbo", "iwae"]


@dataclass(frozen=True)
class Elbo:
    """The two parts of the bound for each example, in nats."""

    reconstruction: Float[Tensor, " batch"]
    kl: Float[Tensor, " batch"]

    @property
    def value(self) -> Float[Tensor, " batch"]:
        """reconstruction − kl ≤ log p(x) in expectation."""
        return self.reconstruction - self.kl


def iwae(model: "VAE", x: Float[Tensor, "batch *n"], draws: int, rng: torch.Generator) -> Float[Tensor, " batch"]:
    """log (1/K) Σ_l p(x,h⁽ˡ⁾)/q(h⁽ˡ⁾|x) with K = `draws` independent h⁽ˡ⁾ of q(h|x), in nats per example.

    Its expectation never falls when K grows, and reaches log p(x) as K → ∞ where the weights are bounded.

    Raises: ValueError as `VAE.elbo`. Source: Burda, Grosse & Salakhutdinov (2016), eq. 8 and theorem 1.
    """
    model.check(x, draws)
    q = model.encoder(x)
    h = model.draw(q, draws, rng)
    prior = model.prior()
    _same_space(q, prior)
    log_weights = log_likelihood(model.decoder(h), x) + prior.log_prob(h) - q.log_prob(h)
    return log_weights.logsumexp(0) - math.log(draws)


def kl_to_prior(q: Distribution, prior: Distribution, h: Float[Tensor, "draws batch m"]) -> Float[Tensor, " batch"]:
    """KL(q(h|x)‖p(h)): in closed form where both are Gaussian, else the mean of log q − log p over the draws h."""
    _same_space(q, prior)
    if _is_gaussian(q) and _is_gaussian(prior):
        return kl(q, prior)
    return (q.log_prob(h) - prior.log_prob(h)).mean(0)


def log_likelihood(p: Distribution, x: Float[Tensor, "batch *n"]) -> Float[Tensor, "draws batch"]:
    """log p(x|h) for each draw of h and each example: refused where it would have to broadcast."""
    if p.event_shape != x.shape[1:]:
        raise ValueError(
            f"an example of x has shape {tuple(x.shape[1:])} and the decoder's distribution {tuple(p.event_shape)}; "
            "change the decoder's last width, or wrap its distribution in Independent"
        )
    return p.log_prob(x)


def _same_space(q: Distribution, prior: Distribution) -> None:
    if q.event_shape != prior.event_shape:
        raise ValueError(
            f"q(h|x) is over h of shape {tuple(q.event_shape)} and the prior over {tuple(prior.event_shape)}; "
            "give both the same m (an encoder's last width is 2m)"
        )


def _is_gaussian(d: Distribution) -> bool:
    inner = d.base_dist if isinstance(d, Independent) else d
    return isinstance(inner, Normal | MultivariateNormal)
