"""Entropy and divergences, in nats, with relative accuracy also where they are tiny.

    H(p) = −Σ p log p                      KL(p‖q) = Σ p log(p/q)
    JS(p, q) = ½ KL(p‖m) + ½ KL(q‖m)       TV(p, q) = ½ Σ |p − q|,        m = (p + q)/2

The textbook sum for KL cancels: its terms are of order |p − q|, their sum of order |p − q|². Since both sides sum to
one, Σ (q − p) = 0 may be added, and each term becomes p·g((q − p)/p) with g(r) = r − log(1 + r) ≥ 0. All terms are
non-negative, so nothing cancels, provided g is accurate near zero. There, with s = r/(2 + r),
    g(r) = 2 [s²/(1 − s) − s³/3 − s⁵/5 − …],
because log(1 + r) = 2 artanh(s). The same g gives the Gaussian case, r being a ratio of variances less one.
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal

from . import checks

__all__ = ["entropy", "js", "kl", "tv"]


def entropy(p: Float[Tensor, "*batch k"] | Distribution) -> Float[Tensor, "..."]:
    """H(p) = −Σ p log p, with 0 log 0 = 0; for a distribution its (differential) entropy, in nats.

    Raises: ValueError where p is no probability vector along its last axis.
    """
    if isinstance(p, Distribution):
        return p.entropy()
    checks.probabilities("p", p)
    return torch.special.entr(p).sum(-1)


def kl(p: Tensor | Distribution, q: Tensor | Distribution) -> Float[Tensor, "..."]:
    """KL(p‖q) = Σ p log(p/q), in nats: ≥ 0, and infinite where p has weight and q has none.

    p and q are probabilities along the last axis, or both Gaussian (Normal, MultivariateNormal, in any mixture of
    the two), or both Bernoulli; `Independent` sums over its axes.

    Raises: ValueError where the shapes, the devices or the families do not fit, or a sum is not one.
    Source: Cover & Thomas (2006), eq. 2.26 (sums) and eq. 8.46 (densities).
    """
    if isinstance(p, Tensor) and isinstance(q, Tensor):
        _pair(p, q)
        return _terms(p, q, q - p).sum(-1)
    if isinstance(p, Independent) and isinstance(q, Independent):
        axes = p.reinterpreted_batch_ndims
        if axes != q.reinterpreted_batch_ndims:
            raise ValueError(f"p has {axes} event axes and q {q.reinterpreted_batch_ndims}; give both the same")
        return kl(p.base_dist, q.base_dist).sum(tuple(range(-axes, 0)))
    for families, rule in _RULES:
        if all(isinstance(_unwrapped(d), families) for d in (p, q)):
            return rule(p, q)
    raise ValueError(
        f"no closed form here for KL({type(p).__name__}‖{type(q).__name__}); estimate it as the mean of "
        "p.log_prob(x) − q.log_prob(x) over draws x of p"
    )


def js(p: Float[Tensor, "*batch k"], q: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """JS(p, q) = ½ KL(p‖m) + ½ KL(q‖m) with m = (p + q)/2: symmetric, finite, at most log 2.

    Raises: ValueError as `kl`. Source: Lin (1991), eq. 4.1 with equal weights.
    """
    _pair(p, q)
    middle = (p + q) / 2
    return (_terms(p, middle, (q - p) / 2) + _terms(q, middle, (p - q) / 2)).sum(-1) / 2


def tv(p: Float[Tensor, "*batch k"], q: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """TV(p, q) = ½ Σ |p − q|, the largest difference of the two in the probability of any event.

    Raises: ValueError as `kl`. Source: Levin, Peres & Wilmer (2017), prop. 4.2.
    """
    _pair(p, q)
    return (p - q).abs().sum(-1) / 2


class _Excess(torch.autograd.Function):
    """g(r) = r − log(1 + r) for r ≥ −1, relative error of a few ulp at every r; g′(r) = r/(1 + r)."""

    @staticmethod
    def forward(ctx, r: Tensor) -> Tensor:
        ctx.save_for_backward(r)
        s = r / (2 + r)
        square = s * s
        series = torch.full_like(r, 1 / 17)
        for odd in (15, 13, 11, 9, 7, 5, 3):
            series = torch.addcmul(torch.full_like(r, 1 / odd), series, square)
        near = 2 * square * (1 / (1 - s) - s * series)
        return torch.where(r.abs() < 0.2, near, r - torch.log1p(r))

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (r,) = ctx.saved_tensors
        return grad * r / (1 + r)


def _excess(r: Tensor) -> Tensor:
    return _Excess.apply(r)  # type: ignore[return-value]  # apply is untyped


def _terms(p: Tensor, q: Tensor, difference: Tensor) -> Tensor:
    """p log(p/q) − p + q ≥ 0, given difference = q − p; q where p = 0, infinite where only q = 0."""
    here = p > 0
    p = torch.where(here, p, 1.0)
    ratio = torch.where(here, difference / p, 0.0)
    return torch.where(here, p * _excess(ratio), q)


def _pair(p: Tensor, q: Tensor) -> None:
    checks.same_device(p=p, q=q)
    if p.shape[-1:] != q.shape[-1:]:
        raise ValueError(f"p has {p.shape[-1]} outcomes and q {q.shape[-1]}; they must share one set of outcomes")
    checks.probabilities("p", p)
    checks.probabilities("q", q)


def _normal(p: Normal, q: Normal) -> Tensor:
    """½ [g(σ_p²/σ_q² − 1) + (μ_p − μ_q)²/σ_q²]."""
    ratio = (p.scale - q.scale) * (p.scale + q.scale) / q.scale**2
    return 0.5 * (_excess(ratio) + ((p.loc - q.loc) / q.scale) ** 2)


def _multivariate_normal(p: Distribution, q: Distribution) -> Tensor:
    """½ [Σ_i g(r_i) + |L⁻¹(μ_p − μ_q)|²], r_i the eigenvalues of L⁻¹(Σ_p − Σ_q)L⁻ᵀ, Σ_q = LLᵀ."""
    (mean_p, cov_p), (mean_q, cov_q) = _mean_and_covariance(p), _mean_and_covariance(q)
    factor = torch.linalg.cholesky(cov_q)
    half = torch.linalg.solve_triangular(factor, cov_p - cov_q, upper=False)
    ratio = torch.linalg.eigvalsh(torch.linalg.solve_triangular(factor, half.mT, upper=False))
    shift = torch.linalg.solve_triangular(factor, (mean_p - mean_q)[..., None], upper=False)[..., 0]
    return 0.5 * (_excess(ratio).sum(-1) + (shift**2).sum(-1))


def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    (on_p, off_p), (on_q, off_q) = ((d.logits.sigmoid(), (-d.logits).sigmoid()) for d in (p, q))
    difference = torch.where(on_p > 0.5, off_p - off_q, on_q - on_p)  # the smaller side keeps its digits
    return _terms(on_p, on_q, difference) + _terms(off_p, off_q, -difference)


def _mean_and_covariance(d: Distribution) -> tuple[Tensor, Tensor]:
    inner = _unwrapped(d)
    if isinstance(inner, MultivariateNormal):
        return inner.loc, inner.covariance_matrix
    normal = cast(Normal, inner)  # the table below admits nothing else
    return normal.loc, torch.diag_embed(normal.scale**2)


def _unwrapped(d: object) -> object:
    return d.base_dist if isinstance(d, Independent) else d


_RULES: tuple[tuple[tuple[type, ...], Callable[..., Tensor]], ...] = (
    ((Normal,), _normal),
    ((Bernoulli,), _bernoulli),
    ((Normal, MultivariateNormal), _multivariate_normal),
)
