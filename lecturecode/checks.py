"""The checks at the door: one wording of each error, raised before any work is done.

Every function raises ValueError with three parts: what is wrong, where it is, and how to mend it. Checks of shape
and device are free. Checks of values read the tensor: on an accelerator that would make each step wait, so a hot
path asks `is_free` first and the whole data set is checked once, where it enters.
"""

import torch
from torch import Tensor

__all__ = ["finite", "is_free", "positive", "probabilities", "same_device", "shape"]


def is_free(x: Tensor) -> bool:
    """Whether reading a value of x stalls nothing (it lives on the CPU)."""
    return x.device.type == "cpu"


def same_device(**tensors: Tensor) -> None:
    """All tensors live on one device."""
    (first, reference), *rest = tensors.items()
    for name, tensor in rest:
        if tensor.device != reference.device:
            raise ValueError(
                f"{first} is on {reference.device} and {name} on {tensor.device}; "
                f"move one of them: {name}.to({first}.device)"
            )


def shape(name: str, x: Tensor, wanted: tuple[int | None, ...]) -> None:
    """x has the wanted shape; None stands for any size of at least one."""
    fits = x.ndim == len(wanted) and all(w is None or w == got for w, got in zip(wanted, x.shape, strict=True))
    if not fits:
        words = ", ".join("any" if w is None else str(w) for w in wanted)
        raise ValueError(f"{name} has shape {tuple(x.shape)}, not ({words}); reshape it, one row an example")
    if 0 in x.shape:
        raise ValueError(f"{name} is empty: shape {tuple(x.shape)}; pass at least one example")


def finite(name: str, x: Tensor) -> None:
    """No NaN and no infinity in x."""
    bad = ~torch.isfinite(x)
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{name}{list(where)} is {x[where].item()}: {int(bad.sum())} of {x.numel()} values are not finite; "
            "remove or replace them first"
        )


def positive(name: str, x: Tensor | float) -> None:
    """Every value of x is above zero and finite."""
    x = torch.as_tensor(x)
    finite(name, x)
    if not (x > 0).all():
        raise ValueError(f"{name} has the value {x.min().item():g}; it must be above zero")


def probabilities(name: str, p: Tensor) -> None:
    """Along the last axis p is non-negative and sums to one, within 1e-9 (float64) or 1e-5 (float32)."""
    if p.ndim == 0 or 0 in p.shape:
        raise ValueError(f"{name} has shape {tuple(p.shape)}; pass probabilities along the last axis")
    finite(name, p)
    if (p < 0).any():
        where = tuple((p < 0).nonzero()[0].tolist())
        raise ValueError(f"{name}{list(where)} is {p[where].item():g}; probabilities are not negative")
    total = p.sum(-1)
    wrong = (total - 1).abs() > (1e-9 if p.dtype == torch.float64 else 1e-5)
    if wrong.any():
        where = tuple(wrong.nonzero()[0].tolist())
        row = f" in row {list(where)}" if where else ""
        raise ValueError(
            f"{name} sums to {total[where].item():.6g}{row}, not 1; divide by {name}.sum(-1, keepdim=True)"
        )
