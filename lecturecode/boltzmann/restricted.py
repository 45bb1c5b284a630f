"""Restricted Boltzmann machines: two layers, coupled across and not within.

    E(x,h) = −b_xᵀx − b_hᵀh − xᵀWh,   f = exp(−E),   P(x,h) = f/Z,   units in {l, u}: {0, 1} or {−1, 1}

Given one layer the units of the other are independent: with the fields a = b_h + Wᵀx of the hidden units,

    P(h_j = u | x) = 1/(1 + e^{−(u−l)a_j})
    F(x) = −log Σ_h f(x,h) = −b_xᵀx − Σ_j log(e^{l a_j} + e^{u a_j}),   log P(x) = −F(x) − log Z

and the same with x and h exchanged. So Z is a sum over the states of the smaller layer alone (`bipartite`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import checks
from .. import rng as randomness
from .bipartite import Layers, log_sum
from .machine import BoltzmannMachine
from .parameters import check_count
from .states import BIT, check_alphabet, check_input, working_dtype

__all__ = ["LayerMoments", "RestrictedBoltzmannMachine"]


@dataclass(frozen=True)
class LayerMoments:
    """⟨x⟩, ⟨h⟩ and ⟨x hᵀ⟩: the derivatives of log Z by b_x, b_h and W."""

    visible: Float[Tensor, " n"]
    hidden: Float[Tensor, " m"]
    product: Float[Tensor, "n m"]


class RestrictedBoltzmannMachine(nn.Module):
    """n visible and m hidden units over one alphabet; `weights` (n, m), `visible_bias` and `hidden_bias` are learned.

    The weights start as draws of N(0, 0.01²) from rng (Hinton 2012, section 8), or at zero without one; the biases
    start at zero. What is exact (log Z, moments, draws) is computed in float64 and rounded once to the dtype of the
    parameters, on any device that has float64.

    Raises: ValueError where n < 1 or m < 1, or the alphabet is neither BIT nor SPIN.
    """

    def __init__(
        self,
        n: int,
        m: int,
        rng: torch.Generator | None = None,
        alphabet: Sequence[int] = BIT,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        check_sizes(n, m)
        self.n, self.m, self.alphabet = n, m, check_alphabet(alphabet)
        zero = torch.zeros(n, m, dtype=dtype)
        self.weights = nn.Parameter(zero if rng is None else 0.01 * randomness.normal((n, m), rng, zero))
        self.visible_bias, self.hidden_bias = (nn.Parameter(torch.zeros(k, dtype=dtype)) for k in (n, m))

    def energy(self, x: Float[Tensor, "*batch n"], h: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch"]:
        """E(x,h) = −b_xᵀx − b_hᵀh − xᵀWh.

        Raises: ValueError where a layer has another width, dtype or device than the machine, is empty, or holds
        values outside the alphabet; so do all methods that take x or h.
        """
        self._check(x=x)
        self._check(h=h)
        return -(x * self.visible_bias).sum(-1) - (h * (self.hidden_bias + x @ self.weights)).sum(-1)

    def free_energy(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """F(x) = −log Σ_h f(x,h) = −b_xᵀx − Σ_j log(e^{l a_j} + e^{u a_j})."""
        self._check(x=x)
        lower, upper = self.alphabet
        field = self.hidden_bias + x @ self.weights
        return -(x * self.visible_bias).sum(-1) - torch.logaddexp(lower * field, upper * field).sum(-1)

    def hidden(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """P(h_j = u | x), each hidden unit's probability of its upper value."""
        self._check(x=x)
        return self._upper(self.hidden_bias + x @ self.weights)

    def visible(self, h: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """P(x_i = u | h), each visible unit's probability of its upper value."""
        self._check(h=h)
        return self._upper(self.visible_bias + h @ self.weights.mT)

    @torch.no_grad()
    def gibbs(self, x: Float[Tensor, "*batch n"], rng: torch.Generator) -> Float[Tensor, "*batch n"]:
        """One step x → h → x: h from P(h|x), then x from P(x|h). P(x) is stationary under it."""
        return self._draw(self.visible(self._draw(self.hidden(x), rng)), rng)

    def log_partition(self, limit: int = 30) -> Float[Tensor, ""]:
        """log Z, exact, through the 2^min(n,m) states of the smaller layer, in constant memory.

        Differentiable: ∂/∂W_ij = ⟨x_i h_j⟩, ∂/∂b = ⟨x⟩ and ⟨h⟩, by one more pass over the states; twice on small
        machines, where the second derivatives are the covariances.

        Raises: ValueError where the smaller layer has more than `limit` units, or a parameter is not finite.
        """
        constant, weights, visible, hidden = self._as_bits(limit)
        wide, narrow = (visible, hidden) if self.n >= self.m else (hidden, visible)
        log_z = constant + log_sum(weights if self.n >= self.m else weights.mT, wide, narrow)
        return log_z.to(self.weights.dtype)

    def log_prob(self, x: Float[Tensor, "*batch n"], limit: int = 30) -> Float[Tensor, "*batch"]:
        """log P(x) = −F(x) − log Z, in nats; where many are asked for in turn, keep log Z and subtract it yourself.

        Raises: ValueError as `log_partition` does.
        """
        return -self.free_energy(x) - self.log_partition(limit)

    def moments(self, limit: int = 30) -> LayerMoments:
        """⟨x⟩, ⟨h⟩ and ⟨x hᵀ⟩, exact: the model's term of the likelihood gradient.

        Raises: ValueError as `log_partition` does.
        """
        with torch.enable_grad():
            product, visible, hidden = torch.autograd.grad(
                self.log_partition(limit), (self.weights, self.visible_bias, self.hidden_bias)
            )
        return LayerMoments(visible, hidden, product)

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator, limit: int = 30) -> Float[Tensor, "count n"]:
        """Independent exact draws of P(x): the smaller layer from its exact distribution, the other given it.

        Raises: ValueError where count < 1, or as `log_partition` does.
        """
        check_count(count)
        _, weights, visible, hidden = self._as_bits(limit)
        if self.n < self.m:
            return self._labels(Layers(weights.mT, hidden, visible).sample(count, rng))
        return self._draw(self.visible(self._labels(Layers(weights, visible, hidden).sample(count, rng))), rng)

    def joint(self) -> BoltzmannMachine:
        """The same distribution as one machine over s = (x, h): J has W as its off-diagonal block, b is (b_x, b_h)."""
        with torch.no_grad():
            blocks = [
                torch.cat([self.weights.new_zeros(self.n, self.n), self.weights], 1),
                torch.cat([self.weights.mT, self.weights.new_zeros(self.m, self.m)], 1),
            ]
            return BoltzmannMachine(torch.cat(blocks), torch.cat([self.visible_bias, self.hidden_bias]), self.alphabet)

    def extra_repr(self) -> str:
        """What print shows of it."""
        return f"n={self.n}, m={self.m}, alphabet={self.alphabet}"

    def _as_bits(self, limit: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A constant, W, b_x and b_h of the same machine over bits: s = l + (u − l) k."""
        check_layer(min(self.n, self.m), limit)
        dtype = working_dtype(self.weights.device)
        weights, visible, hidden = (p.to(dtype) for p in (self.weights, self.visible_bias, self.hidden_bias))
        if checks.is_free(weights):
            for name, parameter in self.named_parameters():
                checks.finite(name, parameter.detach())
        if self.alphabet == BIT:
            return weights.new_zeros(()), weights, visible, hidden
        constant = weights.sum() - visible.sum() - hidden.sum()
        return constant, 4 * weights, 2 * (visible - weights.sum(1)), 2 * (hidden - weights.sum(0))

    def _upper(self, field: Tensor) -> Tensor:
        return torch.sigmoid((self.alphabet[1] - self.alphabet[0]) * field)

    def _labels(self, bits: Tensor) -> Tensor:
        lower, upper = self.alphabet
        return (lower + (upper - lower) * bits).to(self.weights.dtype)

    def _draw(self, probability: Tensor, rng: torch.Generator) -> Tensor:
        level = randomness.uniform(tuple(probability.shape), rng, probability)
        return self._labels((level < probability).to(probability.dtype))

    def _check(self, **layer: Tensor) -> None:
        ((name, s),) = layer.items()
        check_input(name, s, self.n if name == "x" else self.m, self.alphabet, self.weights)


def check_sizes(n: int, m: int) -> None:
    """Raises ValueError where a layer has no unit."""
    if n < 1 or m < 1:
        raise ValueError(f"a machine with {n} visible and {m} hidden units; each layer has at least one")


def check_layer(units: int, limit: int) -> None:
    """Raises ValueError where a layer is too large for its states to be visited one by one."""
    if units > limit:
        raise ValueError(
            f"cannot enumerate the smaller layer, {units} units: 2^{units} states; at most {limit} are allowed here "
            "(limit=…); estimate log Z instead (lecturecode.markov.ais), and sample by gibbs"
        )
