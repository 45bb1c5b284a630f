"""The Boltzmann machine: n units with two values each, pairwise couplings, and every average exact.

    E(s) = −½ sᵀJs − bᵀs − constant,   f(s) = exp(−βE(s)),   Z = Σ_s f(s),   p(s) = f(s)/Z

J is symmetric with a zero diagonal. The sums run over all 2^n configurations, by `enumeration`; log-probabilities are
in nats. (Ackley, Hinton & Sejnowski 1985.)
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import enumeration, parameters, reductions
from .averages import Moments, Thermodynamics
from .states import SPIN, TABLE, check_alphabet, check_input, log_weights, working_dtype

__all__ = ["BoltzmannMachine"]


class BoltzmannMachine(nn.Module):
    """E(s) = −½ sᵀJs − bᵀs − constant over n units with the values of `alphabet`; J is (n, n) and b (n,).

    machine = BoltzmannMachine(couplings, biases); machine.log_partition().backward()

    Couplings and biases are copied and can be learned; only the symmetric part of J off its diagonal counts, so that
    an optimizer's step leaves the machine what it is. Dtype and device are those of the couplings.

    Raises: ValueError where J is not square, symmetric, finite and zero on its diagonal, or b does not fit.
    """

    constant: Tensor
    _pairs: Tensor

    def __init__(
        self,
        couplings: Tensor,
        biases: Tensor,
        alphabet: Sequence[int] = SPIN,
        constant: float | Float[Tensor, "..."] = 0.0,
    ):
        super().__init__()
        self.alphabet = check_alphabet(alphabet)
        parameters.check_parameters(couplings, biases)
        self.couplings, self.biases = (nn.Parameter(x.detach().clone()) for x in (couplings, biases))
        self.register_buffer("constant", parameters.check_constant(constant, couplings))
        off_diagonal = 1 - torch.eye(len(biases), dtype=couplings.dtype, device=couplings.device)
        self.register_buffer("_pairs", off_diagonal, persistent=False)

    @property
    def n(self) -> int:
        """The number of units."""
        return len(self.biases)

    def energy(self, s: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """E(s) = −½ sᵀJs − bᵀs − constant.

        Raises: ValueError where s has another width, dtype, device, or a value outside the alphabet.
        """
        check_input("s", s, self.n, self.alphabet, self.biases)
        return -((s @ self._symmetric()) * s).sum(-1) / 2 - s @ self.biases - self.constant

    def field(self, s: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Js + b: what acts on each unit. Raises: ValueError as `energy`."""
        check_input("s", s, self.n, self.alphabet, self.biases)
        return s @ self._symmetric() + self.biases

    def conditional(self, s: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Pr(s_i = upper | the other units) = 1/(1 + exp(−(upper − lower)·(Js + b)_i)) for each unit, at β = 1."""
        lower, upper = self.alphabet
        return torch.sigmoid((upper - lower) * self.field(s))

    def log_partition(self, beta: float | Float[Tensor, ""] = 1.0, limit: int = enumeration.LIMIT) -> Float[Tensor, ""]:
        """log Z = log Σ_s exp(−βE(s)), exact: ∂/∂b_i = β⟨s_i⟩ and ∂/∂J_ij = ½β⟨s_i s_j⟩ (0 on the diagonal).

        float64 within 1e-12 of max(1, |log Z|), float32 within 1e-6. A second derivative is there up to 20 units.
        Under torch.distributed all ranks must call it; each takes its part and all get the same number.

        Raises: ValueError where n > limit: 2^n configurations take 2^n/10^10 seconds or so on one CPU core.
        """
        beta = parameters.check_beta(beta)
        weight = enumeration.log_partition(beta * self._symmetric(), beta * self.biases, self.alphabet, limit)
        return weight + beta * self.constant

    def log_prob(self, s: Float[Tensor, "*batch n"], limit: int = enumeration.LIMIT) -> Float[Tensor, "*batch"]:
        """log p(s) = −E(s) − log Z. Raises: ValueError as `energy` and `log_partition`."""
        return -self.energy(s) - self.log_partition(limit=limit)

    def free_energy(self, x: Float[Tensor, "*batch k"], limit: int = enumeration.LIMIT) -> Float[Tensor, "*batch"]:
        """−log Σ_h f(x, h), where x are the first k units and h are the others: E(x) where k = n.

        Raises: ValueError where k > n, x is empty or outside the alphabet, or n − k is beyond enumeration.
        """
        check_input("x", x, None, self.alphabet, self.biases)
        k = x.shape[-1]
        if k > self.n:
            raise ValueError(
                f"x has {k} units on its last axis and the machine {self.n}; pass at most the first {self.n}"
            )
        couplings = self._symmetric()
        own = ((x @ couplings[:k, :k]) * x).sum(-1) / 2 + x @ self.biases[:k] + self.constant
        fields = x @ couplings[:k, k:] + self.biases[k:]
        return -own - enumeration.log_partitions(couplings[k:, k:], fields, self.alphabet, limit)

    def marginal_log_prob(
        self, x: Float[Tensor, "*batch k"], limit: int = enumeration.LIMIT
    ) -> Float[Tensor, "*batch"]:
        """log Σ_h p(x, h) = −free_energy(x) − log Z for the first k units x; its gradient is data − model.

        Raises: ValueError as `free_energy` and `log_partition`.
        """
        enumeration.check_size(self.n, limit)  # first: free_energy alone may be hours of work
        return -self.free_energy(x, limit) - self.log_partition(limit=limit)

    @torch.no_grad()
    def probabilities(self) -> Float[Tensor, " two_to_n"]:
        """p(s) for every configuration, in the order of `states`. Raises: ValueError where n > 24."""
        if self.n > TABLE:
            raise ValueError(
                f"probabilities() of n = {self.n} units are 2^{self.n} numbers; at most {TABLE} units are allowed; "
                "use marginal(units), moments() or sample()"
            )
        wide = working_dtype(self.biases.device)
        w = log_weights(self._symmetric().to(wide), self.biases.to(wide), self.alphabet)
        return w.softmax(-1).to(self.biases.dtype)

    @torch.no_grad()
    def moments(self, limit: int = enumeration.LIMIT) -> Moments:
        """⟨s_i⟩ and ⟨s_i s_j⟩ at β = 1, in one pass. Raises: ValueError where n > limit."""
        _, mean, second = enumeration.moments(self._symmetric(), self.biases, self.alphabet, limit)
        return Moments(mean, second)

    @torch.no_grad()
    def marginal(self, units: Sequence[int], limit: int = enumeration.LIMIT) -> Float[Tensor, " two_to_k"]:
        """The distribution of some units: bit i of the row number is units[i].

        Raises: ValueError where a unit is named twice or is not there, or where there are more than 24 of them.
        """
        units = parameters.check_names(units, self.n)
        if len(units) > TABLE:
            raise ValueError(
                f"a marginal of {len(units)} units is a table of 2^{len(units)}; at most {TABLE} are allowed"
            )
        return reductions.marginal(self._symmetric(), self.biases, self.alphabet, units, limit)

    @torch.no_grad()
    def thermodynamics(self, beta: float | Float[Tensor, "*betas"], limit: int = enumeration.LIMIT) -> Thermodynamics:
        """F, U, S and C at an inverse temperature, or at each of several.

        Raises: ValueError where a beta is not above zero (F = −log Z/β has no value at 0), or n > limit.
        """
        betas = parameters.check_betas(beta, self.biases)
        rows = [self._thermodynamics(float(b), limit) for b in betas.flatten()]
        return Thermodynamics(*(torch.stack(column).reshape(betas.shape) for column in zip(*rows, strict=True)))

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator, limit: int = enumeration.LIMIT) -> Float[Tensor, "count n"]:
        """`count` independent, exact draws of p(s): no chain, no burn-in. Raises: ValueError where count < 1."""
        parameters.check_count(count)
        return reductions.sample(self._symmetric(), self.biases, self.alphabet, count, rng, limit)

    @torch.no_grad()
    def clamp(self, units: Sequence[int], values: Sequence[float | int] | Float[Tensor, "..."]) -> "BoltzmannMachine":
        """The machine of the other units, in their order, with some held at `values`: Z of it is Σ over the rest.

        p(units = values) = Z of the clamped machine / Z. Its parameters are copies.

        Raises: ValueError where a unit is named twice or is not there, or a value is outside the alphabet.
        """
        units = parameters.check_names(units, self.n)
        held = torch.as_tensor(values, dtype=self.biases.dtype, device=self.biases.device)
        if held.shape != (len(units),):
            raise ValueError(f"{len(units)} units and values of shape {tuple(held.shape)}; give one value a unit")
        check_input("values", held, len(units), self.alphabet, self.biases)
        rest = [i for i in range(self.n) if i not in set(units)]
        if not rest:
            raise ValueError("all units are clamped; leave at least one, or ask for energy(s)")
        couplings = self._symmetric()
        fields = self.biases[rest] + couplings[rest][:, units] @ held
        own = held @ couplings[units][:, units] @ held / 2 + self.biases[units] @ held
        return BoltzmannMachine(couplings[rest][:, rest], fields, self.alphabet, self.constant + own)

    @torch.no_grad()
    def in_alphabet(self, alphabet: Sequence[int]) -> "BoltzmannMachine":
        """The same distribution and the same Z, over the other alphabet.

        s = 2x − 1 gives J′ = 4J, b′ = 2b − 2J1 and constant′ = constant + ½ 1ᵀJ1 − 1ᵀb; x = (s + 1)/2 undoes it.
        """
        alphabet = check_alphabet(alphabet)
        if alphabet == self.alphabet:
            return BoltzmannMachine(self._symmetric(), self.biases, alphabet, self.constant)
        couplings, biases, constant = parameters.in_other_alphabet(self._symmetric(), self.biases, self.alphabet)
        return BoltzmannMachine(couplings, biases, alphabet, self.constant + constant)

    def extra_repr(self) -> str:
        return f"n={self.n}, alphabet={self.alphabet}"

    def _symmetric(self) -> Tensor:
        return (self.couplings + self.couplings.mT) / 2 * self._pairs

    def _thermodynamics(self, beta: float, limit: int) -> tuple[Tensor, ...]:
        log_z, mean, variance = reductions.log_weight_moments(
            beta * self._symmetric(), beta * self.biases, self.alphabet, limit
        )
        energy = -mean / beta - self.constant
        free_energy = -log_z / beta - self.constant
        return free_energy, energy, log_z - mean, variance
