"""Bars and stripes: the smallest data set with a hidden cause (MacKay 2003, section 43)."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["bars_and_stripes"]

LARGEST = 16


def bars_and_stripes(side: int) -> Float[Tensor, "patterns pixels"]:
    """All 2^(side+1) − 2 images of side×side pixels whose columns, or whose rows, are uniformly 0 or 1.

    Rows of float32 zeros and ones, each image once: first the bars (each column uniform, from all 0 to all 1), then
    the stripes that are not bars.

    Raises: ValueError where side is below 1 or above 16.
    """
    if not 1 <= side <= LARGEST:
        raise ValueError(f"side is {side}; it must lie between 1 and {LARGEST} (2^(side+1) − 2 images are made)")
    bits = (torch.arange(2**side)[:, None] >> torch.arange(side)) & 1
    bars = bits[:, None, :].expand(-1, side, -1)
    stripes = bits[1:-1, :, None].expand(-1, -1, side) if side > 1 else bars[:0]
    return torch.cat([bars, stripes]).reshape(-1, side * side).float()
