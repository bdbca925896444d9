"""The smallest ONNX files there are: one matrix product. Written by hand, since a board has no onnx package."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT, UINT8, INT8, INT32 = 1, 2, 3, 6
"""Element types of ONNX's TensorProto."""
IR_VERSION, OPSET = 9, 18
_TEXT, _WHOLE = 2, 0
"""Wire types of protocol buffers: bytes with a length, and whole numbers."""


def product(kind: str, rows: int, weight: NDArray[Any]) -> bytes:
    """A file that multiplies an input ``a`` (rows, k) by a stored matrix (k, n) into ``c``.

    Parameters
    ----------
    kind : ``MatMul`` for float32, ``MatMulInteger`` for uint8 inputs times int8 weights
    """
    given, made = (FLOAT, FLOAT) if kind == "MatMul" else (UINT8, INT32)
    k, n = weight.shape
    node = _text(1, "a") + _text(1, "b") + _text(2, "c") + _text(3, "product") + _text(4, kind)
    stored = _whole(1, k) + _whole(1, n) + _whole(2, FLOAT if weight.dtype == np.float32 else INT8)
    stored += _text(8, "b") + _message(9, weight.tobytes())
    graph = _message(1, node) + _text(2, "product") + _message(5, stored)
    graph += _message(11, _value("a", given, (rows, k))) + _message(12, _value("c", made, (rows, n)))
    return _whole(1, IR_VERSION) + _message(7, graph) + _message(8, _text(1, "") + _whole(2, OPSET))


def _value(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_message(1, _whole(1, size)) for size in shape)
    return _text(1, name) + _message(2, _message(1, _whole(1, kind) + _message(2, sizes)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3 | _WHOLE) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _TEXT) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())
