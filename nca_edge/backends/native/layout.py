"""Lay an automaton out as the compiled step reads it (``step.h``)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import fire_masks
from nca_edge.backends.native.graph import MOST_BIAS, Arrays, NativeGraph

LAYOUT = 5
"""``NCA_LAYOUT``."""
CHUNK = 64
"""Channels and hidden channels come in multiples of it: a cache line, and what one instruction of AVX-512 reads."""
LARGEST = 2**30
"""Biases beyond it would overflow the sums; a channel that needs such a one stands still."""
SHIFT = 3 * 2**22
"""In the middle of the float32 numbers that are 1 apart: an integer of up to 2**22 added to its bits is added to it."""
SHIFT_BITS = int(np.float32(SHIFT).view(np.int32))

KINDS = {
    "inward": np.float32, "outward": np.float32, "kernels": np.int8, "kernel_scales": np.float32, "kernel_offsets": np.float32,
    "w1": np.int8, "w2": np.int8, "rounding": np.int32, "kernel_bias": np.int32, "bias1": np.int32, "scale1": np.float32,
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
    a, x, unit = graph.architecture, graph.arrays, graph.unit
    offset = 128 if signed else 0
    channels, hidden = _padded(a.channels), _padded(a.hidden)
    c_order, h_order, s_order = (np.arange(n) if signed else of(n) for n, of in (
        (channels, _narrowed_twice), (hidden, _narrowed), (channels, _halved)
    ))  # fmt: skip
    scale, between = np.maximum(x["scale"], unit)[:, None], x["between"][:, None]
    zero = x["zero"][:, None].astype(np.int32)
    kernels = [_Kernel.of(x, name, scale, zero, offset) for name in ("k1", "k2")]

    def both(of: Callable[[_Kernel], NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Something of the first kernel and of the second (..., channels)."""
        first, second = (_wide(of(kernel), channels)[..., c_order] for kernel in kernels)
        return first, second

    w1 = _wide(_wide(x["w1"].reshape(a.hidden, 3, a.channels), channels), hidden, 0)
    w2 = _wide(_wide(x["w2"], hidden)[:, h_order], channels, 0)[s_order]
    made: Arrays = {
        "inward": (x["factors"] / unit)[: a.image_channels],
        "outward": unit / x["factors"],
        "kernels": _taps(*both(lambda kernel: kernel.weights.T)),
        "kernel_scales": _woven(*both(lambda kernel: kernel.scales)),
        "kernel_offsets": _woven(*both(lambda kernel: kernel.offsets)),
        "w1": _in_tiles(_as_perceived(w1[..., c_order])),
        "w2": _in_tiles(w2),
        "rounding": _rounding(unit / scale[:, 0], zero[:, 0] - offset),
        "kernel_bias": _woven(*both(lambda kernel: kernel.biases)),
        "bias1": _wide(_biases(x, scale, zero - offset), hidden),
        "scale1": _wide(scale * x["w1_scales"] / between, hidden),
        "bias2": offset * w2.astype(np.int32).sum(1),
        "scale2": _wide(between * x["w2_scales"] / unit, channels)[:, s_order],
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
    """The order of n outputs in bytes where AVX narrowed their sums: lanes of 16, four of each of four times 16 sums."""
    return np.arange(n).reshape(-1, 4, 4, 4).swapaxes(1, 2).ravel()


def _halved(n: int) -> NDArray[np.int64]:
    """The order of n sums that lie in order when AVX has narrowed two times 16 to 16 bits: lanes of 8, four of each."""
    return np.arange(n).reshape(-1, 4, 2, 4).swapaxes(1, 2).ravel()


def _narrowed_twice(n: int) -> NDArray[np.int64]:
    """The order of n channels in bytes where AVX narrowed their 16 bits: lanes of 16, eight of each of two times 32."""
    return np.arange(n).reshape(-1, 2, 4, 8).swapaxes(1, 2).ravel()


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
    channels by the first kernel and by the second, and again, first those of half 0 and then those of half 1. The 8 are one
    of each part by turns."""
    own, by_kernels = weights[:, :1], weights[:, 1:]
    chunks = own.reshape(len(weights), -1, CHUNK)
    halves = by_kernels.reshape(len(weights), 2, -1, 4, 2, 2, 4)  # kernel, chunk, lane, half, part, channel
    turned = halves.transpose(0, 2, 4, 3, 1, 6, 5)  # chunk, half, lane, kernel, channel, part
    return np.concatenate([chunks, turned.reshape(len(weights), -1, 2 * CHUNK)], 2).reshape(len(weights), -1)


def _in_tiles(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(outputs, inputs) -> (outputs / 16, inputs / 4, 16, 4)."""
    return weights.reshape(len(weights) // 16, 16, -1, 4).swapaxes(1, 2)


def _biases(x: Arrays, scale: NDArray[np.float32], zero: NDArray[np.int32]) -> NDArray[np.int32]:
    """(steps, hidden): in scales of the products, less what the zero point adds to every sum."""
    bias = np.round(x["w1_bias"] / (x["w1_scales"] * scale))
    fitting = np.clip(bias, -LARGEST, LARGEST).astype(np.int32)
    less: NDArray[np.int32] = fitting - zero * x["w1"].astype(np.int32).sum(1, dtype=np.int32)
    return less


def _rounding(ratio: NDArray[np.floating], zero: NDArray[np.int32]) -> NDArray[np.int32]:
    """(steps,) units of the state over scales, at most 1 -> (steps, 3) ``nca_rounding``: 15 bits of each, and a half."""
    bits = np.maximum(0, -np.frexp(ratio)[1])
    multiplier = np.minimum(np.rint(np.ldexp(ratio, bits + 15)), 2**15 - 1).astype(np.int32)
    return np.stack([multiplier, (zero << bits) + (1 << bits >> 1), bits], 1)


class _Kernel(NamedTuple):
    """Of all channels: read as float32, sums that begin with their bias are ``SHIFT`` more than they are; times their scale and
    plus their offset, ``SHIFT`` more than what is perceived."""

    weights: NDArray[np.int8]
    """(channels, 9)"""
    scales: NDArray[np.float32]
    offsets: NDArray[np.float32]
    biases: NDArray[np.int32]
    """(steps, channels)"""

    @classmethod
    def of(cls, x: Arrays, name: str, scale: NDArray[np.float32], zero: NDArray[np.int32], offset: int) -> _Kernel:
        """Weights are as they are stored, but where a scale is so small that a bias would not fit: then they hardly count."""
        begin = np.clip(x[f"{name}_bias"] / scale.astype(np.float64), -MOST_BIAS, MOST_BIAS) + zero
        stored = x[f"{name}_scales"]
        scales = np.maximum(stored, np.float32(np.abs(begin).max(0) / 2**21))
        weights = np.rint(x[name] * (stored / scales)[:, None]).astype(np.int8)
        exact = SHIFT - SHIFT * scales.astype(np.float64)
        offsets = exact.astype(np.float32)
        biases = np.rint((begin - (offsets - exact)) / scales) - (zero - offset) * weights.sum(1, dtype=np.int32)
        return cls(weights, scales, offsets - np.float32(offset), SHIFT_BITS + biases.astype(np.int32))
