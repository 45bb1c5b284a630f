"""Likelihoods p(x|h): what the numbers that a decoder network gives mean for x.

    Bernoulli   p(x_i = 1|h) = 1/(1 + exp(−y_i)),    x in {0, 1}
    Gaussian    p(x_i|h) = N(x_i; y_i, σ²),          x real, with one σ, or one σ_i(h) for each x_i

y is the network's output, one number for each x_i (two where it gives σ_i as well). A likelihood is a module, since σ
may be learned. It turns y into a `torch.distributions` object and says which x it can be asked about. Those for grey
values lie in `grey`.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, distributions, nn

from .. import checks

__all__ = ["Bernoulli", "Gaussian", "Likelihood", "PixelGaussian"]


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
        if not torch.equal(x, (x > 0).to(x.dtype)):
            outside = (x != 0) & (x != 1)
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


class PixelGaussian(nn.Module):
    """Independent Gaussians whose σ_i the network gives too: 2n numbers (y, log v) along the last axis.

    σ_i² = v_i + floor², so that no density can become a needle; `floor` is in the units of x. (Where data repeat a
    value exactly, as grey levels do, σ_i falls to the floor all the same: such data need a likelihood of levels.)

    Raises: ValueError where floor ≤ 0, or the network gives an odd number.
    """

    def __init__(self, floor: float = 0.01):
        super().__init__()
        checks.positive("floor", floor)
        self.floor = floor

    def forward(self, output: Float[Tensor, "*batch two_n"]) -> distributions.Normal:
        if output.shape[-1] % 2:
            raise ValueError(f"the decoder's network gives {output.shape[-1]} numbers; it needs 2n: y and log v")
        mean, log_v = output.chunk(2, -1)
        return distributions.Normal(mean, (log_v.exp() + self.floor**2).sqrt(), validate_args=False)

    def check(self, x: Float[Tensor, "..."]) -> None:
        """Raises ValueError where x holds NaN or an infinity."""
        checks.finite("x", x)
