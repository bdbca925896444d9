"""Write the automaton as .tflite, float32 or int8: one unrolled graph of operators that the XNNPACK delegate takes.

Input ``image`` (n, size, size, 3) normalised; outputs ``logits``, ``state`` and, where it is asked for, ``mask_state``; n is 1
until the caller resizes it. In int8 the weights of the two 1x1 layers are int8, one scale for each output channel; their
inputs stay float32 in the graph and are rounded by the runtime, one scale for each image and step; company changes no answer.
State, perception, mask and sum stay float32: a state kept in 8 bits would lose small changes. From the seed to the outputs the
channels of an int8 graph's state are those that were made alike.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights
from nca_export.litert_writer import Graph
from nca_export.quantize import Reach, equalise
from nca_export.rounding import narrow_head, quantized

VALID = schema.Padding.VALID
RELU, NONE = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.NONE
HYBRID = 5
"""Version of CONV_2D that takes int8 weights, one scale a channel, with float32 inputs."""
DEQUANTIZE_8 = 2
"""Version of DEQUANTIZE that takes int8."""
UNIT = np.ones(1, np.float32)


def build_litert(
    architecture: Architecture,
    weights: Weights,
    fire: Fire,
    mask_step: int | None = None,
    reached: Reach | None = None,
    probe: bool = False,
) -> bytes:
    """Serialise the whole automaton.

    Parameters
    ----------
    mask_step : the step after which ``mask_state`` is given; None: no such output
    reached : what the steps hold on real cells, for int8; None: float32
    probe : also give what lies inside each step: ``perceived/1``, ``hidden/1``, ``delta/1``, ``state/1``, ``perceived/2`` ...
    """
    drawing = _Drawing(architecture, weights, reached, probe)
    g, a = drawing.graph, architecture
    image = g.tensor("image", (-1, a.size, a.size, 3))
    x, outputs = drawing.seed(image), {}
    for number, step in enumerate(fire, start=1):
        x = drawing.half_step(x, int(step)) if np.ndim(step) == 0 else drawing.masked_step(x, step)
        if number == mask_step:
            outputs["mask_state"] = drawing.plain(x)
        if probe:
            shown = {**drawing.inside, "state": drawing.plain(x)}
            outputs |= {f"{name}/{number}": tensor for name, tensor in shown.items()}
    state = drawing.plain(x)
    return g.finish({"image": image}, {"logits": drawing.head(state), "state": state, **outputs})


class _Drawing:
    """The parts of the automaton, as they are added to a graph."""

    def __init__(self, architecture: Architecture, weights: Weights, reached: Reach | None, probe: bool) -> None:
        self.graph, self.a, self.equal = Graph(), architecture, None if reached is None else equalise(weights, reached)
        self.probe, self.weights, self.image = probe, dict(weights), -1
        self.inside: dict[str, int] = {}
        """What the last step held, by name."""
        self.factors = np.ones(architecture.channels, np.float32)
        """What each channel of the state is multiplied by between the steps."""
        if self.equal is not None:
            self.factors = self.equal.perceived[: architecture.channels]
            self.weights = {**self.equal.weights, "w2": self.equal.weights["w2"] * self.factors[:, None]}

    def seed(self, image: int) -> int:
        """Fold pixels into channels, (row, column, colour), make them alike, and append the hidden channels."""
        a, x = self.a, image
        shape = (-1, a.grid, a.grid, a.image_channels)
        if a.fold > 1:
            x = self.graph.add("SPACE_TO_DEPTH", [x], shape, blockSize=a.fold)
        self.image = x
        if self.equal is not None:
            x = self.graph.add("MUL", [x, self.graph.constant(self.factors[: a.image_channels])], shape)
        pads = np.zeros((4, 2), np.int32)
        pads[3, 1] = a.channels - a.image_channels
        return self.graph.add("PAD", [x, self.graph.constant(pads)], (-1, a.grid, a.grid, a.channels))

    def plain(self, x: int) -> int:
        """The state as the reference has it; the image's channels to the bit, which a factor there and back is not."""
        if self.equal is None:
            return x
        a, shape = self.a, (-1, self.a.grid, self.a.grid, self.a.channels - self.a.image_channels)
        hidden = self._slice(x, 3, a.image_channels, shape)
        hidden = self.graph.add("MUL", [hidden, self.graph.constant(1 / self.factors[a.image_channels :])], shape)
        return self._concatenate([self.image, hidden], 3, (-1, a.grid, a.grid, a.channels))

    def masked_step(self, x: int, mask: NDArray[np.uint8]) -> int:
        """All grid cells are computed; those that fire change."""
        g, a = self.graph, self.a
        shape = (-1, a.grid, a.grid, a.channels)
        delta = self._delta(x, self._padded(x, (1, 1), (1, 1)), shape[1:3], (1, 1))
        stored = g.constant(mask[None, ..., None].astype(np.int8), UNIT)  # bytes: a quarter of the file
        fires = g.add("DEQUANTIZE", [stored], (1, a.grid, a.grid, 1), DEQUANTIZE_8)
        return g.add("ADD", [x, g.add("MUL", [delta, fires], shape)], shape)

    def half_step(self, x: int, phase: int) -> int:
        """Rows (phase 0, 1) or columns (2, 3): split into even and odd lines, update one of them, interleave again.

        Two neighbouring lines lie side by side when a reshape doubles the last size but one (rows) or the last (columns).
        """
        g, a = self.graph, self.a
        parity, by_rows, grid, half = phase % 2, phase < 2, a.grid, a.grid // 2
        paired = (-1, half, 2 * grid, a.channels) if by_rows else (-1, grid, half, 2 * a.channels)
        shape = (-1, half, grid, a.channels) if by_rows else (-1, grid, half, a.channels)
        pairs = self._reshape(x, paired)
        axis = 2 if by_rows else 3
        lines = [self._slice(pairs, axis, side * shape[axis], shape) for side in range(2)]
        ends = (1 - parity, parity)  # even lines need the line before the first, odd lines the one after the last
        padded = self._padded(x, ends if by_rows else (1, 1), (1, 1) if by_rows else ends)
        delta = self._delta(lines[parity], padded, shape[1:3], (2, 1) if by_rows else (1, 2))
        lines[parity] = g.add("ADD", [lines[parity], delta], shape)
        return self._reshape(self._concatenate(lines, axis, paired), (-1, grid, grid, a.channels))

    def head(self, x: int) -> int:
        """Pool and the two layers after it; computed in float32, in int8 from a matrix that is stored in 8 bits."""
        g, a = self.graph, self.a
        operators = {"max": "MAX_POOL_2D", "mean": "AVERAGE_POOL_2D"}
        window = {"padding": VALID, "strideW": a.grid, "strideH": a.grid, "filterWidth": a.grid, "filterHeight": a.grid}
        pools = [g.add(operators[kind], [x], (-1, 1, 1, a.channels), **window) for kind in a.pool.split("+")]
        pooled = pools[0] if len(pools) == 1 else self._concatenate(pools, 3, (-1, 1, 1, a.features))
        pooled, weights = self._reshape(pooled, (-1, a.features)), self.weights
        if self.equal is None:
            first, bias, second = g.constant(weights["head1"]), weights["head1_bias"], weights["head2"]
        else:
            narrow = narrow_head(weights, self.equal.reach.moments.pooled)
            stored = g.constant(narrow.head1, np.array([narrow.scale]))
            first = g.add("DEQUANTIZE", [stored], narrow.head1.shape, DEQUANTIZE_8)
            bias, second = narrow.head1_bias, narrow.head2
        hidden = g.add("FULLY_CONNECTED", [pooled, first, g.constant(bias)], (-1, a.head), fusedActivationFunction=RELU)
        last = [hidden, g.constant(second), g.constant(weights["head2_bias"])]
        return g.add("FULLY_CONNECTED", last, (-1, a.classes), fusedActivationFunction=NONE)

    def _delta(self, x: int, padded: int, lines: tuple[int, int], strides: tuple[int, int]) -> int:
        """Change of the grid cells ``x``; ``padded`` holds their neighbourhoods."""
        g, a = self.graph, self.a
        shape, parts = (-1, *lines, a.channels), [x]
        for name in ("k1", "k2"):
            kernel = np.ascontiguousarray(self.weights[name].transpose(1, 2, 0)[None])
            taps = [g.constant(kernel), g.constant(self.weights[f"{name}_bias"])]
            size = {"strideH": strides[0], "strideW": strides[1], "dilationHFactor": 1, "dilationWFactor": 1}
            parts.append(g.add("DEPTHWISE_CONV_2D", [padded, *taps], shape, padding=VALID, depthMultiplier=1, **size))
        y = self._concatenate(parts, 3, (-1, *lines, 3 * a.channels))
        hidden = self._pointwise(y, "w1", self.weights["w1_bias"], (-1, *lines, a.hidden), RELU)
        delta = self._pointwise(hidden, "w2", np.zeros(a.channels, np.float32), (-1, *lines, a.channels), NONE)
        if self.probe:
            ones = np.ones(a.hidden, np.float32)
            perceived, between = (ones, ones) if self.equal is None else (self.equal.perceived, self.equal.hidden)
            found = {"perceived": (y, perceived), "hidden": (hidden, between), "delta": (delta, self.factors)}
            self.inside = {name: self._divided(*pair) for name, pair in found.items()}
        return delta

    def _divided(self, x: int, factors: NDArray[np.float32]) -> int:
        """As the reference has it."""
        if self.equal is None:
            return x
        shape = tuple(self.graph.shape(x))
        return self.graph.add("MUL", [x, self.graph.constant(1 / factors)], (-1, *shape[1:]))

    def _pointwise(self, x: int, name: str, bias: NDArray[np.float32], shape: tuple[int, ...], activation: int) -> int:
        g, weight = self.graph, self.weights[name]
        size = (weight.shape[0], 1, 1, weight.shape[1])
        if self.equal is not None:
            seen = self.equal.reach.moments
            numbers, scales = quantized(weight, {"w1": seen.perceived, "w2": seen.hidden}[name])
            stored, version = g.constant(numbers.reshape(size), scales), HYBRID
        else:
            stored, version = g.constant(weight.reshape(size)), 1
        strides = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        inputs = [x, stored, g.constant(bias)]
        return g.add("CONV_2D", inputs, shape, version, padding=VALID, fusedActivationFunction=activation, **strides)

    def _padded(self, x: int, rows: tuple[int, int], columns: tuple[int, int]) -> int:
        """Reflected by 0 or 1 lines at the ends of both axes; MIRROR_PAD would split the delegate's graph: twice the time."""
        n, shape = self.a.grid, [-1, self.a.grid, self.a.grid, self.a.channels]
        for axis, ends in ((1, rows), (2, columns)):
            line = tuple([*shape[:axis], 1, *shape[axis + 1 :]])
            before = [self._slice(x, axis, 1, line)] if ends[0] else []
            after = [self._slice(x, axis, n - 2, line)] if ends[1] else []
            shape[axis] = n + sum(ends)
            x = self._concatenate([*before, x, *after], axis, tuple(shape))
        return x

    def _slice(self, x: int, axis: int, start: int, shape: tuple[int, ...]) -> int:
        begin = np.zeros(4, np.int32)
        begin[axis] = start
        return self.graph.add("SLICE", [x, self.graph.constant(begin), self.graph.constant(np.array(shape, np.int32))], shape)

    def _reshape(self, x: int, shape: tuple[int, ...]) -> int:
        return self.graph.add("RESHAPE", [x, self.graph.constant(np.array(shape, np.int32))], shape, newShape=list(shape))

    def _concatenate(self, parts: list[int], axis: int, shape: tuple[int, ...]) -> int:
        return self.graph.add("CONCATENATION", parts, shape, axis=axis, fusedActivationFunction=NONE)
