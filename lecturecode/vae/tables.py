"""The exact member: a latent-variable model of two small tables, in which every quantity is a finite sum.

    p(h)     prior, k numbers            p(x|h)   likelihood, one row of outcomes for each h
    p(x) = Σ_h p(x|h) p(h)               p(h|x) = p(x|h) p(h)/p(x)
    ELBO(x; q) = Σ_h q(h|x) log [p(x|h) p(h)/q(h|x)] = log p(x) − KL(q(h|x)‖p(h|x))

It stands beside the networks as the answer they are measured against.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..divergence import kl
from .bounds import Elbo

__all__ = ["LatentTable"]


@dataclass(frozen=True)
class LatentTable:
    """p(h) as `prior` (k,) and p(x|h) as `likelihood` (k, outcomes), in nats and without approximation.

    Raises: ValueError where a row is no probability vector, or the two disagree about k, dtype or device.
    """

    prior: Float[Tensor, " k"]
    likelihood: Float[Tensor, "k outcomes"]

    def __post_init__(self) -> None:
        checks.same_device(prior=self.prior, likelihood=self.likelihood)
        checks.shape("prior", self.prior, (None,))
        checks.shape("likelihood", self.likelihood, (len(self.prior), None))
        if self.prior.dtype != self.likelihood.dtype:
            raise ValueError(f"prior is {self.prior.dtype} and likelihood {self.likelihood.dtype}; give both the same")
        checks.probabilities("prior", self.prior)
        checks.probabilities("likelihood", self.likelihood)

    def joint(self) -> Float[Tensor, "k outcomes"]:
        """p(x,h) = p(x|h) p(h)."""
        return self.prior[:, None] * self.likelihood

    def log_prob(self) -> Float[Tensor, " outcomes"]:
        """log p(x) = log Σ_h p(x|h) p(h), for every outcome."""
        return self.joint().sum(0).log()

    def posterior(self) -> Float[Tensor, "outcomes k"]:
        """p(h|x) = p(x,h)/p(x), one row for each outcome.

        Raises: ValueError where p(x) = 0, so that the posterior is not defined.
        """
        joint = self.joint()
        evidence = joint.sum(0)
        if not (evidence > 0).all():
            x = int((evidence == 0).nonzero()[0])
            raise ValueError(f"outcome {x} has p(x) = 0, so p(h|x) is not defined there; leave that outcome out")
        return (joint / evidence).mT

    def elbo(self, q: Float[Tensor, "outcomes k"]) -> Elbo:
        """E_q[log p(x|h)] and KL(q(h|x)‖p(h)) for every outcome x, given q(h|x) as a table with one row for each.

        Where q gives weight to an h with p(x|h) = 0 the reconstruction, and the bound, is −∞.
        """
        checks.same_device(prior=self.prior, q=q)
        checks.shape("q", q, (self.likelihood.shape[1], len(self.prior)))
        checks.probabilities("q", q)
        reconstruction = torch.special.xlogy(q, self.likelihood.mT).sum(-1)
        return Elbo(reconstruction, kl(q, self.prior.expand_as(q)))

    def em(self, frequencies: Float[Tensor, " outcomes"]) -> "LatentTable":
        """One step of expectation–maximisation for data with the given relative frequencies of the outcomes.

        q(h|x) = p(h|x), then p(h) ← Σ_x d(x) q(h|x) and p(x|h) ← d(x) q(h|x)/p(h). The mean log-likelihood
        Σ_x d(x) log p(x) never falls; tables as free as these reach its ceiling, p(x) = d(x), in this one step.
        Source: Dempster, Laird & Rubin (1977), theorem 1.

        Raises: ValueError where the frequencies are no probability vector, or an h is left without any data.
        """
        checks.shape("frequencies", frequencies, (self.likelihood.shape[1],))
        checks.probabilities("frequencies", frequencies)
        weight = frequencies[:, None] * self.posterior()
        prior = weight.sum(0)
        if not (prior > 0).all():
            h = int((prior == 0).nonzero()[0])
            raise ValueError(f"no datum is left for h = {h}, so p(x|h) is not defined; start from other tables")
        return LatentTable(prior, weight.mT / prior[:, None])
