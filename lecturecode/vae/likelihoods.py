"""Likelihoods p(x|h): what the numbers that a decoder network gives mean for x.

    Bernoulli   p(x_i = 1|h) = 1/(1 + exp(−y_i)),    x in {0, 1}
    Gaussian    p(x_i|h) = N(x_i; y_i, σ²),          x real

y is the network's output, one number for each x_i. A likelihood is a module, since σ may be learned. It turns y into
a `torch.distributions` object and says which x it can be asked about.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, distributions, nn

from .. import checks

__all__ = ["Bernoulli", "Gaussian", "Likelihood"]


@runtime_checkable
class Likelihood(Protocol):
    """A family of distributions of x, indexed by a network's output."""

    def __call__(self, output: Tensor) -> distributions.Distribution: ...

    def check(self, x: Tensor) -> None:
        """Raises ValueError where x lies outside the support."""
        ...


class Bernoulli(nn.Module):
    """Independent bits with log-odds y: log p(x|h) = Σ_i [x_i y_i − log(1 + e^{y_i})], in nats.

    It is a likelihood for x in {0, 1} only. For a grey value between, the same expression is no logarithm of a
    probability: it is not normalised (Loaiza-Ganem & Cunningham 2019).
    """

    def forward(self, output: Float[Tensor, "*batch n"]) -> distributions.Bernoulli:
        return distributions.Bernoulli(logits=output, validate_args=False)

    def check(self, x: Float[Tensor, "..."]) -> None:
        """Raises ValueError where a value of x is neither 0 nor 1."""
        outside = (x != 0) & (x != 1)
        if outside.any():
            where = tuple(outside.nonzero()[0].tolist())
            raise ValueError(
                f"x{list(where)} is {x[where].item():g}, and a Bernoulli likelihood is for 0 and 1: "
                "binarise (x >= 0.5), or use Gaussian for grey values"
            )


class Gaussian(nn.Module):
    """Independent Gaussians around y with one σ: log p(x|h) = −Σ_i [(x_i − y_i)²/2σ² + log σ + ½ log 2π].

    σ is in the units of x. With `learned=True` it is a parameter, kept positive as exp(log σ); its best value is the
    root mean square of the residuals (Rybkin, Daniilidis & Levine 2021, eq. 5).

    Raises: ValueError where σ ≤ 0.
    """

    def __init__(self, sigma: float, learned: bool = False, dtype: torch.dtype = torch.float32):
        super().__init__()
        checks.positive("sigma", sigma)
        start = torch.tensor(math.log(sigma), dtype=dtype)
        if learned:
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start)

    def forward(self, output: Float[Tensor, "*batch n"]) -> distributions.Normal:
        return distributions.Normal(output, self.log_sigma.exp().expand_as(output), validate_args=False)

    def check(self, x: Float[Tensor, "..."]) -> None:
        """Raises ValueError where x holds NaN or an infinity."""
        checks.finite("x", x)
