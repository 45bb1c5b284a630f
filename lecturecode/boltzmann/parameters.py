"""What the parameters of a machine must be, and their change from one alphabet to the other.

With s = 2x − 1, ½ sᵀJs + bᵀs = ½ xᵀ(4J)x + (2b − 2J1)ᵀx + ½ 1ᵀJ1 − 1ᵀb.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from .states import SPIN, Alphabet

__all__ = ["check_beta", "check_names", "check_parameters", "in_other_alphabet"]


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


def check_beta(beta: float) -> float:
    """beta as a float. Raises: ValueError where it is not finite."""
    if not torch.isfinite(torch.tensor(float(beta))):
        raise ValueError(f"beta is {beta}; give a finite inverse temperature")
    return float(beta)


def check_names(units: Sequence[int], n: int) -> list[int]:
    """units as a list. Raises: ValueError where one is named twice or is not there, or none is."""
    units = [int(u) for u in units]
    if not units or len(set(units)) < len(units) or not all(0 <= u < n for u in units):
        raise ValueError(f"units are {units}; name different ones from 0 to {n - 1}")
    return units


def in_other_alphabet(couplings: Tensor, biases: Tensor, alphabet: Alphabet) -> tuple[Tensor, Tensor, Tensor]:
    """Couplings, biases and constant over the other alphabet than this one, with every weight kept."""
    row = couplings.sum(-1)
    if alphabet == SPIN:
        return 4 * couplings, 2 * (biases - row), row.sum() / 2 - biases.sum()
    return couplings / 4, biases / 2 + row / 4, row.sum() / 8 + biases.sum() / 2
