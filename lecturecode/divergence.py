"""Entropy and divergences, in nats, with relative accuracy also where they are tiny.

    H(p) = −Σ p log p                      KL(p‖q) = Σ p log(p/q)
    JS(p, q) = ½ KL(p‖m) + ½ KL(q‖m)       TV(p, q) = ½ Σ |p − q|,        m = (p + q)/2

The textbook sum for KL cancels: its terms are of order |p − q|, their sum of order |p − q|². Since both sides sum to
one, Σ (q − p) = 0 may be added, and each term becomes p·g((q − p)/p) with g(r) = r − log(1 + r) ≥ 0. All terms are
non-negative, so nothing cancels, provided g is accurate near zero. There, with s = r/(2 + r),
    g(r) = 2 [s²/(1 − s) − s³/3 − s⁵/5 − …],
because log(1 + r) = 2 artanh(s); away from zero log(1 + r) = log q − log p, as 1 + r would lose a q tiny beside p.
For Gaussians with covariances Σ = LLᵀ, and D = L_q⁻¹L_p − 1, lower triangular, the same g gives
    KL = Σ_i g(D_ii) + ½ Σ_ij D_ij² + ½ |L_q⁻¹(μ_p − μ_q)|².
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal
from torch.nn.functional import logsigmoid

from . import checks

__all__ = ["entropy", "js", "kl", "tv"]

NEAR = 0.2  # |r| below which g(r) is summed as a series


def entropy(p: Float[Tensor, "*batch k"] | Distribution) -> Float[Tensor, "..."]:
    """H(p) = −Σ p log p, with 0 log 0 = 0; for a distribution its (differential) entropy, in nats.

    Raises: ValueError where p is no probability vector along its last axis.
    """
    if isinstance(p, Independent):
        return _summed(entropy(p.base_dist), p.reinterpreted_batch_ndims)
    if isinstance(p, Bernoulli):
        on, off = (torch.where(side > 0, side * log, 0.0) for side, log in _sides(p))
        return -(on + off)
    if isinstance(p, Distribution):
        return p.entropy()
    checks.probabilities("p", p)
    return torch.special.entr(p).sum(-1)


def kl(p: Tensor | Distribution, q: Tensor | Distribution) -> Float[Tensor, "..."]:
    """KL(p‖q) = Σ p log(p/q), in nats: ≥ 0, and infinite where p has weight and q has none.

    p and q are probabilities along the last axis, or both Gaussian (Normal, MultivariateNormal, in any mixture of
    the two), or both Bernoulli; `Independent` sums over its axes, and makes a vector of a Normal's last axis.

    Raises: ValueError where the shapes, the devices or the families do not fit, or a sum is not one.
    Source: Cover & Thomas (2006), eq. 2.26 (sums) and eq. 8.46 (densities).
    """
    if isinstance(p, Tensor) and isinstance(q, Tensor):
        _pair(p, q)
        return _terms(p, q - p, _log_ratio(p, q)).sum(-1)
    for families, rule in _RULES:
        if all(isinstance(_unwrapped(d), families) for d in (p, q)):
            _same_event(p, q)
            axes = p.reinterpreted_batch_ndims if isinstance(p, Independent) and isinstance(q, Independent) else 0
            return _summed(rule(_unwrapped(p), _unwrapped(q)), axes)
    raise ValueError(
        f"no closed form here for KL({type(p).__name__}‖{type(q).__name__}); estimate it as the mean of "
        "p.log_prob(x) − q.log_prob(x) over draws x of p"
    )


def js(p: Float[Tensor, "*#batch k"], q: Float[Tensor, "*#batch k"]) -> Float[Tensor, "..."]:
    """JS(p, q) = ½ KL(p‖m) + ½ KL(q‖m) with m = (p + q)/2: symmetric, finite, at most log 2.

    Raises: ValueError as `kl`. Source: Lin (1991), eq. 4.1 with equal weights.
    """
    _pair(p, q)
    half = (q - p) / 2
    return (_terms(p, half, _log_ratio(2 * p, p + q)) + _terms(q, -half, _log_ratio(2 * q, p + q))).sum(-1) / 2


def tv(p: Float[Tensor, "*#batch k"], q: Float[Tensor, "*#batch k"]) -> Float[Tensor, "..."]:
    """TV(p, q) = ½ Σ |p − q|, the largest difference of the two in the probability of any event.

    Raises: ValueError as `kl`. Source: Levin, Peres & Wilmer (2017), prop. 4.2.
    """
    _pair(p, q)
    return (p - q).abs().sum(-1) / 2


class _Excess(torch.autograd.Function):
    """g(r) = r − log(1 + r) for |r| < 0.2, relative error of a few ulp; g′(r) = r/(1 + r)."""

    @staticmethod
    def forward(ctx, r: Tensor) -> Tensor:
        ctx.save_for_backward(r)
        square = (s := r / (2 + r)).square()
        series = square / 17
        for odd in (15, 13, 11, 9, 7, 5):
            series = series.add_(1 / odd).mul_(square)
        return 2 * square * (1 / (1 - s) - s * series.add_(1 / 3))

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0] / (1 + ctx.saved_tensors[0])


class _Normals(torch.autograd.Function):
    """KL of two normal distributions, one node of the graph in place of thirty: it is inside every training step."""

    @staticmethod
    def forward(ctx, loc_p: Tensor, scale_p: Tensor, loc_q: Tensor, scale_q: Tensor) -> Tensor:
        ctx.save_for_backward(loc_p, scale_p, loc_q, scale_q)
        shift = (loc_p - loc_q) / scale_q
        if scale_p.dtype == torch.float32 and scale_p.device.type != "mps":  # float64 has the digits that cancel
            step = (ratio := scale_p.double().div(scale_q)) - 1
            return step.addcmul(step, step, value=0.5).sub_(ratio.log_()).float().addcmul(shift, shift, value=0.5)
        step = (scale_p - scale_q) / scale_q
        return _gaussian(shift, step, scale_p, scale_q) + 0.5 * step.square()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        loc_p, scale_p, loc_q, scale_q = ctx.saved_tensors
        step, shift = (scale_p - scale_q) / scale_q, (loc_p - loc_q) / scale_q
        rise = step * (step + 2)  # σ_p²/σ_q² − 1
        slopes: list[Any] = [shift / scale_q, rise / scale_p, None, None]
        if any(ctx.needs_input_grad[2:]):
            slopes[2:] = -slopes[0], -(rise + shift.square()) / scale_q
        pairs = zip(slopes, ctx.saved_tensors, strict=True)
        return tuple(None if slope is None else (grads[0] * slope).sum_to_size(x.shape) for slope, x in pairs)


def _terms(p: Tensor, difference: Tensor, log: Tensor) -> Tensor:
    """p g(r) = p log(p/q) − p + q ≥ 0 from difference = q − p = p r and log = log(q/p); q where p = 0."""
    near = difference.abs() < NEAR * p
    ratio = torch.where(near, difference, 0.0) / torch.where(near, p, 1.0)
    return torch.where(near, p * _Excess.apply(ratio), difference - torch.where(p > 0, p * log, 0.0))  # type: ignore[operator]


def _log_ratio(p: Tensor, q: Tensor) -> Tensor:
    """log(q/p), without NaN in it or in its gradient where p = 0."""
    return torch.where(p > 0, q, 1.0).log() - torch.where(p > 0, p, 1.0).log()


def _gaussian(shift: Tensor, step: Tensor, scale_p: Tensor, scale_q: Tensor) -> Tensor:
    """g(D_ii) + ½ |L_q⁻¹(μ_p − μ_q)|_i² for each i, from `step` = D_ii and the diagonals of both L."""
    return _terms(torch.ones_like(step), step, (scale_p / scale_q).log()) + 0.5 * shift.square()


def _multivariate_normal(p: Normal | MultivariateNormal, q: Normal | MultivariateNormal) -> Tensor:
    factor_p, factor_q = (torch.diag_embed(d.scale) if isinstance(d, Normal) else d.scale_tril for d in (p, q))
    cov_p, cov_q = (vars(d).get("covariance_matrix") for d in (p, q))  # None unless it was given

    def solved(right: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor_q, right, upper=False)

    step = solved(factor_p - factor_q)
    if cov_p is not None or cov_q is not None:  # their difference is exact, that of their factors is rounded
        cov_p, cov_q = (f @ f.mT if c is None else c for f, c in ((factor_p, cov_p), (factor_q, cov_q)))
        error = solved(solved(cov_p - cov_q).mT) - (step + step.mT + step @ step.mT)
        step = step + error.tril() - torch.diag_embed(error.diagonal(0, -2, -1) / 2)
    shift = solved((p.loc - q.loc)[..., None])[..., 0]
    diagonals = (m.diagonal(0, -2, -1) for m in (step, factor_p, factor_q))
    return _gaussian(shift, *diagonals).sum(-1) + 0.5 * step.square().sum((-2, -1))


def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    ((on_p, log_on_p), (off_p, log_off_p)), ((on_q, log_on_q), (off_q, log_off_q)) = _sides(p), _sides(q)
    if _by_logits(p) and _by_logits(q):  # σ(b) − σ(a) = σ(b) σ(−a) (1 − e^{a−b}), its exponent kept below zero
        gap = (p.logits - q.logits).nan_to_num(nan=0.0)
        falls, rises = on_p * off_q * torch.expm1(-gap.clamp(min=0)), on_q * off_p * torch.expm1(gap.clamp(max=0))
        difference = torch.where(gap > 0, falls, -rises)
    else:
        difference = torch.where(on_p > 0.5, off_p - off_q, on_q - on_p)  # the smaller side keeps its digits
    return _terms(on_p, difference, log_on_q - log_on_p) + _terms(off_p, -difference, log_off_q - log_off_p)


def _sides(d: Bernoulli) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(p, log p) of 1 and of 0, from what was given: torch clamps what it converts."""
    if _by_logits(d):
        return (d.logits.sigmoid(), logsigmoid(d.logits)), ((-d.logits).sigmoid(), logsigmoid(-d.logits))
    return (d.probs, d.probs.log()), (1 - d.probs, torch.log1p(-d.probs))


