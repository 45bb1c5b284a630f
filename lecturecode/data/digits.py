"""1,797 handwritten digits of 8×8 pixels with grey levels 0 … 16, carried inside the package.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI Machine Learning
Repository, doi 10.24432/C50P49, CC BY 4.0), in the order in which scikit-learn ships them. `digits.npz` holds the
levels, the labels and three index arrays, so that a part means the same images everywhere:
numpy.random.Generator(PCG64(5429)).permutation(1797), cut after 1,200 and 1,500.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

__all__ = ["SHA256", "Digits", "digits"]

SHA256 = "c9e7aa4bb5de2a171330f38a331876fa6703145a54c0cdea7a1dc81cd2723171"
PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Digits:
    """Images as rows of 64 pixels, read line by line, and the digit each of them shows."""

    levels: UInt8[Tensor, "count 64"]
    labels: Int[Tensor, " count"]

    @property
    def grey(self) -> Float[Tensor, "count 64"]:
        """level/16, in [0, 1], float32."""
        return self.levels.float() / 16

    @property
    def binary(self) -> Float[Tensor, "count 64"]:
        """1 where level/16 ≥ 0.5 and 0 elsewhere, float32."""
        return (self.levels >= 8).float()

    def only(self, which: Bool[Tensor, " count"]) -> "Digits":
        """The images that a mask picks out, such as `only(labels == 3)`."""
        return Digits(self.levels[which], self.labels[which])

    def __len__(self) -> int:
        return len(self.labels)


def digits(part: str) -> Digits:
    """The "training" part (1,200 images), the "validation" part (300) or the "test" part (297).

    Raises: ValueError for another name, or where the file inside the package is not the one that was published.
    """
    if part not in PARTS:
        raise ValueError(f"part is {part!r}; the digits have the parts {', '.join(PARTS)}")
    arrays = _read()
    rows = arrays[part]
    return Digits(torch.from_numpy(arrays["levels"][rows]), torch.from_numpy(arrays["labels"][rows]))


@cache
def _read() -> dict[str, np.ndarray]:
    raw = files("lecturecode.data").joinpath("digits.npz").read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != SHA256:
        raise ValueError(f"digits.npz has the checksum {found[:12]}…, not {SHA256[:12]}…; install lecturecode again")
    with np.load(BytesIO(raw), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
