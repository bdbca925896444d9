"""Write the automaton as an ONNX graph: one unrolled graph, float32, standard operators, any batch.

Input ``image`` (n, size, size, 3) normalised; outputs ``logits`` (n, classes) and ``state`` (n, grid, grid, channels).
Structure follows what ONNX Runtime runs fast (channels first inside, separate depthwise convolutions, W1 split into three 1x1
convolutions that are summed instead of a concat); a half-lattice computes only the lines that fire.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nca_edge.automaton import Architecture, Fire, Weights
from nca_export.rounding import NarrowHead

CONTRIB = "com.microsoft"
"""Operators of ONNX Runtime's own."""
OPSET = 18
IR_VERSION = 9
"""What onnxruntime 1.23 loads, the newest that Python 3.10 gets."""


class Graph:
    """Nodes and constants as they are added; equal constants are stored once."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], tuple[str, Any]] = {}
        self.outputs: dict[str, list[int]] = {}

    def constant(self, array: NDArray[Any]) -> str:
        array = np.asarray(array, order="C")  # a scalar stays one
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            name = f"constant_{len(self.constants)}"
            self.constants[key] = (name, numpy_helper.from_array(array, name))
        return self.constants[key][0]

    def add(self, kind: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        made = [f"{kind.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, **attributes))
        return made

    def one(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        return self.add(kind, inputs, **attributes)[0]

    def output(self, x: str, name: str, shape: list[int]) -> None:
        """Give ``x``, made by the node that was added last, to the caller under this name; n stands before the shape."""
        self.nodes[-1].output[list(self.nodes[-1].output).index(x)] = name
        self.outputs[name] = shape

    def finish(self, name: str, shape: list[int], contrib: bool = False) -> bytes:
        """The file: one input (n, *shape) in, what was named ``output`` out; checked by ``onnx.checker``."""
        described = {name: shape, **self.outputs}
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name, shape in described.items()]
        stored = [tensor for _, tensor in self.constants.values()]
        graph = helper.make_graph(self.nodes, "nca", values[:1], values[1:], stored)
        opsets = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(CONTRIB, 1)] if contrib else [])]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="nca-edge")
        onnx.checker.check_model(model, full_check=not contrib)  # shapes of contrib operators are unknown to it
        return bytes(model.SerializeToString())


def build_onnx(
    architecture: Architecture, weights: Weights, fire: Fire, mask_step: int | None = None, probe: bool = False
) -> bytes:
    """Serialise the whole automaton, checked by ``onnx.checker``.

    Parameters
    ----------
    mask_step : the step after which ``mask_state`` is given; None: no such output
    probe : also give what lies inside each step: ``hidden/1``, ``delta/1``, ``state/1``, ``hidden/2`` ...
    """
    a, g = architecture, Graph()
    x = _seed(g, a)
    for number, step in enumerate(fire, start=1):
        show = f"/{number}" if probe else None
        x = _half_step(g, a, weights, x, int(step), show) if np.ndim(step) == 0 else _masked_step(g, a, weights, x, step, show)
        if show:
            _show(g, x, f"state{show}", [a.grid, a.grid, a.channels])
        if number == mask_step:
            _show(g, x, "mask_state", [a.grid, a.grid, a.channels])
    _show(g, x, "state", [a.grid, a.grid, a.channels])
    head(g, a, weights, x)
    return g.finish("image", [a.size, a.size, 3])


def head(g: Graph, a: Architecture, weights: Weights, x: str, narrow: NarrowHead | None = None) -> None:
    """Pool the state ``x``, channels first, and the two layers after it, which give ``logits``; ``narrow``: from 8 bits."""
    operators = {"max": "GlobalMaxPool", "mean": "GlobalAveragePool"}
    pools = [g.one("Flatten", [g.one(operators[kind], [x])]) for kind in a.pool.split("+")]
    pooled = pools[0] if len(pools) == 1 else g.one("Concat", pools, axis=1)
    if narrow is None:
        first, bias, second = g.constant(weights["head1"]), weights["head1_bias"], weights["head2"]
    else:
        first = g.one("DequantizeLinear", [g.constant(narrow.head1), g.constant(np.array(narrow.scale))])
        bias, second = narrow.head1_bias, narrow.head2
    hidden = g.one("Relu", [_gemm(g, pooled, first, bias)])
    g.output(_gemm(g, hidden, g.constant(second), weights["head2_bias"]), "logits", [a.classes])


def _show(g: Graph, x: str, name: str, shape: list[int]) -> None:
    """Give ``x`` to the caller, channels last."""
    g.output(g.one("Transpose", [x], perm=[0, 2, 3, 1]), name, shape)


def _seed(g: Graph, a: Architecture) -> str:
    """Fold pixels into channels ((row, column, colour) order, as SpaceToDepth writes them) and append the hidden channels."""
    x = g.one("Transpose", ["image"], perm=[0, 3, 1, 2])
    if a.fold > 1:
        x = g.one("SpaceToDepth", [x], blocksize=a.fold)
    return g.one("Pad", [x, g.constant(np.array([0, 0, 0, 0, 0, a.channels - a.image_channels, 0, 0], np.int64))])


def _gemm(g: Graph, x: str, weight: str, bias: NDArray[np.float32]) -> str:
    return g.one("Gemm", [x, weight, g.constant(bias)], transB=1)


def _delta(g: Graph, weights: Weights, x: str, padded: str, strides: list[int], show: tuple[str, list[int]] | None) -> str:
    """Change of the grid cells ``x``; ``padded`` holds their neighbourhoods."""
    channels = weights["w2"].shape[0]
    kernels = [[g.constant(weights[k][:, None]), g.constant(weights[f"{k}_bias"])] for k in ("k1", "k2")]
    z = [g.one("Conv", [padded, *kernel], group=channels, strides=strides) for kernel in kernels]
    w1 = np.split(weights["w1"], 3, axis=1)
    parts = [g.one("Conv", [x, g.constant(w1[0][..., None, None]), g.constant(weights["w1_bias"])])]
    parts += [g.one("Conv", [z[i], g.constant(w1[i + 1][..., None, None])]) for i in range(2)]
    h = g.one("Relu", [g.one("Add", [g.one("Add", parts[:2]), parts[2]])])
    delta = g.one("Conv", [h, g.constant(weights["w2"][..., None, None])])
    if show is not None:
        _show(g, h, "hidden" + show[0], [*show[1], len(weights["w1"])])
        _show(g, delta, "delta" + show[0], [*show[1], channels])
    return delta


def _padded(g: Graph, x: str, rows: tuple[int, int], columns: tuple[int, int]) -> str:
    pads = np.array([0, 0, rows[0], columns[0], 0, 0, rows[1], columns[1]], np.int64)
    return g.one("Pad", [x, g.constant(pads)], mode="reflect")


def _masked_step(g: Graph, a: Architecture, weights: Weights, x: str, mask: NDArray[np.uint8], show: str | None) -> str:
    fires = g.one("Cast", [g.constant(mask[None, None])], to=1)  # stored as bytes: a quarter of the file
    delta = _delta(g, weights, x, _padded(g, x, (1, 1), (1, 1)), [1, 1], (show, [a.grid, a.grid]) if show else None)
    return g.one("Add", [x, g.one("Mul", [delta, fires])])


def _half_step(g: Graph, a: Architecture, weights: Weights, x: str, phase: int, show: str | None) -> str:
    """Rows (phase 0, 1) or columns (2, 3): split into even and odd lines, update one of them, interleave again."""
    parity, by_rows = phase % 2, phase < 2
    half = a.grid // 2
    paired = [0, a.channels, half, 2, a.grid] if by_rows else [0, a.channels, a.grid, half, 2]
    axis = 3 if by_rows else 4
    pairs = g.one("Reshape", [x, g.constant(np.array(paired, np.int64))])
    lines = g.add("Split", [pairs], outputs=2, axis=axis, num_outputs=2)
    flat = [0, a.channels, half, a.grid] if by_rows else [0, a.channels, a.grid, half]
    firing = g.one("Reshape", [lines[parity], g.constant(np.array(flat, np.int64))])
    ends = (1 - parity, parity)  # even lines need the line before the first, odd lines the one after the last
    padded = _padded(g, x, ends if by_rows else (1, 1), (1, 1) if by_rows else ends)
    shown = (show, [half, a.grid] if by_rows else [a.grid, half]) if show else None
    updated = g.one("Add", [firing, _delta(g, weights, firing, padded, [2, 1] if by_rows else [1, 2], shown)])
    single = [0, a.channels, half, 1, a.grid] if by_rows else [0, a.channels, a.grid, half, 1]
    lines[parity] = g.one("Reshape", [updated, g.constant(np.array(single, np.int64))])
    joined = g.one("Concat", lines, axis=axis)
    return g.one("Reshape", [joined, g.constant(np.array([0, a.channels, a.grid, a.grid], np.int64))])
