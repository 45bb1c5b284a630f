"""The exact member with a continuous latent: a linear Gaussian model, in which nothing has to be sampled.

    p(h) = N(0, 1),   p(x|h) = N(Wh + b, σ²),   q(h|x) = N(Vx + c, diag s²)

With Ω = WᵀW + σ², an m×m matrix, r = x − b and μ* = Ω⁻¹Wᵀr,
    p(x) = N(b, WWᵀ + σ²)     log p(x) = −½ [|r − Wμ*|²/σ² + |μ*|² + log det Ω + (n − m) log σ² + n log 2π]
    p(h|x) = N(μ*, σ²Ω⁻¹)
    ELBO(x) = −½ [(|r − Wμ|² + Σ_j s_j²|w_j|²)/σ² + n log 2πσ²] − ½ Σ_j [μ_j² + s_j² − 1 − log s_j²],   μ = Vx + c.
Its maximum-likelihood fit is probabilistic PCA (Tipping & Bishop 1999). No n×n matrix is solved.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from .. import checks
from ..divergence import kl
from ..nn import linear
from ..rng import seeded
from .bounds import Elbo
from .likelihoods import Gaussian
from .model import VAE, Decoder, Encoder, StandardNormal

__all__ = ["LinearGaussianVAE", "SampleMoments"]


@dataclass(frozen=True)
class SampleMoments:
    """x̄ = (1/N) Σ x_i and (1/N) Σ (x_i − x̄)(x_i − x̄)ᵀ: all that a linear Gaussian model sees of its data."""

    mean: Float[Tensor, " n"]
    covariance: Float[Tensor, "n n"]

    @classmethod
    def of(cls, x: Float[Tensor, "batch n"]) -> "SampleMoments":
        """The moments of the rows of x, divided by N and not by N − 1.

        Raises: ValueError where x is empty or holds NaN or infinities.
        """
        checks.shape("x", x, (None, None))
        checks.finite("x", x)
        mean = x.mean(0)
        centred = x - mean
        return cls(mean, centred.mT @ centred / len(x))


class LinearGaussianVAE(nn.Module):
    """n visible numbers, m latent ones; W, b and σ in `decoder`, V, c and s in `encoder`, all of them learned.

    model = LinearGaussianVAE(64, 8, rng, dtype=torch.float64)
    for step in fit(model.loss, repeat(SampleMoments.of(x), 3000), adam(model, 0.01)): ...

    Raises: ValueError where not 1 ≤ m < n, or σ ≤ 0.
    """

    def __init__(self, n: int, m: int, rng: torch.Generator, sigma: float = 1.0, dtype: torch.dtype = torch.float32):
        super().__init__()
        if not 1 <= m < n:
            raise ValueError(f"m is {m} and n is {n}; choose m from 1 to n − 1, so that σ² has a direction of its own")
        self.n, self.m = n, m
        self.encoder = Encoder(_Affine(n, m, rng, dtype))
        self.decoder = Decoder(linear(m, n, rng, dtype), Gaussian(sigma, learned=True, dtype=dtype))
        self.prior = StandardNormal(m, dtype)

    @classmethod
    def fitted(cls, data: Float[Tensor, "batch n"] | SampleMoments, m: int) -> "LinearGaussianVAE":
        """The maximum of the likelihood, with the encoder that makes the bound equal to it.

        W = U_m(Λ_m − σ²)^½ and σ² = (1/(n−m)) Σ_{j>m} λ_j, where λ_1 ≥ λ_2 ≥ … are the eigenvalues of the covariance
        with 1/N and U_m the first m eigenvectors. Source: Tipping & Bishop (1999), eqs. 7 and 8, with R = 1.

        Raises: ValueError where not 1 ≤ m < n, or the data have no variance outside m directions.
        """
        moments = data if isinstance(data, SampleMoments) else SampleMoments.of(data)
        n, dtype = len(moments.mean), moments.mean.dtype
        model = cls(n, m, seeded(0), dtype=dtype).to(moments.mean.device)
        values, vectors = (part.flip(-1) for part in torch.linalg.eigh(moments.covariance))
        variance = values[m:].mean()
        if not variance > n * torch.finfo(dtype).eps * values[0]:
            raise ValueError(
                f"the data have no variance outside {m} directions (σ² = {variance.item():.3g}), so the likelihood has "
                "no maximum; choose a smaller m, or add data"
            )
        W = vectors[:, :m] * (values[:m] - variance).clamp(min=0).sqrt()
        with torch.no_grad():
            model.weight.copy_(W)
            model.bias.copy_(moments.mean)
            model.decoder.likelihood.log_sigma.copy_(variance.log() / 2)  # type: ignore[union-attr, operator]
            model.encode_best()
        return model

    @property
    def weight(self) -> Float[Tensor, "n m"]:
        """W."""
        return self.decoder.net.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Float[Tensor, " n"]:
        """b."""
        return self.decoder.net.bias  # type: ignore[return-value]

    @property
    def variance(self) -> Float[Tensor, ""]:
        """σ²."""
        return (2 * self.decoder.likelihood.log_sigma).exp()  # type: ignore[operator]

    def log_prob(self, x: Float[Tensor, "batch n"]) -> Float[Tensor, " batch"]:
        """log p(x) = log N(x; b, WWᵀ + σ²), through the m×m matrix Ω. Source: Tipping & Bishop (1999), eq. 4.

        Raises: ValueError where x has another width, dtype or device than the model, or is empty.
        """
        self._check(x)
        factor, variance = self._factor(), self.variance
        r = x - self.bias
        mean = torch.cholesky_solve((r @ self.weight).mT, factor).mT
        squares = (r - mean @ self.weight.mT).square().sum(-1) / variance + mean.square().sum(-1)
        logdet = 2 * factor.diagonal().log().sum() + (self.n - self.m) * variance.log()
        return -0.5 * (squares + logdet + self.n * math.log(2 * math.pi))

    def posterior(self, x: Float[Tensor, "batch n"]) -> MultivariateNormal:
        """p(h|x) = N(Ω⁻¹Wᵀ(x − b), σ²Ω⁻¹). Raises: ValueError as `log_prob`."""
        self._check(x)
        factor = self._factor()
        mean = torch.cholesky_solve(((x - self.bias) @ self.weight).mT, factor).mT
        return MultivariateNormal(mean, self.variance * torch.cholesky_inverse(factor), validate_args=False)

    def elbo(self, x: Float[Tensor, "batch n"]) -> Elbo:
        """E_q[log p(x|h)] and KL(q(h|x)‖p(h)) for each example, without a draw. Raises: ValueError as `log_prob`."""
        self._check(x)
        q = self.encoder(x)
        blur = self.weight.square().sum(0) @ q.variance[0]
        squares = (x - self.bias - q.mean @ self.weight.mT).square().sum(-1) + blur
        return Elbo(self._reconstruction(squares), kl(q, self.prior()))

    def gap(self, x: Float[Tensor, "batch n"]) -> Float[Tensor, " batch"]:
        """log p(x) − ELBO(x) = KL(q(h|x)‖p(h|x)) ≥ 0, without cancellation. Raises: ValueError as `log_prob`."""
        posterior = self.posterior(x)
        return kl(self.encoder(x), posterior)

    def loss(self, data: Float[Tensor, "batch n"] | SampleMoments, kl_weight: float = 1.0) -> Float[Tensor, ""]:
        """Mean over the data of −E_q[log p(x|h)] + kl_weight · KL(q(h|x)‖p(h)), exact.

        Given the moments in place of the rows, its cost is O(n²m), whatever N was. Raises: ValueError as `log_prob`.
        """
        bound = self._mean_elbo(data) if isinstance(data, SampleMoments) else self.elbo(data)
        return (kl_weight * bound.kl - bound.reconstruction).mean()

    @torch.no_grad()
    def encode_best(self) -> None:
        """Sets V = Ω⁻¹Wᵀ, c = −Vb and s_j² = σ²/Ω_jj: of all diagonal encoders, the one with the smallest gap."""
        affine, factor = self.encoder.net, self._factor()
        V = torch.cholesky_solve(self.weight.mT, factor)
        affine.mean.weight.copy_(V)  # type: ignore[union-attr, operator]
        affine.mean.bias.copy_(-V @ self.bias)  # type: ignore[union-attr, operator]
        affine.log_variance.copy_(self.variance.log() - factor.square().sum(-1).log())  # type: ignore[operator]

    def sampled(self) -> VAE:
        """The same parameters in an ordinary VAE, whose bounds are estimated by draws: for `iwae` and for samples."""
        return VAE(self.encoder, self.decoder, self.prior)

    def _mean_elbo(self, data: SampleMoments) -> Elbo:
        affine, W = self.encoder.net, self.weight
        V, s2 = affine.mean.weight, affine.log_variance.exp()  # type: ignore[union-attr, operator]
        mean = affine.mean(data.mean)  # type: ignore[operator]
        VS = V @ data.covariance  # type: ignore[operator]
        spread = VS @ V.mT  # type: ignore[operator]
        off = (data.mean - self.bias - W @ mean).square().sum()
        gram = W.mT @ W
        squares = off + data.covariance.trace() - 2 * (W.mT * VS).sum() + (gram * spread).sum() + gram.diagonal() @ s2
        divergence = 0.5 * (mean.square() + spread.diagonal() + s2 - 1 - s2.log()).sum()
        return Elbo(self._reconstruction(squares)[None], divergence[None])

    def _reconstruction(self, squares: Tensor) -> Tensor:
        return -0.5 * (squares / self.variance + self.n * (self.variance.log() + math.log(2 * math.pi)))

    def _factor(self) -> Tensor:
        """L with Ω = LLᵀ."""
        eye = torch.eye(self.m, dtype=self.weight.dtype, device=self.weight.device)
        return torch.linalg.cholesky(self.weight.mT @ self.weight + self.variance * eye)

    def _check(self, x: Tensor) -> None:
        checks.shape("x", x, (None, self.n))
        self.sampled().check(x, 1)


class _Affine(nn.Module):
    """x ↦ (Vx + c, log s²): what an `Encoder` asks of its network, with a variance that is the same for every x."""

    def __init__(self, n: int, m: int, rng: torch.Generator, dtype: torch.dtype):
        super().__init__()
        self.mean = linear(n, m, rng, dtype)
        self.log_variance = nn.Parameter(torch.zeros(m, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x)
        return torch.cat([mean, self.log_variance.expand_as(mean)], -1)
