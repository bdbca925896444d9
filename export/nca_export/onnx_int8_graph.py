"""Write the automaton as an ONNX graph in int8: perception and 1x1 layers in 8 bits, state, mask and sum in float32.

Each step rounds the state to 8 bits for what it perceives of it, and adds a float32 change to the float32 state: the state
itself is never rounded. The scales of a step come from cells that were run through the reference (``quantize.reach``), so that
a cell's answer hangs on no other cell of its batch. Only grid cells that fire are computed, and their change is added to these
alone (``ScatterND``). From the seed to the outputs the state's channels are those that were made alike.
``QLinearConv`` with channels last and ``QGemm`` are ONNX Runtime's own operators (domain com.microsoft): export/README.md says
what all this brings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from nca_edge.automaton import Architecture, Fire, Weights
from nca_export.onnx_graph import CONTRIB, Graph, head
from nca_export.quantize import LEVELS, Equalised, Reach, asymmetric, equalise
from nca_export.rounding import narrow_head, quantized

ONE = numpy_helper.from_array(np.ones(1, np.int64))
PATCH_BYTES = 2**20
"""Of neighbourhoods that are gathered at once: they stay in a core's own cache until both convolutions have read them."""


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
            g.output(drawing.plain(x), f"state/{number}", [a.grid, a.grid, a.channels])
        for name, after in zip(("state", "mask_state"), states, strict=True):
            if after == number:
                g.output(drawing.plain(x), name, [a.grid, a.grid, a.channels])
    narrow = narrow_head(weights, reached.moments.pooled)
    head(g, a, weights, g.one("Transpose", ["state"], perm=[0, 3, 1, 2]), narrow)
    return g.finish("image", [a.size, a.size, 3], contrib=True)


