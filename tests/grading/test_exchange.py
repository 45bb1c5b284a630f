"""What crosses, and that nothing else does."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import tracemalloc

import numpy as np
import pytest
import torch

from grading import exchange
from grading.exchange import MOST, Refused, dumps, loads


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -2.5,
        float("inf"),
        "naïve ✓ \ud800 \x00 \n",
        [],
        [1, [2.0, "x"]],
        {"a": [1], "array": "b", "": None},
        10**39,
    ],
)
def test_plain_values_cross(value):
    line = dumps(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert loads(line) == value


@pytest.mark.parametrize("dtype", exchange.DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_arrays_cross_bit_by_bit(dtype, shape):
    array = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    back = loads(dumps(array))
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert back.flags.writeable


def test_strides_and_byte_orders_are_levelled():
    array = np.arange(12.0).reshape(3, 4)
    for view in (array.T, array[::-1, ::2], array.astype(">f8"), np.asfortranarray(array)):
        np.testing.assert_array_equal(loads(dumps(view)), view)


def test_tensors_cross_as_arrays_and_come_back_as_tensors():
    tensor = torch.arange(6.0).reshape(2, 3).requires_grad_()
    assert isinstance(loads(dumps(tensor)), np.ndarray)
    back = loads(dumps([tensor, np.ones(2)]), torch.from_numpy)
    torch.testing.assert_close(back[0], tensor.detach())
    assert isinstance(back[1], np.ndarray)
    np.testing.assert_array_equal(loads(dumps((tensor.to(torch.complex64) * 1j).conj())), -1j * tensor.detach().numpy())


def test_subclasses_leave_their_class_behind():
    class Text(str):
        __slots__ = ()

    assert type(loads(dumps(Text("x")))) is str
    assert type(loads(dumps(np.float64(2)))) is np.ndarray
    assert loads(dumps((1, (2,)))) == [1, [2]]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        print,
        {1, 2},
        b"bytes",
        1j,
        {1: 2},
        np.array([None]),
        np.array(["text"]),
        np.zeros(1, dtype=[("a", float)]),
        np.datetime64("2020-01-01"),
        (n for n in range(3)),
        "x" * MOST,
        np.zeros(MOST),
    ],
)
def test_nothing_else_is_sent(value):
    with pytest.raises(Refused):
        dumps(value)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_has_an_end():
    loads(dumps(nested(exchange.DEPTH - 1)))
    for send in (lambda: dumps(nested(exchange.DEPTH)), lambda: loads(json.dumps(nested(exchange.DEPTH)).encode())):
        with pytest.raises(Refused, match="nested"):
            send()


def array(dtype="<f8", shape=(1,), data=bytes(8), name="array") -> bytes:
    text = base64.b64encode(data).decode() if isinstance(data, bytes) else data
    return json.dumps({name: [dtype, shape, text]}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff",
        "é".encode(),
        b"nope",
        pickle.dumps([1]),
        b"PK\x03\x04",
        b"\x93NUMPY\x01\x00",
        b"[" * 100_000,
        b"[" * 5000 + b"]" * 5000,
        b"9" * 100_000,
        b"9" * 41,
        b"[" + b"0," * 200_000 + b"0]",
        b'"' + b"x" * MOST + b'"',
        b'{"dict":{"a":1,"a":2}}',
        b'{"dict":[]}',
        b'{"dict":{},"array":[]}',
        b"{}",
        b'{"x":1}',
        array("|O"),
        array("<U8"),
        array(">f8"),
        array("float64"),
        array("<f16", data=bytes(16)),
        array(["<f8"]),
        array(shape=[-1]),
        array(shape=[-1, -1]),
        array(shape=[1.0]),
        array(shape=[True]),
        array(shape=["1"]),
        array(shape=1),
        array(shape=[10**30]),
        array(shape=[MOST] * 16),
        array(shape=[1] * 17),
        array(shape=[MOST, MOST, MOST, 0], data=b""),
        array(shape=[0, *[MOST] * 15], data=b""),
        array(shape=[MOST, 2, 0], data=b""),
        array(shape=[2]),
        array(data=bytes(9)),
        array(data="!!!!"),
        array(data="AAAAAAAAAAA=\n"),
        array(data=None),
        array(data=["AAAA"]),
    ],
)
def test_nothing_else_is_read(line):
    with pytest.raises(Refused):
        loads(line)


def test_a_false_size_takes_no_memory():
    tracemalloc.start()
    with pytest.raises(Refused):
        loads(array(shape=[4_000_000, 1000]))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_mutated_lines_are_read_or_refused():
    """Twenty thousand lines with a few bytes changed: no other exception comes out."""
    rng = np.random.default_rng(7)
    value = [np.arange(3.0), torch.ones(2), "text", {"k": None}, True, 1e9]
    start = dumps({"question": "q", "case": 0, "value": value})
    for _ in range(20_000):
        line = bytearray(start)
        for place in rng.integers(0, len(line), rng.integers(1, 6)):
            line[place] = rng.choice(np.frombuffer(b'{}[]",:0123456789.eE-+truefalsn\\ \xff\x00', np.uint8))
        with contextlib.suppress(Refused):
            loads(bytes(line))
