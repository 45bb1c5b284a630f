"""Likelihoods for grey values: densities on [0, 1], and probabilities of the 17 levels 0, 1/16, …, 1.

    continuous Bernoulli   p(x_i|h) = e^{x_i y_i}/A(y_i),  A(y) = ∫₀¹ e^{xy} dx = (e^y − 1)/y,   x in [0, 1]
    discretised            P(k/16|h) = F((e_{k+1} − y_i)/σ) − F((e_k − y_i)/σ),                  x in {0, 1/16, …, 1}

with edges e_k = (k − ½)/16 between the levels, e_0 = −∞ and e_17 = ∞, so that the sum over the levels telescopes to 1.
F is the normal or the logistic distribution function. log P is computed from logarithms, and stays finite where
P itself would be rounded to zero. A density is in nats of another currency than levels: never compare the two.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

from .. import checks

__all__ = ["ContinuousBernoulli", "DiscretisedGaussian", "DiscretisedLogistic"]

LEVELS = 17
NEAR = 0.1  # |y/2| below which log sinh(u)/u and its slope are summed as series


class ContinuousBernoulli(nn.Module):
    """Independent values in [0, 1] with log p(x|h) = Σ_i [x_i y_i − log A(y_i)]: a density, in nats.

    It is the grey Bernoulli, normalised; y = 0 is the uniform density. Its mean is ½ + ½(coth(y/2) − 2/y) and not the
    logistic function of y. Source: Loaiza-Ganem & Cunningham (2019).
    """

    def forward(self, output: Float[Tensor, "*batch n"]) -> "Tilted":
        return Tilted(output)

    def check(self, x: Float[Tensor, "..."]) -> None:
        """Raises ValueError where a value of x lies outside [0, 1]."""
        _inside(x, ~((x >= 0) & (x <= 1)), "a continuous Bernoulli is for values from 0 to 1: scale x")


class DiscretisedGaussian(nn.Module):
    """Independent levels: the mass that N(y, σ²) gives to the cell of each level. σ is in the units of x, level/16.

    Raises: ValueError where σ ≤ 0. Source: Salimans et al. (2017), section 2.1, with F normal.
    """

    log_sigma: Tensor

    def __init__(self, sigma: float, learned: bool = False, dtype: torch.dtype = torch.float32):
        super().__init__()
        _scale(self, sigma, learned, dtype)

    def forward(self, output: Float[Tensor, "*batch n"]) -> "Levels":
        edges = _edges(output, self.log_sigma)
        below, above = edges[..., :-1], edges[..., 1:]
        right = below > 0  # Φ(b) − Φ(a) = Φ(−a) − Φ(−b): take the side on which both are small
        low, high = torch.where(right, -above, below), torch.where(right, -below, above)
        log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
        inner = log_high + torch.log(-torch.expm1(log_low - log_high))
        ends = torch.special.log_ndtr(edges[..., :1]), torch.special.log_ndtr(-edges[..., -1:])
        return Levels(torch.cat([ends[0], inner, ends[1]], -1))

    def check(self, x: Float[Tensor, "..."]) -> None:
        """Raises ValueError where a value of x is none of the levels 0, 1/16, …, 1."""
        _levels(x)


class DiscretisedLogistic(nn.Module):
    """Independent levels: the mass that the logistic distribution with mean y and scale σ gives to each level's cell.

    Its tails are heavier than a Gaussian's: S(b) − S(a) = S(b) S(−a) (1 − e^{a−b}) with S the logistic function.

    Raises: ValueError where σ ≤ 0. Source: Salimans et al. (2017), section 2.1.
    """

    log_sigma: Tensor

    def __init__(self, sigma: float, learned: bool = False, dtype: torch.dtype = torch.float32):
        super().__init__()
        _scale(self, sigma, learned, dtype)

    def forward(self, output: Float[Tensor, "*batch n"]) -> "Levels":
        edges = _edges(output, self.log_sigma)
        width = (-self.log_sigma).exp() / (LEVELS - 1)
        inner = logsigmoid(edges[..., 1:]) + logsigmoid(-edges[..., :-1]) + torch.log(-torch.expm1(-width))
        return Levels(torch.cat([logsigmoid(edges[..., :1]), inner, logsigmoid(-edges[..., -1:])], -1))

    def check(self, x: Float[Tensor, "..."]) -> None:
        """Raises ValueError where a value of x is none of the levels 0, 1/16, …, 1."""
        _levels(x)


class Levels(Distribution):
    """Probabilities of x = k/16, given as 17 logarithms along the last axis."""

    def __init__(self, log_probs: Float[Tensor, "*batch 17"]):
        self.log_probs = log_probs
        super().__init__(log_probs.shape[:-1], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.log_probs.exp() @ self._values()

    @property
    def variance(self) -> Tensor:
        return (self.log_probs.exp() * (self._values() - self.mean[..., None]).square()).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        level = ((LEVELS - 1) * value).round().long()
        shape = torch.broadcast_shapes(level.shape, self.batch_shape)
        return self.log_probs.expand(*shape, LEVELS).gather(-1, level.expand(shape)[..., None])[..., 0]

    def icdf(self, value: Tensor) -> Tensor:
        cumulative = self.log_probs.exp().cumsum(-1)[..., :-1]
        return (value[..., None] >= cumulative).sum(-1).to(value.dtype) / (LEVELS - 1)

    def _values(self) -> Tensor:
        return torch.arange(LEVELS, dtype=self.log_probs.dtype, device=self.log_probs.device) / (LEVELS - 1)


class Tilted(Distribution):
    """The density e^{xy}/A(y) on [0, 1]. With u = y/2, log A = u + log(sinh(u)/u)."""

    def __init__(self, y: Tensor):
        self.y = y
        super().__init__(y.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        near, u, far = self._split()
        series = u / 3 - u**3 / 45 + 2 * u**5 / 945 - u**7 / 4725
        return 0.5 + 0.5 * torch.where(near, series, 1 / torch.tanh(far) - 1 / far)

    def log_prob(self, value: Tensor) -> Tensor:
        near, u, far = self._split()
        square, size = u.square(), far.abs()
        series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square * (1 / 37800 - square / 467775))))
        log_ratio = torch.where(near, series, size + torch.log(-torch.expm1(-2 * size)) - torch.log(2 * size))
        return (value - 0.5) * self.y - log_ratio

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of (e^{xy} − 1)/(e^y − 1), from the side on which no exponential overflows."""
        down = -self.y.abs().clamp(min=1e-30)
        level = torch.where(self.y > 0, 1 - value, value)
        x = (torch.log1p(level * torch.expm1(down)) / down).clamp(0, 1)
        return torch.where(self.y > 0, 1 - x, x)

    def _split(self) -> tuple[Tensor, Tensor, Tensor]:
        """(near, u with far entries set to 0, u with near entries set to 1): each branch keeps a finite gradient."""
        u = self.y / 2
        near = u.abs() < NEAR
        return near, torch.where(near, u, 0.0), torch.where(near, 1.0, u)


def _scale(module: nn.Module, sigma: float, learned: bool, dtype: torch.dtype) -> None:
    checks.positive("sigma", sigma)
    start = torch.tensor(math.log(sigma), dtype=dtype)
    module.register_parameter("log_sigma", nn.Parameter(start)) if learned else module.register_buffer(
        "log_sigma", start
    )


def _edges(y: Tensor, log_sigma: Tensor) -> Tensor:
    """(e_k − y)/σ for the 16 inner edges."""
    middle = (torch.arange(1, LEVELS, dtype=y.dtype, device=y.device) - 0.5) / (LEVELS - 1)
    return (middle - y[..., None]) / log_sigma.exp()


def _levels(x: Tensor) -> None:
    k = (LEVELS - 1) * x
    _inside(x, ~((k >= 0) & (k <= LEVELS - 1) & (k == k.round())), "the levels are 0, 1/16, …, 1: pass levels / 16")


def _inside(x: Tensor, outside: Tensor, cure: str) -> None:
    if outside.any():
        where = tuple(outside.nonzero()[0].tolist())
        raise ValueError(f"x{list(where)} is {x[where].item():g}, and {cure}")
