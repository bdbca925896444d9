"""Write the automaton as .tflite in float32: one unrolled graph of operators that the XNNPACK delegate takes.

Input ``image`` (n, size, size, 3) normalised; outputs ``logits``, ``state`` and, where it is asked for, ``mask_state``; n is 1
until the caller resizes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights
from nca_export.litert_writer import Graph
from nca_export.rounding import NarrowHead

VALID = schema.Padding.VALID
RELU, NONE = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.NONE
UNIT = np.ones(1, np.float32)


def build_litert(
    architecture: Architecture, weights: Weights, fire: Fire, mask_step: int | None = None, probe: bool = False
) -> bytes:
    """Serialise the whole automaton.

    Parameters
    ----------
    mask_step : the step after which ``mask_state`` is given; None: no such output
    probe : also give what lies inside each step: ``perceived/1``, ``hidden/1``, ``delta/1``, ``state/1``, ``perceived/2`` ...
    """
    drawing = _Drawing(architecture, weights, probe)
    g, a = drawing.graph, architecture
    image = g.tensor("image", (-1, a.size, a.size, 3))
    x, outputs = drawing.seed(image), {}
    for number, step in enumerate(fire, start=1):
        x = drawing.half_step(x, int(step)) if np.ndim(step) == 0 else drawing.masked_step(x, step)
        if number == mask_step:
            outputs["mask_state"] = x
        if probe:
            outputs |= {f"{name}/{number}": tensor for name, tensor in {**drawing.inside, "state": x}.items()}
    return g.finish({"image": image}, {"logits": head(g, a, weights, x), "state": x, **outputs})


def folded(g: Graph, a: Architecture, image: int) -> int:
    """Pixels folded into the image channels, (row, column, colour)."""
    shape = (-1, a.grid, a.grid, a.image_channels)
    return g.add("SPACE_TO_DEPTH", [image], shape, blockSize=a.fold) if a.fold > 1 else image


def with_hidden_channels(g: Graph, a: Architecture, x: int) -> int:
    """The image channels and, behind them, zeros."""
    pads = np.zeros((4, 2), np.int32)
    pads[3, 1] = a.channels - a.image_channels
    return g.add("PAD", [x, g.constant(pads)], (-1, a.grid, a.grid, a.channels))


def firing(g: Graph, mask: NDArray[np.uint8]) -> int:
    """1.0 where a grid cell fires, else 0.0; stored as bytes: a quarter of the file."""
    stored = g.constant(mask[None, ..., None].astype(np.int8), UNIT)
    return g.add("DEQUANTIZE", [stored], (1, *mask.shape, 1))


def head(g: Graph, a: Architecture, weights: Weights, x: int, narrow: NarrowHead | None = None) -> int:
    """Pool and the two layers after it, computed in float32; ``narrow``: from a matrix that is stored in 8 bits."""
    operators = {"max": "MAX_POOL_2D", "mean": "AVERAGE_POOL_2D"}
    window = {"padding": VALID, "strideW": a.grid, "strideH": a.grid, "filterWidth": a.grid, "filterHeight": a.grid}
    pools = [g.add(operators[kind], [x], (-1, 1, 1, a.channels), **window) for kind in a.pool.split("+")]
    pooled = pools[0] if len(pools) == 1 else g.concatenate(pools, 3, (-1, 1, 1, a.features))
    pooled = g.reshape(pooled, (-1, a.features))
    if narrow is None:
        first, bias, second = g.constant(weights["head1"]), weights["head1_bias"], weights["head2"]
    else:
        stored = g.constant(narrow.head1, np.array([narrow.scale]))
        first = g.add("DEQUANTIZE", [stored], narrow.head1.shape)
        bias, second = narrow.head1_bias, narrow.head2
    hidden = g.add("FULLY_CONNECTED", [pooled, first, g.constant(bias)], (-1, a.head), fusedActivationFunction=RELU)
    last = [hidden, g.constant(second), g.constant(weights["head2_bias"])]
    return g.add("FULLY_CONNECTED", last, (-1, a.classes), fusedActivationFunction=NONE)


def strides(rows: int, columns: int) -> dict[str, Any]:
    """Options of a convolution that takes every so manieth row and column."""
    return {"strideH": rows, "strideW": columns, "dilationHFactor": 1, "dilationWFactor": 1, "padding": VALID}


class _Drawing:
    """The parts of the automaton, as they are added to a graph."""

    def __init__(self, architecture: Architecture, weights: Weights, probe: bool) -> None:
        self.graph, self.a, self.weights, self.probe = Graph(), architecture, weights, probe
        self.inside: dict[str, int] = {}
        """What the last step held, by name."""

    def seed(self, image: int) -> int:
        """The state before the first step."""
        return with_hidden_channels(self.graph, self.a, folded(self.graph, self.a, image))

    def masked_step(self, x: int, mask: NDArray[np.uint8]) -> int:
        """All grid cells are computed; those that fire change."""
        g, a = self.graph, self.a
        shape = (-1, a.grid, a.grid, a.channels)
        delta = self._delta(x, g.reflected(x, (1, 1), (1, 1)), shape[1:3], (1, 1))
        return g.add("ADD", [x, g.add("MUL", [delta, firing(g, mask)], shape)], shape)

    def half_step(self, x: int, phase: int) -> int:
        """Rows (phase 0, 1) or columns (2, 3): split into even and odd lines, update one of them, interleave again.

        Two neighbouring lines lie side by side when a reshape doubles the last size but one (rows) or the last (columns).
        """
        g, a = self.graph, self.a
        parity, by_rows, grid, half = phase % 2, phase < 2, a.grid, a.grid // 2
        paired = (-1, half, 2 * grid, a.channels) if by_rows else (-1, grid, half, 2 * a.channels)
        shape = (-1, half, grid, a.channels) if by_rows else (-1, grid, half, a.channels)
        pairs = g.reshape(x, paired)
        axis = 2 if by_rows else 3
        lines = [g.slice(pairs, axis, side * shape[axis], shape) for side in range(2)]
        ends = (1 - parity, parity)  # even lines need the line before the first, odd lines the one after the last
        around = g.reflected(x, ends if by_rows else (1, 1), (1, 1) if by_rows else ends)
        delta = self._delta(lines[parity], around, shape[1:3], (2, 1) if by_rows else (1, 2))
        lines[parity] = g.add("ADD", [lines[parity], delta], shape)
        return g.reshape(g.concatenate(lines, axis, paired), (-1, grid, grid, a.channels))

    def _delta(self, x: int, around: int, lines: tuple[int, int], steps: tuple[int, int]) -> int:
        """Change of the grid cells ``x``; ``around`` holds their neighbourhoods."""
        g, a = self.graph, self.a
        shape, parts = (-1, *lines, a.channels), [x]
        for name in ("k1", "k2"):
            kernel = np.ascontiguousarray(self.weights[name].transpose(1, 2, 0)[None])
            taps = [g.constant(kernel), g.constant(self.weights[f"{name}_bias"])]
            parts.append(g.add("DEPTHWISE_CONV_2D", [around, *taps], shape, depthMultiplier=1, **strides(*steps)))
        y = g.concatenate(parts, 3, (-1, *lines, 3 * a.channels))
        hidden = self._pointwise(y, self.weights["w1"], self.weights["w1_bias"], lines, RELU)
        delta = self._pointwise(hidden, self.weights["w2"], np.zeros(a.channels, np.float32), lines, NONE)
        self.inside = {"perceived": y, "hidden": hidden, "delta": delta} if self.probe else {}
        return delta

    def _pointwise(
        self, x: int, weight: NDArray[np.float32], bias: NDArray[np.float32], lines: tuple[int, int], activation: int
    ) -> int:
        g, kernel = self.graph, weight.reshape(weight.shape[0], 1, 1, weight.shape[1])
        inputs, shape = [x, g.constant(kernel), g.constant(bias)], (-1, *lines, len(weight))
        return g.add("CONV_2D", inputs, shape, fusedActivationFunction=activation, **strides(1, 1))
