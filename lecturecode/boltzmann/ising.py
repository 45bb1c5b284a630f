"""The Ising magnet on a square lattice, as a Boltzmann machine of spins.

    E(s) = −J Σ_⟨ij⟩ s_i s_j − b Σ_i s_i,   the first sum running over the bonds between neighbouring sites.

Unit r·columns + c is the site (r, c). A periodic lattice also binds the last site of each row and column to the first:
2·rows·columns bonds, a torus. Along a side of two sites that pair is then bound twice (J_ij = 2J), as the products over
rows and columns in the exact solutions have it; along a side of one site nothing is bound.
"""

import math

import torch

from .machine import BoltzmannMachine

__all__ = ["ising"]


def ising(
    rows: int,
    columns: int,
    coupling: float = 1.0,
    field: float = 0.0,
    periodic: bool = False,
    dtype: torch.dtype = torch.float64,
) -> BoltzmannMachine:
    """E(s) = −coupling · Σ_⟨ij⟩ s_i s_j − field · Σ_i s_i on rows × columns sites; a positive coupling aligns.

    ising(1, n, periodic=True) is the ring. Raises: ValueError where a side is below 1, or a number is not finite.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"a lattice of {rows} × {columns} has no sites; give at least one row and one column")
    for name, value in (("coupling", coupling), ("field", field)):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; give a finite number")
    site = torch.arange(rows * columns).view(rows, columns)
    couplings = torch.zeros(rows * columns, rows * columns, dtype=dtype)
    for axis, length in enumerate((rows, columns)):
        first, second = site, site.roll(-1, axis)
        if not periodic:
            first, second = (part.narrow(axis, 0, length - 1) for part in (first, second))
        if length > 1:
            bond = torch.stack([first.flatten(), second.flatten()])
            couplings.index_put_(tuple(bond), torch.full(bond.shape[1:], coupling, dtype=dtype), accumulate=True)
    return BoltzmannMachine(couplings + couplings.mT, torch.full((rows * columns,), float(field), dtype=dtype))
