"""The exact denoiser of a mixture of Gaussians: a diffusion model without a network and without error.

    p(x_0) = Σ_k w_k N(m_k, C_k),  C_k = U_k diag(c_k) U_kᵀ,        p_t(x_t) = Σ_k w_k N(α m_k, U_k diag(s_k²) U_kᵀ)
    s_k² = α² c_k + σ²,    y_k = U_kᵀ(x_t − α m_k)
    p(k|x_t)   ∝ w_k exp(−½ Σ_i [y_ki²/s_ki² + log s_ki²])
    E[x_0|x_t] = Σ_k p(k|x_t) μ_k,    μ_k = m_k + U_k diag(α c_k/s_k²) y_k

The eigenvectors are found once. All components are projected on in one matrix product and brought back in another.
Far out all logits are about −½|x_t|²/σ², so what they share is taken away first: with z = x_t − α m̄, δ_k = m_k − m̄ and
S² = α² c* + σ² for any number c*, |z − αδ_k|² = |y_k|² gives

    −½ Σ_i y_ki²/s_ki² = −½|z|²/S² + (α z·δ_k − ½ α²|δ_k|²)/S² − ½ Σ_i y_ki² α² (c* − c_ki)/(s_ki² S²).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from ..device import best_dtype
from ..rng import normal, uniform
from .exact import dense, eigen, ratio, row_levels
from .schedule import Schedule, Time, as_tensor

__all__ = ["GaussianMixtureDenoiser"]


class _Parts(NamedTuple):
    """What all answers are made of: y (batch, k, d), s² (k, d) or (batch, k, d), the logits and what they share."""

    y: Tensor
    alpha: Tensor
    sigma: Tensor
    spread: Tensor
    logits: Tensor
    common: Tensor


@dataclass(frozen=True, eq=False)
class GaussianMixtureDenoiser:
    """E[x_0|x_t] for x_0 ~ Σ_k weights_k N(means_k, covariances_k): weights (k,), means (k, d).

    `covariances` is one variance for all, (k,) variances, (k, d) diagonals or (k, d, d) matrices; they may differ and
    may be singular. The work is done in float64 where the device has it; answers have the dtype of x_t. At t = 0 a
    point is given to the components whose support is nearest, as in the limit t → 0.

    Raises: ValueError where the weights are no probabilities, the shapes disagree, or a covariance is not symmetric
    or has a negative eigenvalue.
    """

    weights: Tensor
    means: Float[Tensor, "k d"]
    covariances: float | Tensor
    schedule: Schedule
    _variances: Tensor = field(init=False, repr=False)
    _bases: Tensor = field(init=False, repr=False)
    _across: Tensor = field(init=False, repr=False)
    _centres: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        checks.shape("means", self.means, (None, None))
        checks.finite("means", self.means)
        checks.shape("weights", self.weights, (len(self.means),))
        checks.probabilities("weights", self.weights)
        means = self.means.to(best_dtype(self.means.device))
        given = as_tensor(self.covariances).to(means)
        if given.ndim and len(given) != len(means):
            raise ValueError(f"covariances has shape {tuple(given.shape)} for {len(means)} components; give one each")
        each = given if given.ndim else given.expand(len(means))
        pairs = [eigen(f"covariances[{k}]", c, means.shape[1]) for k, c in enumerate(each)]
        variances, bases = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        weights = self.weights.to(means)
        named = {"weights": weights / weights.sum(), "means": means, "covariances": given, "_variances": variances}
        named |= {"_bases": bases, "_across": torch.cat(list(bases), 1)}
        named |= {"_centres": (means[:, None] @ bases)[:, 0]}
        for name, value in named.items():
            object.__setattr__(self, name, value)

    def __call__(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, "batch d"]:
        """x̂_0 = E[x_0 | x_t]."""
        p = self._parts(xt, t)
        share = p.logits.softmax(-1)
        moved = share[..., None] * ratio(p.alpha * self._variances, p.spread) * p.y
        return torch.addmm(share @ self.means, moved.flatten(1), self._across.mT).to(xt)

    def log_prob(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, " batch"]:
        """log p_t(x_t) in nats.

        Raises: ValueError where t = 0 and a covariance is singular, so that there is no density.
        """
        p = self._parts(xt, t)
        dense(p.spread)
        return (p.common + p.logits.logsumexp(-1) - self.means.shape[1] * math.log(2 * math.pi) / 2).to(xt)

    def responsibilities(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, "batch k"]:
        """p(k|x_t), the probability of each component given x_t."""
        return self._parts(xt, t).logits.softmax(-1).to(xt)

    def score(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, "batch d"]:
        """∇ log p_t(x_t) = −Σ_k p(k|x_t) U_k (y_k/s_k²), without a difference of large numbers.

        Raises: as `log_prob`.
        """
        p = self._parts(xt, t)
        return -((p.logits.softmax(-1)[..., None] * p.y / dense(p.spread)).flatten(1) @ self._across.mT).to(xt)

    def posterior_covariance(self, xt: Float[Tensor, "batch d"], t: Time) -> Float[Tensor, "batch d d"]:
        """Cov[x_0|x_t] = Σ_k p(k|x_t) [U_k diag(σ² c_k/s_k²) U_kᵀ + (μ_k − x̂_0)(μ_k − x̂_0)ᵀ]."""
        p = self._parts(xt, t)
        share = p.logits.softmax(-1)
        means = self.means + torch.einsum("bki,kdi->bkd", ratio(p.alpha * self._variances, p.spread) * p.y, self._bases)
        off = means - (share[..., None] * means).sum(1, keepdim=True)
        left = share[..., None] * ratio(p.sigma.square() * self._variances, p.spread)
        within = torch.einsum("kdi,bki,kei->bde", self._bases, left, self._bases)
        return (within + torch.einsum("bk,bkd,bke->bde", share, off, off)).to(xt)

    def sample(self, count: int, rng: torch.Generator) -> Float[Tensor, "count d"]:
        """`count` independent draws of x_0: a component, then m_k + U_k diag(√c_k) ε."""
        k, d = self.means.shape
        level = uniform((count,), rng, self.means)
        chosen = torch.searchsorted(self.weights.cumsum(0), level, right=True).clamp(max=k - 1)
        eps = self._variances.sqrt()[chosen] * normal((count, d), rng, self.means)
        out = self.means[chosen]
        for j, basis in enumerate(self._bases):  # one (d, d) product a component, and never a basis for each draw
            mine = chosen == j
            out[mine] += eps[mine] @ basis.mT
        return out

    def given(self, components: int | Sequence[int]) -> "GaussianMixtureDenoiser":
        """The denoiser of p(x_0 | k ∈ components): a class, as the conditional one of `Guided`.

        Raises: ValueError where a component is not there, is named twice, or they have no weight.
        """
        chosen = [components] if isinstance(components, int) else list(components)
        if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= k < len(self.weights) for k in chosen):
            raise ValueError(f"components is {chosen}; name some of 0 … {len(self.weights) - 1}, each once")
        weights, covariances = self.weights[chosen], as_tensor(self.covariances)
        if not weights.sum() > 0:
            raise ValueError(f"the components {chosen} have no weight; name one that has")
        covariances = covariances[chosen] if covariances.ndim else covariances
        return GaussianMixtureDenoiser(weights / weights.sum(), self.means[chosen], covariances, self.schedule)

    def _parts(self, xt: Tensor, t: Time) -> _Parts:
        k, d = self.means.shape
        checks.shape("xt", xt, (None, d))
        alpha, sigma = row_levels(self.schedule, t, xt, self.means, 2)
        x = xt.to(self.means.dtype)
        y = (x @ self._across).unflatten(1, (k, d)) - alpha * self._centres
        spread = alpha.square() * self._variances + sigma.square()
        # the floor stands for t → 0: what is left of a distance decides, and nothing is 0/0
        floor = torch.finfo(x.dtype).tiny ** 0.5
        centre = self.means.mean(0)
        off = self.means - centre
        length = off.square().sum(1)
        widest = self._variances.max() + length.max()
        whole = (alpha.square() * widest + sigma.square()).clamp(min=floor).reshape(-1, 1)
        a, z, s = alpha.reshape(-1, 1), x - alpha.reshape(-1, 1) * centre, spread.clamp(min=floor)
        linear = (a * (z @ off.mT) - a.square() * length / 2) / whole
        narrower = alpha.square() * (widest - self._variances) / (s * whole[..., None])
        rest = (y.square() * narrower + s.log()).sum(-1)
        logits = self.weights.log() + linear - rest / 2
        return _Parts(y, alpha, sigma, spread, logits, -z.square().sum(-1) / (2 * whole[:, 0]))
