"""Sites, bonds and colours of a square lattice: what the kernels for lattices share.

Site (r, c) is unit r·columns + c. A periodic lattice also binds the last site of each row and column to the first;
along a side of two sites that pair is then bound twice (and made one bond of 2J), along a side of one site nothing is.

Half-lattice 0 holds the black sites, r + c even, half-lattice 1 the white ones, as (…, rows, columns/2): the
neighbours of (r, k) in the other half are (r, k), (r ± 1, k) and (r, k − 1) or (r, k + 1), by the parity of r.
"""

import torch
from torch import Tensor

from .. import checks

__all__ = ["bonds", "codes", "halves", "joined", "neighbours", "words"]

Couplings = float | tuple[Tensor, Tensor]


def halves(x: Tensor, rows: int, columns: int) -> list[Tensor]:
    """The two colours of each row of x, sides even."""
    grid = x.reshape(-1, rows // 2, 2, columns // 2, 2)
    shape = (len(grid), rows, columns // 2)
    return [torch.stack([grid[:, :, 0, :, c], grid[:, :, 1, :, 1 - c]], 2).view(shape) for c in (0, 1)]


def joined(black: Tensor, white: Tensor) -> Tensor:
    """The inverse of `halves`: (…, rows · columns)."""
    chains, rows, half = black.shape
    grid = black.new_empty(chains, rows // 2, 2, half, 2)
    for part, colour in ((black, 0), (white, 1)):
        pairs = part.view(chains, rows // 2, 2, half)
        grid[:, :, 0, :, colour], grid[:, :, 1, :, 1 - colour] = pairs[:, :, 0], pairs[:, :, 1]
    return grid.view(chains, -1)


def bonds(
    rows: int, columns: int, coupling: Couplings, field: float | Tensor, periodic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (2, bonds), J of each, b of each site, in float64; bonds of the same pair are made one.

    Raises: ValueError where a side is below 1, tensors have other shapes, or a number is not finite.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"a lattice of {rows} × {columns} has no sites; give at least one row and one column")
    given = [v for v in (field, *(coupling if isinstance(coupling, tuple) else [coupling])) if isinstance(v, Tensor)]
    device = given[0].device if given else torch.device("cpu")
    fields = torch.as_tensor(field, dtype=torch.float64, device=device)
    if fields.ndim:
        checks.shape("field", fields, (rows, columns))
    site, pairs, values = torch.arange(rows * columns, device=device).view(rows, columns), [], []
    for k, (axis, name) in enumerate(((1, "horizontal"), (0, "vertical"))):
        length = site.shape[axis]
        kept = (length if periodic else length - 1) if length > 1 else 0
        pair = torch.stack([site.narrow(axis, 0, kept), site.roll(-1, axis).narrow(axis, 0, kept)])
        value = torch.as_tensor(coupling[k] if isinstance(coupling, tuple) else coupling, dtype=torch.float64)
        if isinstance(coupling, tuple) and not (length == 1 and periodic) and tuple(value.shape) != pair.shape[1:]:
            raise ValueError(f"{name} couplings have shape {tuple(value.shape)}, not {tuple(pair.shape[1:])}")
        pairs.append(pair.flatten(1).sort(0).values)
        values.append((value if value.ndim == 0 or kept else value.new_zeros(())).expand(pair.shape[1:]).flatten())
    pair, place = torch.cat(pairs, 1).unique(dim=1, return_inverse=True)
    J = torch.zeros(pair.shape[1], dtype=torch.float64, device=device).index_add_(0, place, torch.cat(values))
    checks.finite("coupling", J)
    checks.finite("field", fields)
    return pair, J, fields.expand(rows, columns).flatten().contiguous()


def refuse_odd(rows: int, columns: int, periodic: bool) -> None:
    """Raises ValueError where a periodic lattice has no two colours."""
    for name, side in (("rows", rows), ("columns", columns)):
        if periodic and side % 2 and side > 1:
            raise ValueError(
                f"a periodic lattice with {name} = {side} has no two colours: sites of one colour would be neighbours; "
                "take an even side, free edges, or swendsen_wang"
            )


def neighbours(other: Tensor, colour: int, periodic: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four neighbours of each site of one colour, from the half-lattice of the other; 0 beyond a free edge."""
    up, down, side = other.roll(1, -2), other.roll(-1, -2), torch.empty_like(other)
    side[:, colour::2] = other[:, colour::2].roll(1, -1)
    side[:, 1 - colour :: 2] = other[:, 1 - colour :: 2].roll(-1, -1)
    if not periodic:
        up[:, 0], down[:, -1], side[:, colour::2, 0], side[:, 1 - colour :: 2, -1] = 0, 0, 0, 0
    return other, up, down, side


def words(count: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Random int64 words, all 64 bits of them fair."""
    return torch.empty(count, dtype=torch.int64, device=rng.device).random_(-(2**63), None, generator=rng).to(device)


def check_spins(x: Tensor, n: int) -> None:
    """Raises ValueError where x is not a batch of n spins ±1."""
    if x.ndim == 0 or x.shape[-1] != n or x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; pass (chains, {n}), one unit for each site")
    if checks.is_free(x) and (x.abs() != 1).any():
        where = (x.abs() != 1).nonzero()[0].tolist()
        raise ValueError(f"x{where} is {x[tuple(where)].item():g}; spins are −1 and 1: pass 2 * x - 1 for bits")


def codes(states: Tensor, n: int, limit: int) -> Tensor:
    """Bit i is unit i. Raises ValueError where states are not all 2^n configurations of ±1, each once."""
    if n > limit:
        raise ValueError(f"a matrix over 2^{n} states; at most {limit} spins are allowed here, use a smaller lattice")
    check_spins(states, n)
    code = ((states > 0).long() << torch.arange(n, device=states.device)).sum(-1)
    if states.ndim != 2 or not torch.equal(code.sort().values, torch.arange(2**n, device=states.device)):
        raise ValueError(f"states has shape {tuple(states.shape)}; pass all 2^{n} configurations, each once, one a row")
    return code
