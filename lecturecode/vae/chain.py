"""The exact member of the hierarchies: a chain of linear Gaussian levels, x = level 0.

    h_L ~ N(0, 1),   h_l = W_l h_{l+1} + σ_l ε,   x = W_0 h_1 + σ_0 ε
    covariances  C_L = 1,   C_l = W_l C_{l+1} W_lᵀ + σ_l² 1,   p(x) = N(0, C_0)
    posterior    p(h_{l+1}|h_l) = N(G_l h_l, C_{l+1} − G_l W_l C_{l+1}),   G_l = C_{l+1} W_lᵀ C_l⁻¹

Read from x upwards the chain is Markov too, so the posterior is a product of these factors. Everything is exact.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from .. import checks
from .hierarchy import BottomUp, HierarchicalVAE, LevelPosterior
from .model import StandardNormal

__all__ = ["GaussianChain", "LinearGaussian"]


class LinearGaussian(nn.Module):
    """h ↦ N(Wh, C), with a full covariance C: fixed, unless `learned`, and then W alone is a parameter.

    Raises: ValueError where the shapes of W and C do not fit, or C has no Cholesky factor.
    """

    weight: Tensor
    factor: Tensor

    def __init__(
        self, weight: Float[Tensor, "below above"], covariance: Float[Tensor, "below below"], learned: bool = False
    ):
        super().__init__()
        checks.shape("covariance", covariance, (len(weight), len(weight)))
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed:
            raise ValueError("covariance is not positive definite; it needs a positive variance in every direction")
        if learned:
            self.weight = nn.Parameter(weight.clone())
        else:
            self.register_buffer("weight", weight)
        self.register_buffer("factor", factor)

    def forward(self, h: Float[Tensor, "*rows above"]) -> MultivariateNormal:
        return MultivariateNormal(h @ self.weight.mT, scale_tril=self.factor, validate_args=False)


class GaussianChain:
    """W_0, …, W_{L−1} as `weights`, (width of level l, width of level l + 1), and σ_0, …, σ_{L−1} as `sigmas`.

    Raises: ValueError where the widths do not follow each other, or a σ is not above zero.
    """

    def __init__(self, weights: Sequence[Float[Tensor, "below above"]], sigmas: Sequence[float]):
        if not weights or len(weights) != len(sigmas):
            raise ValueError(f"there are {len(weights)} weights and {len(sigmas)} sigmas; give one of each to a level")
        for i in range(1, len(weights)):
            checks.shape(f"weights[{i}]", weights[i], (weights[i - 1].shape[1], None))
        for i, sigma in enumerate(sigmas):
            checks.positive(f"sigmas[{i}]", sigma)
        self.weights, self.sigmas = tuple(weights), tuple(sigmas)

    def covariances(self) -> list[Float[Tensor, "width width"]]:
        """C_0 of x, then C_1 … C_L of the levels."""
        top = self.weights[-1]
        found = [torch.eye(top.shape[1], dtype=top.dtype, device=top.device)]
        for weight, sigma in zip(reversed(self.weights), reversed(self.sigmas), strict=True):
            found.insert(0, weight @ found[0] @ weight.mT + self._noise(weight, sigma))
        return found

    def log_prob(self, x: Float[Tensor, "batch n"]) -> Float[Tensor, " batch"]:
        """log p(x) = log N(x; 0, C_0), in nats."""
        covariance = self.covariances()[0]
        return MultivariateNormal(torch.zeros_like(covariance[0]), covariance).log_prob(x)

    def posterior(self) -> BottomUp:
        """The model's own p(h_1|x) p(h_2|h_1) …, ready to be the q of `HierarchicalVAE`."""
        covariances = self.covariances()
        encoders = []
        for weight, here, above in zip(self.weights, covariances, covariances[1:], strict=False):
            gain = torch.linalg.solve(here, weight @ above).mT
            left = above - gain @ weight @ above
            encoders.append(LinearGaussian(gain, (left + left.mT) / 2))
        return BottomUp(encoders)

    def model(self, posterior: LevelPosterior | None = None) -> HierarchicalVAE:
        """The chain as a `HierarchicalVAE`, with the exact posterior unless another is given."""
        decoder, *below = (
            LinearGaussian(weight, self._noise(weight, sigma))
            for weight, sigma in zip(self.weights, self.sigmas, strict=True)
        )
        top = self.weights[-1]
        prior = StandardNormal(top.shape[1], top.dtype).to(top.device)
        return HierarchicalVAE(posterior or self.posterior(), decoder, [*below, prior])

    @staticmethod
    def _noise(weight: Tensor, sigma: float) -> Tensor:
        return sigma**2 * torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
