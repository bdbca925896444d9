"""Lay an automaton out as the compiled step reads it (``step.h``)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import fire_masks
from nca_edge.backends.native.graph import Arrays, NativeGraph

CHUNK = 64
"""Channels and hidden channels come in multiples of it: a cache line, and what one instruction of AVX-512 reads."""
LARGEST = 2**30
"""Biases beyond it would overflow the sums; a channel that needs such a one stands still."""


KINDS = {
    "kernels": np.int8, "kernel_scales": np.float32, "w1": np.int8, "w2": np.int8, "inverse": np.float32, "zero": np.int32,
    "kernel_bias": np.int32, "bias1": np.int32, "scale1": np.float32, "bias2": np.int32, "scale2": np.float32,
    "starts": np.int32, "columns": np.uint16,
}  # fmt: skip
"""Arrays of ``nca_automaton``, in its order."""


class Automaton(ctypes.Structure):
    """``nca_automaton``."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("grid", "channels", "hidden")),
        *((name, ctypes.c_void_p) for name in KINDS),
    ]


def lay_out(graph: NativeGraph, signed: bool) -> tuple[Automaton, Arrays]:
    """The structure, and the arrays that it points to, which must live as long.

    Parameters
    ----------
    signed : bytes of what is perceived and hidden are 128 less, as ARM's dot products read them
    """
    a, x = graph.architecture, graph.arrays
    offset = 128 if signed else 0
    channels, hidden = _padded(a.channels), _padded(a.hidden)
    scale, between, zero = (x[name][:, None] for name in ("scale", "between", "zero"))
    zero = zero.astype(np.int32) - offset
    made: Arrays = {
        "kernels": np.stack([_taps(x[name], channels) for name in ("k1", "k2")]),
        "kernel_scales": np.stack([_woven(_wide(x[f"{name}_scales"], channels)) for name in ("k1", "k2")]),
        "w1": _by_fours(_wide(_wide(x["w1"].reshape(a.hidden, 3, a.channels), channels), hidden, 0).reshape(hidden, -1)),
        "w2": _by_fours(_wide(_wide(x["w2"], hidden), channels, 0)),
        "inverse": np.float32(1) / x["scale"],
        "zero": zero[:, 0],
        "kernel_bias": np.stack([_woven(_wide(_biases(x, name, scale, zero), channels)) for name in ("k1", "k2")], 1),
        "bias1": _wide(_biases(x, "w1", scale, zero), hidden),
        "scale1": _wide(scale * x["w1_scales"] / between, hidden),
        "bias2": _wide(offset * x["w2"].astype(np.int32).sum(1), channels),
        "scale2": _wide(between * x["w2_scales"], channels),
    }
    masks = fire_masks(a, graph.fire)
    made["starts"] = np.concatenate([[0], masks.sum(2).cumsum()])
    made["columns"] = np.nonzero(masks)[2]
    for name, kind in KINDS.items():
        made[name] = aligned(made[name], kind)
    pointers = (made[name].ctypes.data for name in KINDS)
    return Automaton(a.grid, channels, hidden, *pointers), made


def aligned(array: NDArray[Any], kind: Any) -> NDArray[Any]:
    """A copy that begins on a cache line: a load across two of them takes twice as long."""
    size = array.size * np.dtype(kind).itemsize
    raw = np.empty(size + CHUNK, np.uint8)
    first = -raw.ctypes.data % CHUNK
    copy: NDArray[Any] = raw[first : first + size].view(kind).reshape(array.shape)
    copy[...] = array
    return copy


def _padded(n: int) -> int:
    return -(-n // CHUNK) * CHUNK


def _wide(array: NDArray[Any], size: int, axis: int = -1) -> NDArray[Any]:
    """With zeros behind, up to that size."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths)


def _woven(array: NDArray[Any]) -> NDArray[Any]:
    """(..., channels): in each chunk the order in which lanes of 16 are unpacked, four channels at a time."""
    parts = array.reshape(*array.shape[:-1], -1, 4, 4, 4)
    return parts.swapaxes(-3, -2).reshape(array.shape)


def _taps(kernel: NDArray[np.int8], channels: int) -> NDArray[np.int8]:
    """(channels, 9) -> (chunks, column, part, lane, channel, row), a fourth row being 0."""
    by_column = _wide(_wide(kernel.reshape(-1, 3, 3), channels, 0).transpose(2, 0, 1), 4)
    lanes = by_column.reshape(3, channels // CHUNK, 4, 4, 4, 4)
    return lanes.transpose(1, 0, 3, 2, 4, 5)


def _by_fours(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(outputs, inputs) -> (inputs / 4, outputs, 4)."""
    return weights.reshape(len(weights), -1, 4).swapaxes(0, 1)


def _biases(x: Arrays, name: str, scale: NDArray[np.float32], zero: NDArray[np.int32]) -> NDArray[np.int32]:
    """(steps, outputs): in scales of the products, less what the zero point adds to every sum."""
    bias = np.round(x[f"{name}_bias"] / (x[f"{name}_scales"] * scale))
    fitting = np.clip(bias, -LARGEST, LARGEST).astype(np.int32)
    less: NDArray[np.int32] = fitting - zero * x[name].astype(np.int32).sum(1, dtype=np.int32)
    return less
