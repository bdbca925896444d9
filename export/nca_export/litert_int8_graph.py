"""Write the automaton as .tflite in int8: perception and 1x1 layers in 8 bits, state, mask and sum in float32.

As in ONNX (``onnx_int8_graph``) each step rounds the state to 8 bits for what it perceives, by scales from cells that were
run through the reference, and adds its change to the float32 state, whose channels were made alike. Here the change too comes
out in 8 bits: LiteRT's convolutions give what they take. Its channels are made alike before, and as they were after.
Under half-lattice the state is held as four quarters, the grid cells of even or odd rows and columns: a step then only adds to
two of them, and what is put together for its convolutions are bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights
from nca_export.litert_graph import NONE, RELU, firing, folded, head, strides, with_hidden_channels
from nca_export.litert_writer import Graph, Scale
from nca_export.quantize import LEVELS, Equalised, Reach, asymmetric, equalise
from nca_export.rounding import LEAST, narrow_head, quantized

MIDDLE = 128
"""From 0..255 to the signed numbers of LiteRT."""
GRADES = 4
"""Scales of what is perceived to an octave: steps of one scale share their biases, a fifth of the file."""
Quarters = list[list[int]]
"""Of the state: [row parity][column parity]."""


def build_litert_int8(
    architecture: Architecture,
    weights: Weights,
    fire: Fire,
    reached: Reach,
    mask_step: int | None = None,
    probe: bool = False,
) -> bytes:
    """Serialise the whole automaton; parameters and outputs as of ``build_litert``."""
    drawing = _Drawing(architecture, equalise(weights, reached), probe)
    g, a = drawing.graph, architecture
    image = g.tensor("image", (-1, a.size, a.size, 3))
    x, outputs = drawing.seed(image), {}
    quarters = drawing.split(x) if np.ndim(fire[0]) == 0 else []
    for number, step in enumerate(fire, start=1):
        drawing.begin(number)
        if quarters:
            quarters = drawing.half_step(quarters, int(step))
        else:
            x = drawing.masked_step(x, step)
        if probe or number in (mask_step, a.steps):
            state = drawing.plain(drawing.joined(quarters) if quarters else x)
        if number == mask_step:
            outputs["mask_state"] = state
        if probe:
            outputs |= {f"{name}/{number}": tensor for name, tensor in {**drawing.inside, "state": state}.items()}
    narrow = narrow_head(weights, reached.moments.pooled)
    return g.finish({"image": image}, {"logits": head(g, a, weights, state, narrow), "state": state, **outputs})


class _Drawing:
    """The parts of the automaton, as they are added to a graph; the states between them have alike channels."""

    def __init__(self, architecture: Architecture, equal: Equalised, probe: bool) -> None:
        weights, seen, channels = equal.weights, equal.reach.moments, architecture.channels
        self.graph, self.a, self.equal, self.probe = Graph(), architecture, equal, probe
        self.image = -1
        self.inside: dict[str, int] = {}
        """What the last step held, by name."""
        self.factors = equal.perceived[:channels]
        """What each channel of the state is multiplied by between the steps."""
        changes = equal.reach.delta.max(0)
        self.alike = np.where(changes > LEAST, 1 / np.maximum(changes, LEAST), 1).astype(np.float32)
        """What each channel of the change is multiplied by besides."""
        self.w1 = quantized(weights["w1"], seen.perceived)
        self.w2 = quantized(weights["w2"] * (self.factors * self.alike)[:, None], seen.hidden)
        self.kernels = {name: quantized(weights[name].reshape(channels, 9)) for name in ("k1", "k2")}

    def begin(self, number: int) -> None:
        """Take the scales of that step, 1 being the first."""
        low, high, hidden = self.equal.reach.widest(number - 1)
        scale, zero = asymmetric(low, high, GRADES)
        change = float((self.equal.reach.delta[number - 1] * self.alike).max())
        self.perceived: Scale = (float(scale), int(zero) - MIDDLE)
        # finer than its smallest product a sum can't be, and the delegate refuses what is much finer: a layer that is still
        finest = float(self.w1[1].max()) * self.perceived[0]
        self.between: Scale = (max(hidden / LEVELS, finest), -MIDDLE)
        finest = float(self.w2[1].max()) * self.between[0]
        self.change: Scale = (max(2 * change / LEVELS, finest), 0)

    def seed(self, image: int) -> int:
        """The state before the first step, its channels made alike."""
        g, a, self.image = self.graph, self.a, folded(self.graph, self.a, image)
        factors = g.constant(self.factors[: a.image_channels])
        return with_hidden_channels(g, a, g.add("MUL", [self.image, factors], (-1, a.grid, a.grid, a.image_channels)))

    def plain(self, x: int) -> int:
        """The state as the reference has it; the image's channels to the bit, which a factor there and back is not."""
        g, a, first = self.graph, self.a, self.a.image_channels
        hidden = self._divided(g.slice(x, 3, first, (-1, a.grid, a.grid, a.channels - first)), self.factors[first:])
        return g.concatenate([self.image, hidden], 3, (-1, a.grid, a.grid, a.channels))

    def masked_step(self, x: int, mask: NDArray[np.uint8]) -> int:
        """All grid cells are computed; those that fire change."""
        g, a = self.graph, self.a
        shape = (-1, a.grid, a.grid, a.channels)
        rounded = g.add("QUANTIZE", [x], shape, self.perceived)
        delta = self._delta(rounded, g.reflected(rounded, (1, 1), (1, 1)), shape[1:3], (1, 1))
        return g.add("ADD", [x, g.add("MUL", [self._plain_change(delta), firing(g, mask)], shape)], shape)

    def split(self, x: int) -> Quarters:
        """A state into quarters: what lies side by side after a reshape are even and odd rows, then even and odd columns."""
        g, grid, half, channels = self.graph, self.a.grid, self.a.grid // 2, self.a.channels
        pairs = g.reshape(x, (-1, half, 2 * grid, channels))
        rows = [g.slice(pairs, 2, parity * grid, (-1, half, grid, channels)) for parity in range(2)]
        return [self._halves(g.reshape(row, (-1, half, half, 2 * channels)), 3) for row in rows]

    def joined(self, quarters: Quarters) -> int:
        """The inverse."""
        return self._interleaved([self._pairs(row) for row in quarters])

    def half_step(self, quarters: Quarters, phase: int) -> Quarters:
        """Rows (phase 0, 1) or columns (2, 3): all are rounded, every second one is computed and changed."""
        g, grid, half, channels = self.graph, self.a.grid, self.a.grid // 2, self.a.channels
        parity, by_rows = phase % 2, phase < 2
        rounded = [[g.add("QUANTIZE", [x], (-1, half, half, channels), self.perceived) for x in row] for row in quarters]
        pairs = [self._pairs(row) for row in rounded]
        ends = (1 - parity, parity)  # even lines need the line before the first, odd lines the one after the last
        around = g.reflected(self._interleaved(pairs), ends if by_rows else (1, 1), (1, 1) if by_rows else ends)
        if by_rows:
            rows = g.reshape(pairs[parity], (-1, half, grid, channels))
            delta = self._delta(rows, around, (half, grid), (2, 1))
            parts = self._halves(g.reshape(delta, (-1, half, half, 2 * channels)), 3)
        else:
            columns = g.concatenate([row[parity] for row in rounded], 2, (-1, half, grid, channels))
            delta = self._delta(g.reshape(columns, (-1, grid, half, channels)), around, (grid, half), (1, 2))
            parts = self._halves(g.reshape(delta, (-1, half, grid, channels)), 2)
        changed = [list(row) for row in quarters]
        for other, part in enumerate(parts):
            row, column = (parity, other) if by_rows else (other, parity)
            both = [quarters[row][column], self._plain_change(part)]
            changed[row][column] = g.add("ADD", both, (-1, half, half, channels))
        return changed

    def _pairs(self, row: list[int]) -> int:
        """Rows of one parity: their even and odd columns side by side, (n, half, half, 2 * channels)."""
        half, channels = self.a.grid // 2, self.a.channels
        return self.graph.concatenate(row, 3, (-1, half, half, 2 * channels))

    def _interleaved(self, pairs: list[int]) -> int:
        """Both rows side by side, and thus below each other."""
        grid, channels = self.a.grid, self.a.channels
        both = self.graph.concatenate(pairs, 2, (-1, grid // 2, grid, 2 * channels))
        return self.graph.reshape(both, (-1, grid, grid, channels))

    def _halves(self, x: int, axis: int) -> list[int]:
        """Both halves of the grid cells along an axis, as quarters."""
        half, channels = self.a.grid // 2, self.a.channels
        shape = (-1, half, half, channels)
        return [self.graph.slice(x, axis, side * shape[axis], shape) for side in range(2)]

    def _delta(self, x: int, around: int, lines: tuple[int, int], steps: tuple[int, int]) -> int:
        """Change, in 8 bits, of the rounded grid cells ``x``; ``around`` holds their neighbourhoods."""
        g, a, weights = self.graph, self.a, self.equal.weights
        shape, parts, size = (-1, *lines, a.channels), [x], strides(*steps)
        for name, (kernel, scales) in self.kernels.items():
            taps = np.ascontiguousarray(kernel.reshape(-1, 3, 3).transpose(1, 2, 0)[None])
            inputs = [around, g.constant(taps, scales, 3), self._bias(weights[f"{name}_bias"], scales, self.perceived)]
            parts.append(g.add("DEPTHWISE_CONV_2D", inputs, shape, self.perceived, depthMultiplier=1, **size))
        y = g.concatenate(parts, 3, (-1, *lines, 3 * a.channels))
        bias = self._bias(weights["w1_bias"], self.w1[1], self.perceived)
        hidden = self._pointwise(y, self.w1, bias, lines, self.between, RELU)
        zeros = g.constant(np.zeros(a.channels, np.int32), self.w2[1])  # their scale is anyone's
        delta = self._pointwise(hidden, self.w2, zeros, lines, self.change, NONE)
        if self.probe:
            found = {"perceived": (y, self.equal.perceived), "hidden": (hidden, self.equal.hidden)}
            self.inside = {name: self._divided(self._float(x), by) for name, (x, by) in found.items()}
            self.inside["delta"] = self._divided(self._plain_change(delta), self.factors)
        return delta

    def _pointwise(
        self, x: int, weight: tuple[NDArray[np.int8], NDArray[np.float32]], bias: int, lines: tuple[int, int], into: Scale,
        activation: int,
    ) -> int:  # fmt: skip
        numbers, scales = weight
        kernel = self.graph.constant(numbers.reshape(len(numbers), 1, 1, -1), scales)
        shape, size = (-1, *lines, len(numbers)), strides(1, 1)
        return self.graph.add("CONV_2D", [x, kernel, bias], shape, into, fusedActivationFunction=activation, **size)

    def _bias(self, bias: NDArray[np.float32], scales: NDArray[np.float32], read: Scale) -> int:
        """A bias as the products are summed: in int32, in scales of the input times the weights'."""
        products = scales * np.float32(read[0])
        return self.graph.constant(np.round(bias / products).astype(np.int32), products)

    def _plain_change(self, delta: int) -> int:
        """A change, as it is added to the state."""
        return self._divided(self._float(delta), self.alike)

    def _float(self, x: int) -> int:
        return self.graph.add("DEQUANTIZE", [x], (-1, *self.graph.shape(x)[1:]))

    def _divided(self, x: int, factors: NDArray[np.float32]) -> int:
        return self.graph.add("MUL", [x, self.graph.constant(1 / factors)], (-1, *self.graph.shape(x)[1:]))
