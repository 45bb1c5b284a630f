"""What a network is asked for: x_0, the noise, the score, or a velocity. Each is the others at a known noise level.

    x_t = α x_0 + σ ε,    v = α ε − σ x_0,    score = −ε/σ

A `Prediction` says how its target is made from (x_0, ε) and how x̂_0 is found from an answer y. All are affine in x̂_0 at
fixed x_t, so a mean of answers is the answer for the mean, and E[target | x_t] belongs to E[x_0 | x_t].
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks

__all__ = ["CLEAN", "NOISE", "SCORE", "VELOCITY", "Prediction", "preconditioned"]


def _one(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1."""
    return torch.ones_like(alpha)


@dataclass(frozen=True)
class Prediction:
    """One way to ask: target(x0, eps, alpha, sigma) ↦ y and clean(y, xt, alpha, sigma) ↦ x_0, inverses at fixed x_t.

    `scale(alpha, sigma)` multiplies x_t before a network sees it; `error(alpha, sigma)` is |dy/dx̂_0|, so that
    |y − ŷ|² = error² |x_0 − x̂_0|². `answers_pure_noise` is False where y says nothing about x_0 at α = 0.
    """

    name: str
    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    clean: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    error: Callable[[Tensor, Tensor], Tensor]
    scale: Callable[[Tensor, Tensor], Tensor] = _one
    answers_pure_noise: bool = True

    def of(self, x0: Tensor, xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The answer y that stands for x_0 at x_t: the target with ε = (x_t − α x_0)/σ."""
        return self.target(x0, (xt - alpha * x0) / sigma, alpha, sigma)


CLEAN = Prediction(
    "clean",
    target=lambda x0, eps, alpha, sigma: x0,
    clean=lambda y, xt, alpha, sigma: y,
    error=_one,
)
NOISE = Prediction(
    "noise",
    target=lambda x0, eps, alpha, sigma: eps,
    clean=lambda y, xt, alpha, sigma: (xt - sigma * y) / alpha,
    error=lambda alpha, sigma: alpha / sigma,
    answers_pure_noise=False,
)
SCORE = Prediction(
    "score",
    target=lambda x0, eps, alpha, sigma: -eps / sigma,
    clean=lambda y, xt, alpha, sigma: (xt + sigma.square() * y) / alpha,
    error=lambda alpha, sigma: alpha / sigma.square(),
    answers_pure_noise=False,
)
VELOCITY = Prediction(
    "velocity",
    target=lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,
    clean=lambda y, xt, alpha, sigma: (alpha * xt - sigma * y) / (alpha.square() + sigma.square()),
    error=lambda alpha, sigma: (alpha.square() + sigma.square()) / sigma,
)


def preconditioned(data_std: float) -> Prediction:
    """The network's input, answer and target have unit variance at every noise level if the data have `data_std`.

    With s² = α² data_std² + σ²:

        x̂_0 = data_std² α/s² · x_t + data_std σ/s · y,    the network sees x_t/s,

    which is c_skip, c_out and c_in of Karras et al. (2022), eq. 7 and table 1, for any α. With data_std = 1 and
    α² + σ² = 1 the answer y is −v.

    Raises: ValueError where data_std ≤ 0.
    """
    checks.positive("data_std", data_std)
    d2 = float(data_std) ** 2

    def norm(alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha.square() * d2 + sigma.square()).sqrt()

    def target(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (sigma * x0 - alpha * d2 * eps) / (data_std * norm(alpha, sigma))

    def clean(y: Tensor, xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        s = norm(alpha, sigma)
        return (alpha * d2 / s.square()) * xt + (data_std * sigma / s) * y

    return Prediction(
        "preconditioned",
        target,
        clean,
        error=lambda alpha, sigma: norm(alpha, sigma) / (data_std * sigma),
        scale=lambda alpha, sigma: 1 / norm(alpha, sigma),
    )
