"""MNIST (LeCun, Bottou, Bengio & Haffner 1998): 70,000 digits of 28×28 pixels, downloaded once, on request.

No chapter needs it. Each file is fetched beside its final place, compared with its checksum, and only then renamed,
so that an interrupted or altered download never stands where a good file should.
"""

import gzip
import hashlib
import http.client
import os
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

__all__ = ["mnist"]

ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = {  # name in the archive: SHA-256 of the compressed file
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
PREFIX = {"training": "train", "test": "t10k"}


def mnist(
    root: str | os.PathLike[str], part: str = "training", address: str = ADDRESS
) -> tuple[UInt8[Tensor, "count 28 28"], Int[Tensor, " count"]]:
    """Images with levels 0 … 255 and labels, from the folder `root`; what is missing there is downloaded first.

    Raises: ValueError where the part has another name, or a file's checksum is wrong (it is not kept);
    ConnectionError where a file is missing and the address does not answer.
    """
    if part not in PREFIX:
        raise ValueError(f"part is {part!r}; MNIST has the parts {', '.join(PREFIX)}")
    folder = Path(root)
    images, labels = (_fetched(folder, name, address) for name in FILES if name.startswith(PREFIX[part]))
    return torch.from_numpy(_idx(images).copy()), torch.from_numpy(_idx(labels).astype(np.int64))


def _fetched(folder: Path, name: str, address: str) -> bytes:
    path = folder / name
    if path.exists():
        return _checked(path.read_bytes(), name, f"delete {path} and call again")
    try:
        with urllib.request.urlopen(address + name, timeout=30) as answer:
            raw = answer.read()
    except (http.client.HTTPException, OSError) as error:  # URLError is an OSError
        raise ConnectionError(
            f"{name} is not in {folder} and cannot be downloaded from {address} ({error}); "
            f"connect once, or copy the file into {folder}"
        ) from error
    _checked(raw, name, "nothing was kept; call again")
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}.{uuid.uuid4().hex}"
    try:
        with draft.open("xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return raw


def _checked(raw: bytes, name: str, cure: str) -> bytes:
    found = hashlib.sha256(raw).hexdigest()
    if found != FILES[name]:
        raise ValueError(f"{name} has the checksum {found[:12]}…, not {FILES[name][:12]}…; {cure}")
    return raw


def _idx(raw: bytes) -> np.ndarray:
    """The IDX format: two zero bytes, the type, the number of axes, their sizes (big-endian), the values."""
    raw = gzip.decompress(raw)
    axes = raw[3]
    sizes = np.frombuffer(raw, ">i4", axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(sizes)
