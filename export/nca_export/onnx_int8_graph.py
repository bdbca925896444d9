"""Write the automaton as an ONNX graph in int8: perception and 1x1 layers in 8 bits, state, mask and sum in float32.

Each step rounds the state to 8 bits for what it perceives of it, and adds a float32 change to the float32 state: the state
itself is never rounded. The scales of a step come from cells that were run through the reference (``quantize.reach``), so that
a cell's answer hangs on no other cell of its batch. ``QLinearConv`` with channels last and ``QGemm`` are ONNX Runtime's own
operators (domain com.microsoft): export/README.md says what they bring.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights
from nca_export.onnx_graph import Graph, head
from nca_export.quantize import LEVELS, Equalised, Reach, asymmetric, equalise, narrow_head, quantized

CONTRIB = "com.microsoft"


def build_onnx_int8(
    architecture: Architecture,
    weights: Weights,
    fire: Fire,
    reached: Reach,
    mask_step: int | None = None,
    probe: bool = False,
) -> bytes:
    """Serialise the whole automaton; parameters and outputs as of ``build_onnx``."""
    a = architecture
    drawing = _Drawing(a, equalise(weights, reached), probe)
    g, x, states = drawing.graph, drawing.seed(), [a.steps, mask_step]
    for number, step in enumerate(fire, start=1):
        drawing.begin(number)
        x = drawing.half_step(x, int(step)) if np.ndim(step) == 0 else drawing.masked_step(x, step)
        if probe:
            g.output(g.one("Identity", [x]), f"state/{number}", [a.grid, a.grid, a.channels])
        for name, after in zip(("state", "mask_state"), states, strict=True):
            if after == number:
                g.output(g.one("Identity", [x]), name, [a.grid, a.grid, a.channels])
    head(g, a, weights, g.one("Transpose", [x], perm=[0, 3, 1, 2]), narrow_head(weights))
    return g.finish("image", [a.size, a.size, 3], contrib=True)


class _Drawing:
    """The parts of the automaton, channels last, as they are added to a graph."""

    def __init__(self, architecture: Architecture, equal: Equalised, probe: bool) -> None:
        weights = equal.weights
        self.graph, self.a, self.equal, self.probe, self.number = Graph(), architecture, equal, probe, 0
        self.w1, self.w1_scales = quantized(weights["w1"])
        self.w2, self.w2_scales = quantized(weights["w2"])
        self.kernels = {name: quantized(weights[name].reshape(architecture.channels, 9)) for name in ("k1", "k2")}

    def begin(self, number: int) -> None:
        """Take the scales of that step, 1 being the first."""
        self.number = number
        low, high, hidden = self.equal.reach.widest(number - 1)
        self.scale, zero = asymmetric(low, high)  # of all that is perceived: one product takes it all
        self.perceived = [self.graph.constant(np.array(value)) for value in (self.scale, zero)]
        self.between = [self.graph.constant(np.array(value)) for value in (np.float32(hidden / LEVELS), np.uint8(0))]

    def seed(self) -> str:
        """Fold pixels into channels, (row, column, colour), and append the hidden channels."""
        g, a, x = self.graph, self.a, "image"
        if a.fold > 1:
            shape = [0, a.grid, a.fold, a.grid, a.fold * 3]
            x = g.one("Transpose", [self._reshape(x, shape)], perm=[0, 1, 3, 2, 4])
            x = self._reshape(x, [0, a.grid, a.grid, a.image_channels])
        return g.one("Pad", [x, g.constant(np.array([0] * 7 + [a.channels - a.image_channels], np.int64))])

    def masked_step(self, x: str, mask: NDArray[np.uint8]) -> str:
        """All grid cells are computed; those that fire change."""
        g, a = self.graph, self.a
        rounded = self._rounded(x)
        delta = self._delta(rounded, self._padded(rounded, (1, 1), (1, 1)), (a.grid, a.grid), (1, 1))
        fires = g.one("Cast", [g.constant(mask[None, ..., None])], to=1)  # stored as bytes: a quarter of the file
        return g.one("Add", [x, g.one("Mul", [delta, fires])])

    def half_step(self, x: str, phase: int) -> str:
        """Rows (phase 0, 1) or columns (2, 3): split into even and odd lines, update one of them, interleave again."""
        g, a = self.graph, self.a
        parity, by_rows, half = phase % 2, phase < 2, a.grid // 2
        paired = [0, half, 2 * a.grid, a.channels] if by_rows else [0, a.grid, half, 2 * a.channels]
        axis, size = (2, (half, a.grid)) if by_rows else (3, (a.grid, half))
        lines = g.add("Split", [self._reshape(x, paired)], outputs=2, axis=axis, num_outputs=2)
        rounded = self._rounded(x)
        ends = (1 - parity, parity)  # even lines need the line before the first, odd lines the one after the last
        padded = self._padded(rounded, ends if by_rows else (1, 1), (1, 1) if by_rows else ends)
        firing = g.add("Split", [self._reshape(rounded, paired)], outputs=2, axis=axis, num_outputs=2)[parity]
        lines[parity] = g.one("Add", [lines[parity], self._delta(firing, padded, size, (2, 1) if by_rows else (1, 2))])
        return self._reshape(g.one("Concat", lines, axis=axis), [0, a.grid, a.grid, a.channels])

    def _rounded(self, x: str) -> str:
        """The state with its channels made alike, in 8 bits."""
        g = self.graph
        alike = g.one("Mul", [x, g.constant(self.equal.perceived[: self.a.channels])])
        return g.one("QuantizeLinear", [alike, *self.perceived])

    def _delta(self, x: str, padded: str, lines: tuple[int, int], strides: tuple[int, int]) -> str:
        """Change, in float32, of the rounded grid cells ``x``; ``padded`` holds their neighbourhoods."""
        g, a, weights = self.graph, self.a, self.equal.weights
        zero8 = g.constant(np.zeros(a.channels, np.int8))
        parts = [x]
        for name in ("k1", "k2"):
            kernel, scales = self.kernels[name]
            bias = np.round(weights[f"{name}_bias"] / (scales * self.scale)).astype(np.int32)
            taps = [g.constant(kernel.reshape(a.channels, 1, 3, 3)), g.constant(scales), zero8]
            inputs = [padded, *self.perceived, *taps, *self.perceived, g.constant(bias)]
            options = {"group": a.channels, "kernel_shape": [3, 3], "strides": list(strides)}
            parts.append(g.one("QLinearConv", inputs, domain=CONTRIB, channels_last=1, **options))
        y = self._reshape(g.one("Concat", parts, axis=3), [-1, 3 * a.channels])
        bias = np.round(weights["w1_bias"] / (self.w1_scales * self.scale)).astype(np.int32)
        first = [g.constant(self.w1.T), g.constant(self.w1_scales), g.constant(np.zeros(a.hidden, np.int8)), g.constant(bias)]
        hidden = g.one("QGemm", [y, *self.perceived, *first, *self.between], domain=CONTRIB)
        second = [g.constant(self.w2.T), g.constant(self.w2_scales), zero8]
        delta = g.one("QGemm", [hidden, *self.between, *second], domain=CONTRIB)
        if self.probe:
            self._show("perceived", g.one("DequantizeLinear", [y, *self.perceived]), self.equal.perceived, lines)
            self._show("hidden", g.one("DequantizeLinear", [hidden, *self.between]), self.equal.hidden, lines)
            self._show("delta", delta, np.ones(a.channels, np.float32), lines)
        return self._reshape(delta, [-1, *lines, a.channels])

    def _show(self, name: str, x: str, factors: NDArray[np.float32], lines: tuple[int, int]) -> None:
        """Make what lies inside a step an output, as the reference has it."""
        g = self.graph
        shape = [*lines, len(factors)]
        plain = g.one("Div", [self._reshape(x, [-1, *shape]), g.constant(factors)])
        g.output(plain, f"{name}/{self.number}", shape)

    def _padded(self, x: str, rows: tuple[int, int], columns: tuple[int, int]) -> str:
        pads = np.array([0, rows[0], columns[0], 0, 0, rows[1], columns[1], 0], np.int64)
        return self.graph.one("Pad", [x, self.graph.constant(pads)], mode="reflect")

    def _reshape(self, x: str, shape: list[int]) -> str:
        return self.graph.one("Reshape", [x, self.graph.constant(np.array(shape, np.int64))])
