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

OPSET = 18
IR_VERSION = 9
"""What onnxruntime 1.23 loads, the newest that Python 3.10 gets."""


class _Graph:
    """Nodes and constants as they are added; equal constants are stored once."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], tuple[str, Any]] = {}

    def constant(self, array: NDArray[Any]) -> str:
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            name = f"constant_{len(self.constants)}"
            self.constants[key] = (name, numpy_helper.from_array(array, name))
        return self.constants[key][0]

    def add(self, kind: str, inputs: list[str], outputs: int = 1, name: str | None = None, **attributes: Any) -> list[str]:
        made = [name] if name else [f"{kind.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, **attributes))
        return made

    def one(self, kind: str, inputs: list[str], name: str | None = None, **attributes: Any) -> str:
        return self.add(kind, inputs, name=name, **attributes)[0]


def build_onnx(architecture: Architecture, weights: Weights, fire: Fire, mask_step: int | None = None) -> bytes:
    """Serialise the whole automaton, checked by ``onnx.checker``."""
    a = architecture
    g = _Graph()
    x = _seed(g, a)
    for number, step in enumerate(fire, start=1):
        x = _half_step(g, a, weights, x, int(step)) if np.ndim(step) == 0 else _masked_step(g, weights, x, step)
        if number == mask_step:
            g.one("Transpose", [x], name="mask_state", perm=[0, 2, 3, 1])
    g.one("Transpose", [x], name="state", perm=[0, 2, 3, 1])
    operators = {"max": "GlobalMaxPool", "mean": "GlobalAveragePool"}
    pools = [g.one("Flatten", [g.one(operators[kind], [x])]) for kind in a.pool.split("+")]
    pooled = pools[0] if len(pools) == 1 else g.one("Concat", pools, axis=1)
    head = g.one("Relu", [_gemm(g, pooled, weights["head1"], weights["head1_bias"])])
    _gemm(g, head, weights["head2"], weights["head2_bias"], name="logits")
    states = ["state"] if mask_step is None else ["state", "mask_state"]
    graph = helper.make_graph(
        g.nodes, "nca",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", a.size, a.size, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", a.classes]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", a.grid, a.grid, a.channels]) for name in states),
        ],
        [tensor for _, tensor in g.constants.values()],
    )  # fmt: skip
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="nca-edge")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _seed(g: _Graph, a: Architecture) -> str:
    """Fold pixels into channels ((row, column, colour) order, as SpaceToDepth writes them) and append the hidden channels."""
    x = g.one("Transpose", ["image"], perm=[0, 3, 1, 2])
    if a.fold > 1:
        x = g.one("SpaceToDepth", [x], blocksize=a.fold)
    return g.one("Pad", [x, g.constant(np.array([0, 0, 0, 0, 0, a.channels - a.image_channels, 0, 0], np.int64))])


def _gemm(g: _Graph, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32], name: str | None = None) -> str:
    return g.one("Gemm", [x, g.constant(weight), g.constant(bias)], name=name, transB=1)


def _delta(g: _Graph, weights: Weights, x: str, padded: str, strides: list[int]) -> str:
    """Change of the grid cells ``x``; ``padded`` holds their neighbourhoods."""
    channels = weights["w2"].shape[0]
    kernels = [[g.constant(weights[k][:, None]), g.constant(weights[f"{k}_bias"])] for k in ("k1", "k2")]
    z = [g.one("Conv", [padded, *kernel], group=channels, strides=strides) for kernel in kernels]
    w1 = np.split(weights["w1"], 3, axis=1)
    parts = [g.one("Conv", [x, g.constant(w1[0][..., None, None]), g.constant(weights["w1_bias"])])]
    parts += [g.one("Conv", [z[i], g.constant(w1[i + 1][..., None, None])]) for i in range(2)]
    h = g.one("Relu", [g.one("Add", [g.one("Add", parts[:2]), parts[2]])])
    return g.one("Conv", [h, g.constant(weights["w2"][..., None, None])])


def _padded(g: _Graph, x: str, rows: tuple[int, int], columns: tuple[int, int]) -> str:
    pads = np.array([0, 0, rows[0], columns[0], 0, 0, rows[1], columns[1]], np.int64)
    return g.one("Pad", [x, g.constant(pads)], mode="reflect")


def _masked_step(g: _Graph, weights: Weights, x: str, mask: NDArray[np.uint8]) -> str:
    fires = g.one("Cast", [g.constant(mask[None, None])], to=1)  # stored as bytes: a quarter of the file
    delta = _delta(g, weights, x, _padded(g, x, (1, 1), (1, 1)), [1, 1])
    return g.one("Add", [x, g.one("Mul", [delta, fires])])


def _half_step(g: _Graph, a: Architecture, weights: Weights, x: str, phase: int) -> str:
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
    updated = g.one("Add", [firing, _delta(g, weights, firing, padded, [2, 1] if by_rows else [1, 2])])
    single = [0, a.channels, half, 1, a.grid] if by_rows else [0, a.channels, a.grid, half, 1]
    lines[parity] = g.one("Reshape", [updated, g.constant(np.array(single, np.int64))])
    joined = g.one("Concat", lines, axis=axis)
    return g.one("Reshape", [joined, g.constant(np.array([0, a.channels, a.grid, a.grid], np.int64))])
