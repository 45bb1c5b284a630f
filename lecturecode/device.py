"""Which device to compute on, and which precision it has.

The package never moves a tensor by itself: device and dtype follow the inputs. These two functions are for the
first lines of a script, where the inputs are made.
"""

import os
import warnings

import torch

__all__ = ["best_device", "best_dtype"]

VARIABLE = "LECTURECODE_DEVICE"


def best_device() -> torch.device:
    """The device named by the environment variable LECTURECODE_DEVICE, else CUDA, else MPS, else the CPU.

    Raises: ValueError where the variable names a device that torch does not know or does not find.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if not asked:
        return next(torch.device(kind) for kind in ("cuda", "mps", "cpu") if _is_there(torch.device(kind)))
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise ValueError(f"{VARIABLE}={asked!r} is no torch device; set it to cpu, cuda, cuda:0 or mps") from None
    if not _is_there(device):
        raise ValueError(f"{VARIABLE}={asked!r}, but torch finds no such device here; unset it or set it to cpu")
    return device


def best_dtype(device: torch.device | str, wanted: torch.dtype = torch.float64) -> torch.dtype:
    """`wanted`, or float32 with a UserWarning on MPS, which has no float64."""
    if torch.device(device).type == "mps" and wanted == torch.float64:
        warnings.warn(
            "MPS has no float64; float32 is used: expect 6 digits, and the CPU for exact results", stacklevel=2
        )
        return torch.float32
    return wanted


def _is_there(device: torch.device) -> bool:
    if device.type == "cpu":
        return True
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "mps" and torch.backends.mps.is_available()
