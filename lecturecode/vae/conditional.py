"""Conditional VAE: p(x|y) = ∫ p(x|h,y) p(h) dh for a label y, with q(h|x,y) ≈ p(h|x,y).

    bound   ELBO(x|y) = E_q[log p(x|h,y)] − KL(q(h|x,y)‖p(h)) ≤ log p(x|y)

For each y it is a variational autoencoder of its own, all with the same weights: `given(y)` is that one. The label
enters as a one-hot code beside x and beside h. (Sohn, Lee & Yan 2015.)
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import one_hot

from .. import checks
from .bounds import Elbo
from .model import VAE

__all__ = ["Concatenated", "ConditionalVAE"]


class Concatenated(nn.Module):
    """(a, b) ↦ module([a; b]), joined along the last axis; leading axes, such as draws, are broadcast."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, a: Float[Tensor, "*rows n"], b: Float[Tensor, "*others m"]) -> Distribution:
        rows = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
        return self.module(torch.cat([a.expand(*rows, -1), b.expand(*rows, -1)], -1))


class ConditionalVAE(nn.Module):
    """encoder([x; code]) → q(h|x,y), decoder([h; code]) → p(x|h,y), prior() → p(h); the code of y is one-hot.

    cvae = ConditionalVAE(
        Encoder(mlp([64 + 10, 128, 16], rng)), Decoder(mlp([8 + 10, 128, 64], rng), Bernoulli()), StandardNormal(8), 10)

    Raises: ValueError where classes < 2.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module, classes: int):
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes is {classes}; with fewer than two there is nothing to condition on: use VAE")
        self.encoder, self.decoder, self.prior, self.classes = encoder, decoder, prior, classes

    def given(self, y: Int[Tensor, " batch"]) -> VAE:
        """The variational autoencoder of p(x|y): row i of its x belongs to y_i. Its weights are this model's own.

        Raises: ValueError where a label is not one of 0 … classes − 1.
        """
        checks.shape("y", y, (None,))
        if checks.is_free(y) and ((y < 0) | (y >= self.classes)).any():
            wrong = int(((y < 0) | (y >= self.classes)).nonzero()[0])
            raise ValueError(f"y[{wrong}] is {int(y[wrong])}; the labels are 0 … {self.classes - 1}")
        weight = next(self.parameters())
        code = one_hot(y.long(), self.classes).to(weight.dtype)
        return VAE(_Given(self.encoder, code), _Given(self.decoder, code), self.prior)

    def elbo(self, x: Float[Tensor, "batch *n"], y: Int[Tensor, " batch"], draws: int, rng: torch.Generator) -> Elbo:
        """The bound of log p(x|y) for each example, in nats. Raises: ValueError as `VAE.elbo` and `given`."""
        return self.given(y).elbo(x, draws, rng)

    def loss(
        self,
        batch: tuple[Float[Tensor, "batch *n"], Int[Tensor, " batch"]],
        rng: torch.Generator,
        kl_weight: float = 1.0,
    ) -> Float[Tensor, ""]:
        """Mean over a batch (x, y) of −E_q[log p(x|h,y)] + kl_weight · KL, with one draw for each example."""
        x, y = batch
        return self.given(y).loss(x, rng, kl_weight)

    def sample(self, y: Int[Tensor, " count"], rng: torch.Generator) -> Float[Tensor, "count *n"]:
        """One draw of p(x|y) for each label."""
        return self.given(y).sample(len(y), rng)


class _Given(nn.Module):
    """a ↦ module([a; code])."""

    def __init__(self, module: nn.Module, code: Tensor):
        super().__init__()
        self.joined, self.code = Concatenated(module), code
        if hasattr(module, "likelihood"):
            self.likelihood = module.likelihood  # what `VAE.check` asks about the support

    def forward(self, a: Tensor) -> Distribution:
        if a.shape[-2] != len(self.code):
            raise ValueError(f"x has {a.shape[-2]} rows and y {len(self.code)} labels; give one label to each row")
        return self.joined(a, self.code)
