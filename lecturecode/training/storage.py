"""A file that is whole or refused: its layout, its checksum, and the way it reaches the disk.

    8 bytes, length of the header · header, JSON · bytes of the tensors · 32 bytes, SHA-256 of all bytes before

This is a valid safetensors file whose last tensor is the checksum: data only, nothing in it is ever executed, and
other programs can read it. The checksum covers the header too, and is compared before anything else is read.

A save goes to a draft in the same folder, is forced to the disk, and is renamed over the last one. Whenever the
machine stops, the name stands for one whole save, the last or the new one.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

__all__ = ["DIGEST", "pack", "replace", "unpack"]

FORMAT = "lecturecode checkpoint 1"
DIGEST = 32


def pack(content: dict[str, Any]) -> bytes:
    """The file of a nested structure: dictionaries, lists and tuples of tensors, numbers, strings and None.

    Raises: ValueError where it holds anything else.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_plain(content, "", tensors))
    metadata = {"format": FORMAT, "structure": structure, "save": uuid.uuid4().hex}  # no two saves are alike
    raw = write_tensors(tensors, metadata)
    end = 8 + int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8:end]), raw[end:]
    header["sha256"] = {"dtype": "U8", "shape": [DIGEST], "data_offsets": [len(body), len(body) + DIGEST]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    whole = len(text).to_bytes(8, "little") + text + body
    return whole + hashlib.sha256(whole).digest()


def unpack(raw: bytes, name: str) -> dict[str, Any]:
    """The structure in a file; `name` is what errors call it.

    Raises: ValueError where the bytes are cut short, altered, or no checkpoint.
    """
    if len(raw) <= DIGEST or hashlib.sha256(raw[:-DIGEST]).digest() != raw[-DIGEST:]:
        raise ValueError(f"{name} is refused: {_what_happened(raw)}; take an earlier save")
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).get("__metadata__", {})
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{name} is refused: it calls itself {metadata.get('format')!r}, not {FORMAT!r}; take another")
    return _nested(json.loads(metadata["structure"]), read_tensors(raw))


def replace(path: Path, raw: bytes, check: Callable[[], None]) -> None:
    """Puts `raw` where `path` is, wholly or not at all; `check` is asked just before and may raise.

    Raises: OSError where the folder or the disk refuses; what was at `path` is still there.
    """
    _clear(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    try:
        try:
            with draft.open("xb") as file:
                _locked(file)
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
                check()
                if os.name == "posix":  # still locked, so that no other run clears it
                    os.replace(draft, path)
            if os.name != "posix":
                os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} was not saved ({error.strerror}); the last save there, if any, is untouched; "
            "make room, or choose a folder that you can write to",
        ) from error


def _locked(file: Any) -> bool:
    """Whether this process now holds the file; the system lets go of it when the process ends, however it ends."""
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _clear(path: Path) -> None:
    """Removes drafts that a killed run left: those that nobody holds and that have a byte in them."""
    for draft in path.parent.glob(f".{path.name}.*.draft"):
        with suppress(OSError):
            if os.name != "posix":
                draft.unlink()  # refused where a run has it open
                continue
            with draft.open("rb+") as file:
                if file.read(1) and _locked(file):
                    draft.unlink()


def _what_happened(raw: bytes) -> str:
    """Cut short or altered: the header, where it can still be read, says how long the file was."""
    try:
        end = 8 + int.from_bytes(raw[:8], "little")
        whole = end + json.loads(raw[8:end])["sha256"]["data_offsets"][1]
    except (ValueError, KeyError, TypeError, IndexError):
        return f"its checksum is wrong, its header unreadable ({len(raw)} bytes): cut short, altered or no checkpoint"
    if isinstance(whole, int) and len(raw) < whole:
        return f"it is cut short, {len(raw)} of {whole} bytes"
    return "its checksum is wrong: it was altered after it was saved"


def _plain(x: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for x, its tensors put aside under the place where they stood."""
    if isinstance(x, Tensor):
        where = where if where not in tensors else f"{where} ({len(tensors)})"
        tensors[where] = x.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"tensor": where}
    if x is None or type(x) in (bool, int, float, str):
        return x
    if isinstance(x, dict) and all(type(key) in (int, str) for key in x):
        return {"dict": [[key, _plain(part, f"{where}.{key}".lstrip("."), tensors)] for key, part in x.items()]}
    if type(x) in (list, tuple):
        return {type(x).__name__: [_plain(part, f"{where}.{i}", tensors) for i, part in enumerate(x)]}
    raise ValueError(f"{where} is a {type(x).__name__}, and only tensors, numbers and strings are saved; convert it")


def _nested(x: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(x, dict):
        return x
    ((kind, value),) = x.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _nested(part, tensors) for key, part in value}
    parts = [_nested(part, tensors) for part in value]
    return tuple(parts) if kind == "tuple" else parts
