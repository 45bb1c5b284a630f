"""What the parameters of a machine must be, and their change from one alphabet to the other.

With s = 2x − 1, ½ sᵀJs + bᵀs = ½ xᵀ(4J)x + (2b − 2J1)ᵀx + ½ 1ᵀJ1 − 1ᵀb.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from .states import SPIN, Alphabet

__all__ = ["check_beta", "check_betas", "check_constant", "check_names", "check_parameters", "in_other_alphabet"]


def check_parameters(couplings: Tensor, biases: Tensor) -> None:
    """Raises ValueError where J is not square, finite, symmetric and zero on its diagonal, or b does not fit it."""
    if couplings.ndim != 2 or couplings.shape[0] != couplings.shape[1] or len(couplings) == 0:
        raise ValueError(f"couplings have shape {tuple(couplings.shape)}; give a square matrix (n, n)")
    if biases.shape != couplings.shape[:1]:
        raise ValueError(
            f"biases have shape {tuple(biases.shape)} beside couplings of {len(couplings)} units; give one a unit"
        )
    checks.same_device(couplings=couplings, biases=biases)
    if not couplings.is_floating_point() or couplings.dtype != biases.dtype:
        raise ValueError(f"couplings are {couplings.dtype} and biases {biases.dtype}; give both as one float dtype")
    checks.finite("couplings", couplings)
    checks.finite("biases", biases)
    if (apart := (couplings != couplings.mT).nonzero()).numel():
        i, j = apart[0].tolist()
        raise ValueError(
            f"couplings[{i}, {j}] is {couplings[i, j].item():g} and couplings[{j}, {i}] is {couplings[j, i].item():g}; "
            "pass (couplings + couplings.mT) / 2"
        )
    if couplings.diagonal().any():
        i = int(couplings.diagonal().nonzero()[0])
        raise ValueError(
            f"couplings[{i}, {i}] is {couplings[i, i].item():g}; the diagonal is zero: for spins it only moves the "
            "constant by ½J_ii, for bits add it as ½J_ii to the bias"
        )


def check_beta(beta: float | Tensor) -> float:
    """beta as a float. Raises: ValueError where it is not finite, or wants a gradient, which would be lost here."""
    if isinstance(beta, Tensor) and beta.requires_grad:
        raise ValueError(
            "beta requires a gradient and log_partition gives none for it; pass float(beta): ∂log Z/∂β is −⟨E⟩, the "
            "energy of thermodynamics(beta)"
        )
    if not math.isfinite(beta):
        raise ValueError(f"beta is {beta}; give a finite inverse temperature")
    return float(beta)


def check_betas(beta: float | Tensor, like: Tensor) -> Tensor:
    """One beta or several, as a tensor. Raises: ValueError where one is not above zero, or there is none."""
    betas = torch.as_tensor(beta, dtype=like.dtype, device=like.device)
    if betas.numel() == 0:
        raise ValueError(f"beta is empty: shape {tuple(betas.shape)}; give at least one inverse temperature")
    checks.positive("beta", betas)
    return betas


def check_constant(constant: float | Tensor, like: Tensor) -> Tensor:
    """A copy of the constant. Raises: ValueError where it is not one finite number."""
    copy = torch.as_tensor(constant, dtype=like.dtype, device=like.device).detach().clone()
    if copy.ndim or not copy.isfinite():
        raise ValueError(f"constant is {constant}; give one finite number")
    return copy


def check_count(count: int) -> None:
    """Raises ValueError where no draw is asked for."""
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least one draw")


def check_names(units: Sequence[int | float], n: int) -> list[int]:
    """units as a list. Raises: ValueError where one is named twice or is not there, or none is."""
    given, units = units, [int(u) for u in units]
    whole = all(u == v for u, v in zip(units, given, strict=True))
    if not units or len(set(units)) < len(units) or not all(0 <= u < n for u in units) or not whole:
        raise ValueError(f"units are {list(given)}; name different ones from 0 to {n - 1}")
    return units


def in_other_alphabet(couplings: Tensor, biases: Tensor, alphabet: Alphabet) -> tuple[Tensor, Tensor, Tensor]:
    """Couplings, biases and constant over the other alphabet than this one, with every weight kept."""
    row = couplings.sum(-1)
    if alphabet == SPIN:
        return 4 * couplings, 2 * (biases - row), row.sum() / 2 - biases.sum()
    return couplings / 4, biases / 2 + row / 4, row.sum() / 8 + biases.sum() / 2