class _Drawing:
    """The parts of the automaton, channels last, as they are added to a graph; the states between them have alike channels."""

    def __init__(self, architecture: Architecture, equal: Equalised, probe: bool) -> None:
        weights, seen = equal.weights, equal.reach.moments
        self.graph, self.a, self.equal, self.probe, self.number = Graph(), architecture, equal, probe, 0
        self.image = ""
        """Pixels folded into channels: what the image channels hold from the first step to the last."""
        self.starts: dict[int, str] = {}
        self.around = ""
        self.factors = equal.perceived[: architecture.channels]
        self.w1, self.w1_scales = quantized(weights["w1"], seen.perceived)
        self.w2, self.w2_scales = quantized(weights["w2"] * self.factors[:, None], seen.hidden)
        self.kernels = {name: quantized(weights[name].reshape(architecture.channels, 9)) for name in ("k1", "k2")}

    def begin(self, number: int) -> None:
        """Take the scales of that step, 1 being the first."""
        self.number = number
        low, high, hidden = self.equal.reach.widest(number - 1)
        self.scale, zero = asymmetric(low, high)  # of all that is perceived: one product takes it all
        self.perceived = [self.graph.constant(np.array(value)) for value in (self.scale, zero)]
        self.between = [self.graph.constant(np.array(value)) for value in (np.float32(hidden / LEVELS), np.uint8(0))]

    def seed(self) -> str:
        """Fold pixels into channels, (row, column, colour), make them alike, and append the hidden channels."""
        g, a, self.image = self.graph, self.a, "image"
        if a.fold > 1:
            shape = [0, a.grid, a.fold, a.grid, a.fold * 3]
            x = g.one("Transpose", [self._reshape("image", shape)], perm=[0, 1, 3, 2, 4])
            self.image = self._reshape(x, [0, a.grid, a.grid, a.image_channels])
        alike = g.one("Mul", [self.image, g.constant(self.factors[: a.image_channels])])
        return g.one("Pad", [alike, g.constant(np.array([0] * 7 + [a.channels - a.image_channels], np.int64))])

    def plain(self, x: str) -> str:
        """The state as the reference has it; the image's channels to the bit, which a factor there and back is not."""
        g, first = self.graph, self.a.image_channels
        back = g.constant((1 / self.factors[first:]).astype(np.float32))
        hidden = g.one("Mul", [self._slice(x, 3, first, self.a.channels), back])
        return g.one("Concat", [self.image, hidden], axis=3)

    def masked_step(self, x: str, mask: NDArray[np.uint8]) -> str:
        """Grid cells that fire perceive their neighbourhoods, gathered for each; the probe shows what all cells perceive."""
        g, a = self.graph, self.a
        if not (mask.any() or self.probe):
            return x
        rounded = g.one("QuantizeLinear", [x, *self.perceived])
        cells = np.flatnonzero(mask)
        parts = np.array_split(cells, max(1, -(-9 * a.channels * len(cells) // PATCH_BYTES)))
        numbers = [self._numbers(part) for part in parts]
        fires = self._together(numbers)
        if self.probe:
            y = self._perception(rounded, self._padded(rounded, (1, 1), (1, 1)), (1, 1))
            every = self._reshape(self._delta([y], (a.grid, a.grid)), [-1, a.grid**2, a.channels])
            delta = g.one("Gather", [every, fires], axis=1)
        else:
            flat = self._reshape(rounded, [0, a.grid**2, a.channels])
            delta = self._delta([self._gathered(flat, part) for part in numbers], (a.grid, a.grid))
        return self._added(x, delta, fires, a.channels)

    def _numbers(self, cells: NDArray[np.intp]) -> str:
        """(1, n) int64 numbers of grid cells, in the file two bytes each: where half of them fire, one a grid cell."""
        small = cells[None].astype(np.min_scalar_type(self.a.grid**2))
        return self.graph.one("Cast", [self.graph.constant(small)], to=TensorProto.INT64)

    def _gathered(self, flat: str, fires: str) -> str:
        """What some grid cells perceive of all that were rounded."""
        g, channels = self.graph, self.a.channels
        own, near = (g.one("Gather", [flat, at], axis=1) for at in (fires, g.one("Gather", [self._around(), fires])))
        # all 3x3 neighbourhoods below each other, as an image three columns wide
        patches, firing = self._reshape(near, [0, -1, 3, channels]), self._reshape(own, [0, -1, 1, channels])
        return self._perception(firing, patches, (3, 1))

    def _together(self, parts: list[str]) -> str:
        return self.graph.one("Concat", parts, axis=1) if len(parts) > 1 else parts[0]

    def _around(self) -> str:
        """(grid cells, 9) numbers of each one's neighbours and itself, reflected at the border, row by row."""
        if not self.around:
            g, n = self.graph, self.a.grid
            ends = [g.constant(np.array(value)) for value in (0, n * n, 1)]
            x = self._padded(self._reshape(g.one("Range", ends), [1, n, n, 1]), (1, 1), (1, 1))
            for axis in (2, 1):
                x = g.one("Concat", [self._slice(x, axis, start, start + n) for start in range(3)], axis=3)
            self.around = self._reshape(x, [n * n, 9])
        return self.around

    def half_step(self, x: str, phase: int) -> str:
        """Rows (phase 0, 1) or columns (2, 3): all are rounded, every second one is computed and changed."""
        g, a = self.graph, self.a
        parity, by_rows, half = phase % 2, phase < 2, a.grid // 2
        rounded = g.one("QuantizeLinear", [x, *self.perceived])
        ends = (1 - parity, parity)  # even lines need the line before the first, odd lines the one after the last
        padded = self._padded(rounded, ends if by_rows else (1, 1), (1, 1) if by_rows else ends)
        size, axis = ((half, a.grid), 1) if by_rows else ((a.grid, half), 2)
        firing = self._slice(rounded, axis, parity, a.grid, 2)
        delta = self._delta([self._perception(firing, padded, (2, 1) if by_rows else (1, 2))], size)
        width = a.channels * (a.grid if by_rows else 1)  # of a line that lies in one piece: a row, or a grid cell
        lines = [g.constant(np.array(value)) for value in (parity, a.grid if by_rows else a.grid**2, 2)]
        return self._added(x, delta, g.one("Range", lines), width)

    def _perception(self, x: str, padded: str, strides: tuple[int, int]) -> str:
        """The rounded grid cells ``x`` and both convolutions of them; ``padded`` holds their neighbourhoods."""
        g, a, weights = self.graph, self.a, self.equal.weights
        parts = [x]
        for name in ("k1", "k2"):
            kernel, scales = self.kernels[name]
            taps = kernel.reshape(a.channels, 1, 3, 3), scales, weights[f"{name}_bias"]
            parts.append(self._convolution(padded, taps, self.perceived, group=a.channels, strides=list(strides)))
        return g.one("Concat", parts, axis=3)

    def _delta(self, perceived: list[str], lines: tuple[int, int]) -> str:
        """Change, in float32, (all cells, channels), of grid cells that perceive (n, rows, columns, 3 * channels), each below
        the one before."""
        g, a, bias = self.graph, self.a, self.equal.weights["w1_bias"]
        # the convolution is the quicker product where 8 bits come out, QGemm gives float32
        layers = [self._convolution(y, (self.w1[..., None, None], self.w1_scales, bias), self.between) for y in perceived]
        hidden = self._together(layers)
        second = [g.constant(self.w2.T), g.constant(self.w2_scales), g.constant(np.zeros(a.channels, np.int8))]
        delta = g.one("QGemm", [self._reshape(hidden, [-1, a.hidden]), *self.between, *second], domain=CONTRIB)
        if self.probe:
            self._show("perceived", g.one("DequantizeLinear", [*perceived, *self.perceived]), self.equal.perceived, lines)
            self._show("hidden", g.one("DequantizeLinear", [hidden, *self.between]), self.equal.hidden, lines)
            self._show("delta", delta, self.factors, lines)
        return delta

    def _convolution(self, x: str, taps: tuple[NDArray[Any], ...], scale: list[str], **options: Any) -> str:
        """Of what is perceived, into 8 bits of that scale; ``taps``: int8 kernel, scale of each output channel, float bias."""
        kernel, scales, bias = taps
        rounded = np.round(bias / (scales * self.scale)).astype(np.int32)
        weights = [self.graph.constant(array) for array in (kernel, scales, np.zeros(len(scales), np.int8))]
        inputs = [x, *self.perceived, *weights, *scale, self.graph.constant(rounded)]
        shape = list(kernel.shape[2:])
        return self.graph.one("QLinearConv", inputs, domain=CONTRIB, channels_last=1, kernel_shape=shape, **options)

    def _added(self, x: str, delta: str, lines: str, width: int) -> str:
        """The state changed in some lines, by number, of each cell of the batch; a line is ``width`` numbers long."""
        g, a = self.graph, self.a
        at = self._reshape(g.one("Add", [self._starts(x, width), lines]), [-1, 1])
        parts = [self._reshape(x, [-1, width]), at, self._reshape(delta, [-1, width])]
        return self._reshape(g.one("ScatterND", parts, reduction="add"), [-1, a.grid, a.grid, a.channels])

    def _starts(self, x: str, width: int) -> str:
        """(n, 1) number of each cell's first line."""
        g, a = self.graph, self.a
        if width not in self.starts:
            ones = g.one("ConstantOfShape", [g.one("Shape", [x], start=0, end=1)], value=ONE)
            cells = g.one("Transpose", [g.one("NonZero", [ones])], perm=[1, 0])  # 0, 1, ... of the batch
            self.starts[width] = g.one("Mul", [cells, g.constant(np.array(a.grid**2 * a.channels // width))])
        return self.starts[width]

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

    def _slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        ends = [self.graph.constant(np.array([value])) for value in (start, end, axis, step)]
        return self.graph.one("Slice", [x, *ends])
