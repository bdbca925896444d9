"""Lay an automaton out as the compiled step reads it (``step.h``)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import fire_masks
from nca_edge.backends.native.graph import Arrays, NativeGraph

LAYOUT = 4
"""``NCA_LAYOUT``."""
CHUNK = 64
"""Channels and hidden channels come in multiples of it: a cache line, and what one instruction of AVX-512 reads."""
LARGEST = 2**30
"""Biases beyond it would overflow the sums; a channel that needs such a one stands still."""


KINDS = {
    "factors": np.float32, "reciprocals": np.float32, "kernels": np.int8, "kernel_scales": np.float32, "w1": np.int8,
    "w2": np.int8, "inverse": np.float32, "zero": np.int32, "kernel_bias": np.int32, "bias1": np.int32, "scale1": np.float32,
    "bias2": np.int32, "scale2": np.float32, "starts": np.int32, "columns": np.uint16,
}  # fmt: skip
"""Arrays of ``nca_automaton``, in its order."""


class Automaton(ctypes.Structure):
    """``nca_automaton``."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("grid", "channels", "hidden", "seen", "pixels")),
        *((name, ctypes.c_void_p) for name in KINDS),
    ]


class Asked(ctypes.Structure):
    """``nca_answer``."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("state", "most", "sum")]


def lay_out(graph: NativeGraph, signed: bool) -> tuple[Automaton, Arrays]:
    """The structure, and the arrays that it points to, which must live as long.

    Parameters
    ----------
    signed : bytes of what is perceived and hidden are 128 less, as ARM's dot products read them; in plain order
    """
    a, x = graph.architecture, graph.arrays
    offset = 128 if signed else 0
    channels, hidden = _padded(a.channels), _padded(a.hidden)
    c_order, h_order = (np.arange(n) if signed else _narrowed(n) for n in (channels, hidden))
    scale, between, zero = (x[name][:, None] for name in ("scale", "between", "zero"))
    zero = zero.astype(np.int32) - offset

    def both(of: Callable[[str], NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Something of the first kernel and of the second (..., channels)."""
        first, second = (_wide(of(name), channels)[..., c_order] for name in ("k1", "k2"))
        return first, second

    w1 = _wide(_wide(x["w1"].reshape(a.hidden, 3, a.channels), channels), hidden, 0)
    made: Arrays = {
        "factors": x["factors"],
        "reciprocals": np.float32(1) / x["factors"],
        "kernels": _taps(*both(lambda name: x[name].T)),
        "kernel_scales": _woven(*both(lambda name: x[f"{name}_scales"])),
        "w1": _in_tiles(_as_perceived(w1[..., c_order])),
        "w2": _in_tiles(_wide(_wide(x["w2"], hidden)[:, h_order], channels, 0)),
        "inverse": np.float32(1) / x["scale"],
        "zero": zero[:, 0],
        "kernel_bias": _woven(*both(lambda name: _biases(x, name, scale, zero))),
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
    return Automaton(a.grid, channels, hidden, a.channels, a.image_channels, *pointers), made


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


def _narrowed(n: int) -> NDArray[np.int64]:
    """The order of n channels in bytes where AVX-512 narrowed them: lanes of 16, four bytes of each of four times 16 sums."""
    return np.arange(n).reshape(-1, 4, 4, 4).swapaxes(1, 2).ravel()


def _wide(array: NDArray[Any], size: int, axis: int = -1) -> NDArray[Any]:
    """With zeros behind, up to that size."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths)


def _woven(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Of both kernels (..., channels) -> (..., chunks * 2 halves * 2 kernels * 2 parts * 4 lanes * 4 channels): in each chunk
    the order in which lanes of 16 are unpacked, four channels at a time."""
    both = np.stack([first, second], -2)
    parts = both.reshape(*both.shape[:-1], -1, 4, 2, 2, 4)  # kernel, chunk, lane, half, part, channel
    axes = len(first.shape) - 1
    order = (*range(axes), *(axes + i for i in (1, 3, 0, 4, 2, 5)))
    return parts.transpose(order).reshape(*first.shape[:-1], -1)


def _taps(first: NDArray[np.int8], second: NDArray[np.int8]) -> NDArray[np.int8]:
    """Of both kernels (9, channels) -> (chunks * 2 halves * 2 kernels * 2 parts, 3 columns, 4 lanes * 4 channels, 4 rows), the
    fourth row being 0."""
    columns = [_wide(_woven(first[i::3], second[i::3]), 4, 0) for i in range(3)]  # (4 rows, 2 * channels) each
    return np.stack(columns).reshape(3, 4, -1, 16).transpose(2, 0, 3, 1)


def _as_perceived(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(outputs, 3, channels) -> (outputs, 3 * channels) in the order in which the step perceives: of a chunk its own, then 8
    channels by the first kernel and by the second, and again, first those of half 0 and then those of half 1."""
    own, by_kernels = weights[:, :1], weights[:, 1:]
    chunks = own.reshape(len(weights), -1, CHUNK)
    halves = by_kernels.reshape(len(weights), 2, -1, 4, 2, 8).transpose(0, 2, 4, 3, 1, 5)  # chunk, half, lane, kernel, channel
    return np.concatenate([chunks, halves.reshape(len(weights), -1, 2 * CHUNK)], 2).reshape(len(weights), -1)


def _in_tiles(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(outputs, inputs) -> (outputs / 16, inputs / 4, 16, 4)."""
    return weights.reshape(len(weights) // 16, 16, -1, 4).swapaxes(1, 2)


def _biases(x: Arrays, name: str, scale: NDArray[np.float32], zero: NDArray[np.int32]) -> NDArray[np.int32]:
    """(steps, outputs): in scales of the products, less what the zero point adds to every sum."""
    bias = np.round(x[f"{name}_bias"] / (x[f"{name}_scales"] * scale))
    fitting = np.clip(bias, -LARGEST, LARGEST).astype(np.int32)
    less: NDArray[np.int32] = fitting - zero * x[name].astype(np.int32).sum(1, dtype=np.int32)
    return less
