"""A restricted machine whose visible units are real numbers: p(x|h) is Gaussian, p(x) a mixture of 2^m Gaussians.

    E(x,h) = ½ Σ_i (x_i − a_i)²/σ_i² − b_hᵀh − (x/σ²)ᵀWh,      p(x,h) = e^{−E}/Z
    p(x|h) = N(a + Wh, diag σ²)                                complete the square: −½(a_i + (Wh)_i)²/σ_i² + …
    P(h_j = u | x) = 1/(1 + e^{−(u−l)c_j}),                    c = b_h + Wᵀ(x/σ²)
    F(x) = ½ Σ_i (x_i − a_i)²/σ_i² − Σ_j log(e^{l c_j} + e^{u c_j})

The integral over x leaves a Boltzmann machine of the hidden units: with J = Wᵀ diag(1/σ²) W,

    log Z = Σ_i log √(2π)σ_i + log Σ_h exp(½ hᵀJh + (b_h + Wᵀ(a/σ²))ᵀh),

where the diagonal of J is a constant for spins (h_j² = 1) and half a bias for bits (h_j² = h_j). Z is finite
for all parameters. With (x/σ)ᵀWh in E the conditional mean would be a + σ∘Wh, with xᵀWh a + σ²∘Wh.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, distributions, nn

from .. import checks
from .. import rng as randomness
from . import enumeration
from .machine import BoltzmannMachine
from .parameters import check_count
from .restricted import check_sizes
from .states import BIT, check_alphabet, check_input, working_dtype

__all__ = ["GaussianRestrictedBoltzmannMachine"]


class GaussianRestrictedBoltzmannMachine(nn.Module):
    """n real visible and m two-valued hidden units; `weights` (n, m), `visible_bias` a and `hidden_bias` are learned.

    σ, one number or one for each visible unit, is in the units of x; it is learned too with `learned=True`, as log σ.
    The weights start as draws of N(0, 0.01²) from rng, or at zero without one; the biases start at zero.

    Raises: ValueError where n < 1 or m < 1, σ ≤ 0 or of another length, or the alphabet is neither BIT nor SPIN.
    Source: Cho, Ilin & Raiko (2011), who give this energy.
    """

    def __init__(
        self,
        n: int,
        m: int,
        rng: torch.Generator | None = None,
        sigma: float | Float[Tensor, " n"] = 1.0,
        learned: bool = False,
        alphabet: Sequence[int] = BIT,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        check_sizes(n, m)
        alphabet = check_alphabet(alphabet)
        checks.positive("sigma", sigma)
        start = torch.as_tensor(sigma, dtype=dtype).log()
        if start.shape not in ((), (n,)):
            raise ValueError(f"sigma has shape {tuple(start.shape)}; give one number, or one for each of {n} units")
        self.n, self.m, self.alphabet = n, m, alphabet
        zero = torch.zeros(n, m, dtype=dtype)
        self.weights = nn.Parameter(zero if rng is None else 0.01 * randomness.normal((n, m), rng, zero))
        self.visible_bias, self.hidden_bias = (nn.Parameter(torch.zeros(k, dtype=dtype)) for k in (n, m))
        self.log_sigma: Tensor
        if learned:
            self.log_sigma = nn.Parameter(start.expand(n).clone())
        else:
            self.register_buffer("log_sigma", start.expand(n).clone())

    @property
    def sigma(self) -> Float[Tensor, " n"]:
        """σ, in the units of x."""
        return self.log_sigma.exp()

    def energy(self, x: Float[Tensor, "*batch n"], h: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch"]:
        """E(x,h) = ½|(x − a)/σ|² − b_hᵀh − (x/σ²)ᵀWh.

        Raises: ValueError where a layer has another width, dtype or device than the machine, is empty, x is not
        finite or h outside the alphabet; so do all methods that take x or h.
        """
        field = self._field(x)
        check_input("h", h, self.m, self.alphabet, self.weights)
        return self._distance(x) - (h * field).sum(-1)

    def free_energy(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """F(x) = −log Σ_h e^{−E(x,h)} = ½|(x − a)/σ|² − Σ_j log(e^{l c_j} + e^{u c_j})."""
        field = self._field(x)
        lower, upper = self.alphabet
        return self._distance(x) - torch.logaddexp(lower * field, upper * field).sum(-1)

    def hidden(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """P(h_j = u | x), each hidden unit's probability of its upper value."""
        return torch.sigmoid((self.alphabet[1] - self.alphabet[0]) * self._field(x))

    def visible(self, h: Float[Tensor, "*batch m"]) -> distributions.Independent:
        """p(x|h) = N(a + Wh, diag σ²)."""
        check_input("h", h, self.m, self.alphabet, self.weights)
        mean = self.visible_bias + h @ self.weights.mT
        normal = distributions.Normal(mean, self.sigma.expand_as(mean), validate_args=False)
        return distributions.Independent(normal, 1, validate_args=False)

    @torch.no_grad()
    def gibbs(self, x: Float[Tensor, "*batch n"], rng: torch.Generator) -> Float[Tensor, "*batch n"]:
        """One step x → h → x: h from P(h|x), then x from p(x|h). p(x) is stationary under it."""
        probability = self.hidden(x)
        lower, upper = self.alphabet
        on = randomness.uniform(tuple(probability.shape), rng, probability) < probability
        return randomness.draw(self.visible(lower + (upper - lower) * on.to(x.dtype)), 1, rng)[0]

    def log_partition(self, limit: int = enumeration.LIMIT) -> Float[Tensor, ""]:
        """log Z = log ∫dx Σ_h e^{−E(x,h)}, exact and differentiable, through the states of the hidden layer.

        Raises: ValueError where there are more than `limit` hidden units, or a parameter is not finite.
        """
        constant, couplings, biases = self._of_hidden()
        log_z = constant + enumeration.log_partition(couplings, biases, self.alphabet, limit)
        return log_z.to(self.weights.dtype)

    def log_prob(self, x: Float[Tensor, "*batch n"], limit: int = enumeration.LIMIT) -> Float[Tensor, "*batch"]:
        """log p(x) = −F(x) − log Z: the logarithm of a density, in nats. Raises: ValueError as `log_partition`."""
        return -self.free_energy(x) - self.log_partition(limit)

    @torch.no_grad()
    def hidden_machine(self) -> BoltzmannMachine:
        """P(h) as a Boltzmann machine, in float64 where there is one; its Z is the Z of the whole."""
        constant, couplings, biases = self._of_hidden()
        return BoltzmannMachine(couplings, biases, self.alphabet, constant)

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator, limit: int = enumeration.LIMIT) -> Float[Tensor, "count n"]:
        """Independent exact draws of p(x): h from P(h), then x from p(x|h).

        Raises: ValueError where count < 1, or as `log_partition` does.
        """
        check_count(count)
        h = self.hidden_machine().sample(count, rng, limit).to(self.weights.dtype)
        return randomness.draw(self.visible(h), 1, rng)[0]

    def extra_repr(self) -> str:
        """What print shows of it."""
        return f"n={self.n}, m={self.m}, alphabet={self.alphabet}"

    def _of_hidden(self) -> tuple[Tensor, Tensor, Tensor]:
        """A constant, couplings and biases of P(h)."""
        if checks.is_free(self.weights):
            for name, value in (*self.named_parameters(), *self.named_buffers()):
                checks.finite(name, value.detach())
        dtype = working_dtype(self.weights.device)
        weights, mean, bias, log_sigma = (
            p.to(dtype) for p in (self.weights, self.visible_bias, self.hidden_bias, self.log_sigma)
        )
        scaled = weights / log_sigma.exp()[:, None]
        couplings = scaled.mT @ scaled
        couplings = (couplings + couplings.mT) / 2
        own, biases = couplings.diagonal() / 2, bias + scaled.mT @ (mean / log_sigma.exp())
        constant = (log_sigma + math.log(2 * math.pi) / 2).sum()
        couplings = couplings - torch.diag(couplings.diagonal())
        if self.alphabet == BIT:
            return constant, couplings, biases + own
        return constant + own.sum(), couplings, biases

    def _field(self, x: Tensor) -> Tensor:
        """c = b_h + Wᵀ(x/σ²)."""
        self._check(x)
        return self.hidden_bias + (x / self.sigma.square()) @ self.weights

    def _distance(self, x: Tensor) -> Tensor:
        return ((x - self.visible_bias) / self.sigma).square().sum(-1) / 2

    def _check(self, x: Tensor) -> None:
        if x.ndim == 0 or 0 in x.shape or x.shape[-1] != self.n:
            raise ValueError(f"x has shape {tuple(x.shape)}; give at least one row of {self.n} numbers")
        checks.same_device(x=x, model=self.weights)
        if x.dtype != self.weights.dtype:
            raise ValueError(f"x is {x.dtype} and the model {self.weights.dtype}; pass x.to({self.weights.dtype})")
        if checks.is_free(x):
            checks.finite("x", x)
