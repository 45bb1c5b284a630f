"""Learning by one loss: minus the mean log-likelihood, up to what carries no gradient.

    ∂/∂θ [−(1/N) Σ log P(x)] = (1/N) Σ ∂F(x)/∂θ − E_{x′∼P}[∂F(x′)/∂θ]          F(x) = −log Σ_h f(x,h)
    loss = (1/N) Σ F(x) − Σ_k w_k F(x′_k),   x′ and w held fixed

Exact maximum likelihood, CD-k and persistent CD differ only in where x′ comes from:

    exact     all configurations, w their probabilities under the model
    CD-k      k steps of a Markov chain from the data (Hinton 2002), w equal
    PCD       the same chain, never started anew (Tieleman 2008), w equal
"""

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import checks

__all__ = ["FreeEnergy", "Persistent", "contrastive_divergence", "contrastive_loss"]

Kernel = Callable[[Tensor, torch.Generator], Tensor]


@runtime_checkable
class FreeEnergy(Protocol):
    """A model that gives F(x) = −log Σ_h f(x,h) for each row of x."""

    def free_energy(self, x: Tensor) -> Tensor:
        """F(x), and ValueError where x is nothing that the model takes."""
        ...


def contrastive_loss(
    model: FreeEnergy,
    x_data: Float[Tensor, "..."],
    x_model: Float[Tensor, "..."],
    weights: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, ""]:
    """(1/N) Σ F(x_data) − Σ_k w_k F(x_model_k), w = 1/count unless given; neither w nor x_model carries a gradient.

    x_data is (N, n), x_model (count, n), w (count,). With all configurations as x_model and their probabilities as w,
    its gradient is that of −(1/N) Σ log P(x_data). Its value is no log-likelihood: only the gradient means something.

    Raises: ValueError where x_data or x_model is empty, holds NaN or other values than the model takes, or differs
    from the other in width, dtype or device; where the weights are no probabilities, one for each row of x_model.
    """
    checks.shape("x_data", x_data, (None, None))
    checks.shape("x_model", x_model, (None, x_data.shape[1]))
    _alike("x_data", x_data, "x_model", x_model)
    x_model = x_model.detach()
    data = model.free_energy(x_data).mean()
    if weights is None:
        return data - model.free_energy(x_model).mean()
    checks.shape("weights", weights, (len(x_model),))
    _alike("x_data", x_data, "weights", weights)
    if checks.is_free(weights):
        checks.probabilities("weights", weights)
    return data - weights.detach() @ model.free_energy(x_model)


@torch.no_grad()
def contrastive_divergence(
    model: Any, x: Float[Tensor, "batch n"], steps: int, rng: torch.Generator
) -> Float[Tensor, "batch n"]:
    """x after `steps` steps of the model's Gibbs chain: the x_model of CD-k, where x are data and steps = k.

    model   has a method gibbs(x, rng) -> x, or is itself such a kernel, as those of `lecturecode.markov` are.

    Raises: ValueError where steps < 1, x is empty, or the model has no chain. Source: Hinton (2002).
    """
    kernel = _kernel(model)
    if steps < 1:
        raise ValueError(f"steps is {steps}; a chain makes at least one step")
    checks.shape("x", x, (None, None))
    for _ in range(steps):
        x = kernel(x, rng)
    return x


class Persistent(nn.Module):
    """Chains that go on from where they were: the x_model of persistent CD, one chain a row of x.

    chains = Persistent(x_start)
    loss = contrastive_loss(model, batch, chains.advance(model, 1, rng))

    x is copied and is the module's state, so that `Checkpoint(model=…, chains=chains, rng=rng, …)` resumes the chains
    with the rest of a run.

    Raises: ValueError where x is empty or holds NaN or infinities. Source: Tieleman (2008).
    """

    x: Tensor

    def __init__(self, x: Float[Tensor, "chains n"]):
        super().__init__()
        checks.shape("x", x, (None, None))
        checks.finite("x", x)
        self.register_buffer("x", x.detach().clone())

    @torch.no_grad()
    def advance(self, model: Any, steps: int, rng: torch.Generator) -> Float[Tensor, "chains n"]:
        """`steps` steps of every chain under the model as it is now; returns where they stand.

        Raises: ValueError as `contrastive_divergence` does.
        """
        self.x = contrastive_divergence(model, self.x, steps, rng)
        return self.x


def _kernel(model: Any) -> Kernel:
    kernel = getattr(model, "gibbs", None if isinstance(model, nn.Module) else model)
    if not callable(kernel):
        raise ValueError(
            f"a {type(model).__name__} has no method gibbs(x, rng); pass a kernel (x, rng) -> x in its place, "
            "such as one of lecturecode.markov"
        )
    return cast(Kernel, kernel)


def _alike(first: str, reference: Tensor, name: str, tensor: Tensor) -> None:
    checks.same_device(**{first: reference, name: tensor})
    if tensor.dtype != reference.dtype:
        raise ValueError(f"{first} is {reference.dtype} and {name} {tensor.dtype}; pass {name}.to({reference.dtype})")
