"""Write the automaton for the compiled step (``model.int8.npz``), and compute the same in NumPy.

Scales, alike channels and rounding are those of the ONNX graph (``onnx_int8_graph``); the file holds numbers, no program.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights, pack_fire, pool
from nca_edge.backends import firing_lines
from nca_edge.backends.native import NativeGraph
from nca_edge.backends.native.layout import SHIFT
from nca_edge.backends.reference import Lines, folded
from nca_edge.bundle_writer import packed
from nca_edge.records import Image32
from nca_export.quantize import LEVELS, Reach, asymmetric, equalise
from nca_export.rounding import narrow_head, quantized

Sums = NDArray[np.int32]


def build_native(
    architecture: Architecture, weights: Weights, fire: Fire, reached: Reach, mask_step: int | None = None
) -> bytes:
    """Serialise the whole automaton."""
    a, equal = architecture, equalise(weights, reached)
    made, seen, factors = equal.weights, equal.reach.moments, equal.perceived[: architecture.channels]
    widest = [equal.reach.widest(step) for step in range(a.steps)]
    spans = [asymmetric(low, high) for low, high, _ in widest]
    narrow = narrow_head(weights, reached.moments.pooled)
    arrays = {
        "facts": np.array([json.dumps({"architecture": a.to_json(), "mask_step": mask_step})]),
        "fire": pack_fire(a, fire), "factors": factors,
        "scale": np.array([scale for scale, _ in spans]), "zero": np.array([zero for _, zero in spans]),
        "between": np.array([np.float32(hidden / LEVELS) for *_, hidden in widest]),
        "w1_bias": made["w1_bias"], "head1": narrow.head1, "head1_scale": np.array([narrow.scale]),
        "head1_bias": narrow.head1_bias, "head2": narrow.head2, "head2_bias": weights["head2_bias"],
    }  # fmt: skip
    arrays["w1"], arrays["w1_scales"] = quantized(made["w1"], seen.perceived)
    arrays["w2"], arrays["w2_scales"] = quantized(made["w2"] * factors[:, None], seen.hidden)
    for name in ("k1", "k2"):
        arrays[name], arrays[f"{name}_scales"] = quantized(made[name].reshape(a.channels, 9))
        arrays[f"{name}_bias"] = made[f"{name}_bias"]
    return packed(arrays)


class NumpyNative:
    """What the compiled step computes, written in NumPy after the formulas of a step, not after the program.

    Sums are exact, and what is rounded is rounded as there, but for the last bit of what a sum is multiplied by: the product
    is taken in float64 here.
    """

    def __init__(self, graph: NativeGraph) -> None:
        self.graph, self.x = graph, graph.arrays
        self.scale = np.maximum(self.x["scale"], graph.unit)
        """(steps,) of what is perceived: nothing finer than the state's own unit."""

    def __call__(self, image: Image32) -> dict[str, NDArray[np.float32]]:
        """(size, size, 3) -> ``logits``, ``state``, and (lines, channels) ``perceived``, ``hidden``, ``delta`` and ``state`` of
        each step, ``/1`` being the first, channels as they were made alike but for the state."""
        graph, a = self.graph, self.graph.architecture
        pixels = folded(a, image)
        state = np.zeros((a.grid, a.grid, a.channels), np.int32)
        state[..., : a.image_channels] = _16_bits(pixels * (self.x["factors"][: a.image_channels] / graph.unit))
        found: dict[str, NDArray[np.float32]] = {}
        for step, fire in enumerate(graph.fire):
            inside = self.step(state, step, fire)
            plain = np.multiply(state, graph.unit / self.x["factors"], dtype=np.float32)
            plain[..., : a.image_channels] = pixels  # to the bit
            found |= {f"{name}/{step + 1}": value for name, value in {**inside, "state": plain}.items()}
            if step + 1 == graph.mask_step:
                found["mask_state"] = plain
        return {"logits": self.head(plain), **found, "state": plain}

    def step(self, state: Sums, step: int, fire: NDArray[np.uint8] | np.uint8) -> dict[str, NDArray[np.float32]]:
        """Change a state of alike channels, in 16 bits, in place."""
        x, lines, unit = self.x, firing_lines(fire), self.graph.unit
        scale, zero, between = self.scale[step], int(x["zero"][step]), x["between"][step]
        rounded = _clipped(_rescaled(state, unit / scale) + zero)
        perceived = np.concatenate([rounded[lines], *(self._convolved(rounded, name, step, lines) for name in ("k1", "k2"))], 2)
        sums = (perceived - zero) @ x["w1"].astype(np.int32).T + self._bias(scale)
        hidden = _clipped(np.rint(sums * np.float64(scale * x["w1_scales"] / between)))
        products = hidden @ x["w2"].astype(np.int32).T
        delta = _16_bits(products * np.float64(between * x["w2_scales"] / unit))
        firing = state[lines]
        changed = _16_bits(firing + delta)
        state[lines] = np.where(np.asarray(fire)[..., None] > 0, changed, firing) if np.ndim(fire) else changed
        return {
            "perceived": (perceived - zero).astype(np.float32) * scale, "hidden": hidden.astype(np.float32) * between,
            "delta": delta.astype(np.float32) * unit,
        }  # fmt: skip

    def head(self, state: Image32) -> NDArray[np.float32]:
        """(grid, grid, channels) -> (classes,) logits."""
        x, pooled = self.x, pool(state, self.graph.architecture.pool).astype(np.float32)
        hidden = np.maximum((x["head1"].astype(np.float32) * x["head1_scale"]) @ pooled + x["head1_bias"], 0)
        logits: NDArray[np.float32] = x["head2"] @ hidden + x["head2_bias"]
        return logits

    def _convolved(self, rounded: Sums, name: str, step: int, lines: Lines) -> Sums:
        x, grid, zero = self.x, self.graph.architecture.grid, int(self.x["zero"][step])
        padded = np.pad(rounded - zero, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        taps = x[name].astype(np.int32).reshape(-1, 3, 3)
        sums = sum(padded[i : i + grid, j : j + grid][lines] * taps[:, i, j] for i in range(3) for j in range(3))
        whole, rest = self._begin(name, step)
        return _clipped(np.rint((sums + whole) * np.float64(x[f"{name}_scales"]) + rest))

    def _begin(self, name: str, step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A kernel's bias and zero point: what its sums begin with, in whole scales of the products, and what is added after
        the multiplication, which is what a float32 of the size of ``SHIFT`` loses."""
        x, scales = self.x, self.x[f"{name}_scales"].astype(np.float64)
        begin = x[f"{name}_bias"] / np.float64(self.scale[step]) + x["zero"][step]
        rest = np.float32(SHIFT - SHIFT * scales) - (SHIFT - SHIFT * scales)
        return np.rint((begin - rest) / scales), rest

    def _bias(self, scale: np.float32) -> NDArray[np.float32]:
        """Of the hidden layer, in whole scales of the products."""
        return np.rint(self.x["w1_bias"] / (self.x["w1_scales"] * scale))


def _clipped(values: NDArray[Any]) -> Sums:
    within: Sums = np.clip(values, 0, 255).astype(np.int32)
    return within


def _16_bits(values: NDArray[Any]) -> Sums:
    within: Sums = np.clip(np.rint(values), -(2**15), 2**15 - 1).astype(np.int32)
    return within


def _rescaled(state: Sums, by: np.float32) -> Sums:
    """Times a number of at most 1 as integers do it, whose mantissa has 15 bits: rounded to a few bits after the point, and
    then to none; what lies half way goes up."""
    bits = 0
    while by < 0.5:
        by, bits = by * 2, bits + 1
    multiplier = min(int(np.rint(by * 2**15)), 2**15 - 1)
    product = (state * multiplier + 2**14) >> 15
    rounded: Sums = (product + (1 << bits >> 1)) >> bits
    return rounded
