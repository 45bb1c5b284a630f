"""Values in and out of the sandbox: one line of JSON each, and nothing else crosses.

A number, a string, a truth value and None are themselves, a list is a list. An array is {"array": [dtype, shape,
base64 of its bytes]} and a tensor likewise under "tensor", a dictionary is {"dict": {...}}. There is nothing to
unpickle, to unpack or to import; the size is bounded before anything is read, and an array's bytes must be just as
many as its dtype and shape say.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["MOST", "Refused", "dumps", "loads"]

MOST = 4 * 2**20  # bytes of a line
PARTS = 100_000  # brackets, braces, commas and colons of a line
DEPTH = 12
DTYPES = ("|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iu" for size in (2, 4, 8)))
DTYPES += ("<f2", "<f4", "<f8", "<c8", "<c16")


class Refused(ValueError):
    """A value that does not cross."""


def dumps(value: Any, most: int = MOST) -> bytes:
    """One line with its end. Raises: Refused for what is no number, string, array or plain collection of them."""
    line = json.dumps(plain(value, DEPTH), separators=(",", ":")).encode() + b"\n"
    if len(line) > most:
        raise Refused(f"the value takes {len(line)} bytes; at most {most} cross")
    return line


def plain(value: Any, depth: int) -> Any:
    if depth == 0:
        raise Refused(f"the value is nested deeper than {DEPTH}")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return [plain(part, depth - 1) for part in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: plain(part, depth - 1) for key, part in value.items()}}
    name = "array"
    other: Any = value
    if hasattr(other, "detach"):  # a tensor; torch is not imported for this
        name, value = "tensor", other.detach().cpu().resolve_conj().resolve_neg().numpy()
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value).astype(np.asarray(value).dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in DTYPES:
            raise Refused(f"an array of dtype {array.dtype} does not cross")
        return {name: [array.dtype.str, list(np.shape(value)), base64.b64encode(array.tobytes()).decode()]}
    kinds: tuple[Any, ...] = (int, float, str, list, tuple, dict)
    for kind in kinds:
        if isinstance(value, kind) and type(value) is not kind:  # of a class of its own
            return plain(kind(value), depth - 1)
    raise Refused(f"a value of type {type(value).__name__} does not cross")


def loads(line: bytes, tensor: Callable[[np.ndarray], Any] | None = None, most: int = MOST) -> Any:
    """The value of a line from anywhere; tensors become what `tensor` makes of an array, without it arrays.

    Raises: Refused.
    """
    if len(line) > most:
        raise Refused(f"a line of {len(line)} bytes; at most {most} are read")
    if most == MOST and sum(map(line.count, (b"[", b"{", b",", b":"))) > PARTS:
        raise Refused(f"a line of more than {PARTS} parts")
    try:
        data = json.loads(line.decode("ascii"), parse_int=whole, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise Refused(f"no line of JSON: {type(error).__name__}") from None
    return value_of(data, tensor, DEPTH)


def whole(digits: str) -> int:
    if len(digits) > 40:
        raise Refused("a whole number of more than 40 digits")
    return int(digits)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Refused("a key that stands twice")
    return dict(pairs)


def value_of(data: Any, tensor: Callable[[np.ndarray], Any] | None, depth: int) -> Any:
    if depth == 0:
        raise Refused(f"nested deeper than {DEPTH}")
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return [value_of(part, tensor, depth - 1) for part in data]
    kind, content = next(iter(data.items())) if len(data) == 1 else ("", None)
    if kind == "dict" and isinstance(content, dict):
        return {key: value_of(part, tensor, depth - 1) for key, part in content.items()}
    if kind in ("array", "tensor") and isinstance(content, list) and len(content) == 3:
        array = array_of(*content)
        return tensor(array) if kind == "tensor" and tensor else array
    raise Refused("braces that are neither a dictionary nor an array")


def array_of(dtype: Any, shape: Any, text: Any) -> np.ndarray:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise Refused("an array of another dtype")
    if not isinstance(shape, list) or len(shape) > 16 or not all(type(n) is int and 0 <= n <= MOST for n in shape):
        raise Refused("an array without a shape")
    if 0 in shape and math.prod(n or 1 for n in shape) > MOST:  # takes no bytes, and numpy may still call it too large
        raise Refused("an array of too many empty parts")
    if not isinstance(text, str):
        raise Refused("an array without bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refused("an array whose bytes are not base64") from None
    if len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise Refused("an array whose bytes are not as many as its shape says")
    return np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
