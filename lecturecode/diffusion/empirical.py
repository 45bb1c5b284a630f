"""The exact denoiser of a data set: what a network that fits its training loss perfectly would answer.

    p(x_0) = (1/N) Σ_i δ(x_0 − x_i),        p_t(x_t) = (1/N) Σ_i N(x_t; α x_i, σ² I)
    p(i|x_t)   = softmax_i(−|x_t − α x_i|²/2σ²)
    E[x_0|x_t] = Σ_i p(i|x_t) x_i

Sampling with it gives the training data back and nothing else. The sums run over blocks of the data with a running
maximum, so that memory does not grow with N (Milakov & Gimelshein 2018).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .. import checks
from .exact import row_levels
from .schedule import Schedule, Time

__all__ = ["EmpiricalDenoiser"]

CELLS = 2**21  # distances held at a time


@dataclass(frozen=True, eq=False)
class EmpiricalDenoiser:
    """E[x_0|x_t] for x_0 drawn uniformly from the rows of `data`; at t = 0 it is the nearest row, ties shared.

    The work is done in the wider dtype of the data and x_t.

    Raises: ValueError where data is empty or not finite.
    """

    data: Float[Tensor, "N *d"]
    schedule: Schedule

    def __post_init__(self) -> None:
        checks.shape("data", self.data, (None,) * max(2, self.data.ndim))
        checks.finite("data", self.data)

    def __call__(self, xt: Float[Tensor, "batch *d"], t: Time) -> Float[Tensor, "batch *d"]:
        """x̂_0 = E[x_0 | x_t]."""
        return self._sums(xt, t)[2].reshape(xt.shape).to(xt)

    def log_prob(self, xt: Float[Tensor, "batch *d"], t: Time) -> Float[Tensor, " batch"]:
        """log p_t(x_t) in nats.

        Raises: ValueError at t = 0, where points have no density.
        """
        top, total, _ = self._sums(xt, t)
        _, sigma = row_levels(self.schedule, t, xt, top, 0)
        if checks.is_free(sigma) and not (sigma > 0).all():
            raise ValueError("the data are points and have no density at t = 0; choose t > 0")
        d = self.data[0].numel()
        constant = math.log(len(self.data)) + d * math.log(2 * math.pi) / 2
        return (top + total.log() - d * sigma.log() - constant).to(xt)

    def _sums(self, xt: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """The largest logit a, Σ_i exp(a_i − a), and the weighted mean of the data."""
        checks.shape("xt", xt, (None, *self.data.shape[1:]))
        wide = torch.promote_types(xt.dtype, self.data.dtype)
        x = xt.flatten(1).to(wide)
        alpha, sigma = row_levels(self.schedule, t, xt, x, 1)
        top = x.new_full((len(x),), -math.inf)
        total, mean = torch.zeros_like(top), torch.zeros_like(x)
        narrow = sigma.square().clamp(min=torch.finfo(wide).tiny ** 0.5)
        rows = max(1, CELLS // (x.numel() if alpha.ndim else len(x)))
        for block in self.data.flatten(1).to(wide).split(rows):
            logits = -_distances(x, alpha, block) / (2 * narrow)
            higher = torch.maximum(top, logits.amax(1))
            weights, kept = (logits - higher[:, None]).exp(), (top - higher).exp()
            total = kept * total + weights.sum(1)
            mean = kept[:, None] * mean + weights @ block
            top = higher
        return top, total, mean / total[:, None]


def _distances(x: Tensor, alpha: Tensor, block: Tensor) -> Tensor:
    """|x − α x_i|² from differences: |x|² − 2α x·x_i + α²|x_i|² cancels where σ is small."""
    direct = "donot_use_mm_for_euclid_dist"
    if alpha.ndim == 0:
        return torch.cdist(x, alpha * block, compute_mode=direct).square()
    return (x[:, None] - alpha[..., None] * block).square().sum(-1)