def _by_logits(d: Bernoulli) -> bool:
    return d._param is vars(d).get("logits")


def _summed(x: Tensor, axes: int) -> Tensor:
    return x.sum(tuple(range(-axes, 0))) if axes else x


def _unwrapped(d: Any) -> Any:
    return d.base_dist if isinstance(d, Independent) else d


def _pair(p: Tensor, q: Tensor) -> None:
    checks.same_device(p=p, q=q)
    checks.probabilities("p", p)
    checks.probabilities("q", q)
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(f"p has {p.shape[-1]} outcomes and q {q.shape[-1]}; they must share one set of outcomes")
    _broadcastable(p.shape[:-1], q.shape[:-1])


def _same_event(p: Any, q: Any) -> None:
    axes = [d.reinterpreted_batch_ndims if isinstance(d, Independent) else 0 for d in (p, q)]
    if p.event_shape != q.event_shape or (0 not in axes and axes[0] != axes[1]):
        raise ValueError(
            f"p is over events of shape {tuple(p.event_shape)} ({axes[0]} axes made independent) and q over "
            f"{tuple(q.event_shape)} ({axes[1]}); give both the same, a vector by Independent(…, 1)"
        )
    _broadcastable(p.batch_shape, q.batch_shape)
    first, second = (d.loc if hasattr(d, "loc") else d._param for d in (_unwrapped(p), _unwrapped(q)))
    checks.same_device(p=first, q=second)


def _broadcastable(p: torch.Size, q: torch.Size) -> None:
    if any(a != b and 1 not in (a, b) for a, b in zip(reversed(p), reversed(q), strict=False)):
        raise ValueError(f"p has the batch shape {tuple(p)} and q {tuple(q)}; they do not broadcast")


_RULES: tuple[tuple[tuple[type, ...], Callable[..., Tensor]], ...] = (
    ((Normal,), lambda p, q: _Normals.apply(p.loc, p.scale, q.loc, q.scale)),
    ((Bernoulli,), _bernoulli),
    ((Normal, MultivariateNormal), _multivariate_normal),
)
