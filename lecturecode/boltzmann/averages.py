"""The averages of a machine as values."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

__all__ = ["Moments", "Thermodynamics"]


@dataclass(frozen=True)
class Moments:
    """⟨s_i⟩ and ⟨s_i s_j⟩; the diagonal of the second holds ⟨s_i²⟩."""

    mean: Float[Tensor, " n"]
    second: Float[Tensor, "n n"]


@dataclass(frozen=True)
class Thermodynamics:
    """F = −log Z/β, U = ⟨E⟩, S = β(U − F) in nats, C = β² Var(E), at each inverse temperature; k_B = 1."""

    free_energy: Float[Tensor, "*betas"]
    energy: Float[Tensor, "*betas"]
    entropy: Float[Tensor, "*betas"]
    heat_capacity: Float[Tensor, "*betas"]
