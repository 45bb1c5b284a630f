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
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal

from .. import checks
from ..divergence import kl

if TYPE_CHECKING:
    from .model import VAE

__all__ = ["Elbo", "iwae", "iwae_loss"]


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


def iwae_loss(model: "VAE", x: Float[Tensor, "batch *n"], draws: int, rng: torch.Generator) -> Float[Tensor, ""]:
    """Mean over the batch of −log (1/K) Σ_l w_l, with the doubly reparametrised gradient for the encoder.

    θ gets Σ_l ŵ_l ∇_θ log p(x,h⁽ˡ⁾), ŵ_l = w_l/Σ w, as from `iwae`. φ gets Σ_l ŵ_l² (∂log w_l/∂h⁽ˡ⁾) ∇_φ h⁽ˡ⁾: the
    score ∇_φ log q is reparametrised once more, which leaves the mean and removes variance; with the exact posterior
    the gradient of φ is zero draw by draw.

    Raises: ValueError as `VAE.elbo`, and where q(h|x) has no reparametrised draws.
    Source: Tucker, Lawson, Gu & Maddison (2019), section 4.
    """
    model.check(x, draws)
    q = model.encoder(x)
    h = model.draw(q, draws, rng)
    if torch.is_grad_enabled() and not h.requires_grad and any(p.requires_grad for p in model.encoder.parameters()):
        raise ValueError("draws of q(h|x) carry no gradient to the encoder; give it a reparametrised family, as Normal")
    prior = model.prior()
    _same_space(q, prior)
    with torch.enable_grad():  # ∂log q/∂h with q's own parameters held
        point = h.detach().requires_grad_()
        log_q = q.log_prob(point)
        (slope,) = torch.autograd.grad(log_q.sum(), point)
    held = log_q.detach() + (slope * (h - h.detach())).flatten(log_q.ndim).sum(-1)
    log_weights = log_likelihood(model.decoder(h), x) + prior.log_prob(h) - held
    share = log_weights.detach().softmax(0)
    if h.requires_grad:
        h.register_hook(lambda grad: grad * share.reshape(share.shape + (1,) * (grad.ndim - share.ndim)))
    value = log_weights.detach().logsumexp(0) - math.log(draws)
    weighted = (share * log_weights).sum(0)
    return -(value + weighted - weighted.detach()).mean()


def check_examples(model: nn.Module, x: Tensor, draws: int) -> None:
    """The checks at the door of every bound: shape, draws, device, dtype, and values where reading them is free."""
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass at least one example, one row for each: (batch, n)")
    if draws < 1:
        raise ValueError(f"draws is {draws}; ask for at least one")
    weight = next(model.parameters(), None)
    if weight is not None:
        checks.same_device(x=x, model=weight)
        if x.dtype != weight.dtype:
            raise ValueError(f"x is {x.dtype} and the model {weight.dtype}; pass x.to({weight.dtype})")
    likelihood = getattr(model.decoder, "likelihood", None)
    if likelihood is not None and checks.is_free(x):
        likelihood.check(x)


def kl_to_prior(q: Distribution, prior: Distribution, h: Float[Tensor, "draws batch m"]) -> Float[Tensor, "..."]:
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
    bits = p.base_dist if isinstance(p, Independent) else None
    if type(bits) is Bernoulli and bits._param is vars(bits).get("logits"):
        return _Bits.apply(bits.logits, x, p.reinterpreted_batch_ndims)  # type: ignore[return-value, union-attr]
    return p.log_prob(x)


class _Bits(torch.autograd.Function):
    """Σ_i [x_i y_i − log(1 + e^{y_i})] over the last axes, one node of the graph: it is inside every training step."""

    @staticmethod
    def forward(ctx, y: Tensor, x: Tensor, axes: int) -> Tensor:
        ctx.save_for_backward(y, x)
        ctx.axes = axes
        above = y.relu()  # log(1 + e^y) = max(y, 0) + log(1 + e^{−|y|}): for x = 0 and 1 nothing cancels
        rest = torch.sub(y, above, alpha=2).exp_().log1p_()
        return (x * y).sub_(above).sub_(rest).sum(tuple(range(-axes, 0)))

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        y, x = ctx.saved_tensors
        grad = grads[0][(..., *[None] * ctx.axes)]
        of_x = (grad * y).sum_to_size(x.shape) if ctx.needs_input_grad[1] else None
        of_y = x - y.sigmoid()
        return of_y * grad if torch.is_grad_enabled() else of_y.mul_(grad), of_x, None


def _same_space(q: Distribution, prior: Distribution) -> None:
    if q.event_shape != prior.event_shape:
        raise ValueError(
            f"q(h|x) is over h of shape {tuple(q.event_shape)} and the prior over {tuple(prior.event_shape)}; "
            "give both the same m (an encoder's last width is 2m)"
        )


def _is_gaussian(d: Distribution) -> bool:
    inner = d.base_dist if isinstance(d, Independent) else d
    return isinstance(inner, Normal | MultivariateNormal)
