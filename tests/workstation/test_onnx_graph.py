"""The exported graph: the same numbers as the NumPy reference, in a form that old and small runtimes load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nca_edge.automaton import PRESETS, Architecture, draw_fire
from nca_edge.backends import NumpyBackend, OnnxBackend
from nca_edge.backends.native.library import missing
from nca_edge.bundle import shipped_models
from nca_edge.errors import BundleError
from nca_export.onnx_graph import build_onnx
from tests.benchmarks import parity
from tests.workstation.automata import BASE, SMALL, name_of, random_images, random_weights


def exported(a: Architecture) -> bytes:
    return build_onnx(a, random_weights(a), draw_fire(a, 2))


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("a", SMALL, ids=name_of)
def test_graph_equals_numpy(a: Architecture, n: int) -> None:
    images = random_images(a, n)
    expected = NumpyBackend(a, random_weights(a), draw_fire(a, 2))(images)
    session = onnxruntime.InferenceSession(exported(a), providers=["CPUExecutionProvider"])
    logits, state = session.run(["logits", "state"], {"image": images})
    assert np.abs(logits - expected.logits).max() <= 1e-5
    assert np.abs(state - expected.state).max() <= 1e-5
    answer = OnnxBackend("model.onnx", exported(a), a, threads=1)(images)
    assert np.abs(answer.logits - logits).max() <= 1e-5 and answer.state.shape == state.shape


@pytest.mark.parametrize("a", SMALL[:4], ids=name_of)
def test_graph_gives_the_mask_state(a: Architecture) -> None:
    images, fire = random_images(a, 3), draw_fire(a, 2)
    graph = build_onnx(a, random_weights(a), fire, mask_step=2)
    expected = NumpyBackend(a, random_weights(a), fire, mask_step=2)(images)
    answer = OnnxBackend("model.onnx", graph, a, threads=1, mask_step=2)(images)
    assert np.abs(answer.mask_state - expected.mask_state).max() <= 1e-5
    assert np.abs(answer.state - expected.state).max() <= 1e-5
    assert OnnxBackend("model.onnx", graph, a, threads=1, mask_step=2)(images[:0]).mask_state.shape[0] == 0
    with pytest.raises(BundleError, match="mask_state"):
        OnnxBackend("model.onnx", exported(a), a, threads=1, mask_step=2)


def test_interface() -> None:
    a = SMALL[1]
    graph = onnx.load_model_from_string(exported(a)).graph

    def shape(value: onnx.ValueInfoProto) -> list[str | int]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert {i.name: shape(i) for i in graph.input} == {"image": ["n", a.size, a.size, 3]}
    assert {o.name: shape(o) for o in graph.output} == {
        "logits": ["n", a.classes],
        "state": ["n", a.grid, a.grid, a.channels],
    }
    assert all(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in (*graph.input, *graph.output))


@pytest.mark.parametrize("a", SMALL, ids=name_of)
def test_any_batch_size_symbolically(a: Architecture) -> None:
    """The batch stays a symbol through every node: no step pins it to a number."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(exported(a)), strict_mode=True, data_prop=True)
    known = {v.name: v for v in (*inferred.graph.value_info, *inferred.graph.output)}
    constants = {tensor.name for tensor in inferred.graph.initializer}
    for node in inferred.graph.node:
        if set(node.input) <= constants:
            continue  # a mask that is cast: the same for all
        for output in node.output:
            batch = known[output].type.tensor_type.shape.dim[0]
            assert not batch.HasField("dim_value"), f"{node.op_type} pins the batch to {batch.dim_value}"


@pytest.mark.parametrize("a", [*SMALL, replace(PRESETS["edge"], steps=4)], ids=name_of)
def test_oldest_supported_runtime_loads_it(a: Architecture) -> None:
    """onnxruntime 1.23, the newest for Python 3.10, ends at opset 23 and IR version 11; older ones are met at 18 and 9."""
    model = onnx.load_model_from_string(exported(a))
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert model.ir_version <= 9
    assert {node.domain for node in model.graph.node} == {""}, "standard operators alone"
    assert not model.functions
    assert {node.op_type for node in model.graph.node} <= {
        "Add", "Cast", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Mul", "Pad", "Relu",
        "Reshape", "SpaceToDepth", "Split", "Transpose",
    }  # fmt: skip


def test_everything_is_inside_the_file() -> None:
    for a in SMALL:
        model = onnx.load_model_from_string(exported(a))
        assert all(t.data_location == onnx.TensorProto.DEFAULT and not t.external_data for t in model.graph.initializer)
        assert not any(attribute.type == onnx.AttributeProto.GRAPH for node in model.graph.node for attribute in node.attribute)


def test_file_size() -> None:
    """Equal constants are stored once, whatever the number of steps; a mask costs one byte a grid cell."""
    half, longer = (
        replace(BASE, grid=32, update="half-lattice", steps=8),
        replace(BASE, grid=32, update="half-lattice", steps=24),
    )
    a_step = (len(exported(longer)) - len(exported(half))) / 16
    assert a_step < 2_000  # nodes and names, no weights
    masked, longer = replace(BASE, grid=32, steps=8), replace(BASE, grid=32, steps=24)
    a_step = (len(exported(longer)) - len(exported(masked))) / 16
    assert 32**2 <= a_step < 32**2 + 2_000
    weights = 4 * masked.parameters
    assert len(exported(masked)) < weights + 8 * (32**2 + 2_000) + 2_000


def test_same_model_gives_the_same_bytes() -> None:
    for a in SMALL[:6]:
        assert exported(a) == exported(a)


@pytest.mark.slow
def test_shipped_bundle_on_real_cells(shared: Path) -> None:
    """Every float32 logit within 1e-3 of the logits' scale; in 8 bits nearly every answer."""
    if not (shipped_models() / "edge" / "manifest.json").is_file():
        pytest.skip("needs the shipped bundle nca_edge/models/edge")
    data = shared / "data" / "acevedo20"
    if not data.is_dir():
        pytest.skip(f"needs labelled crops in {data}")
    measured = parity.measure(data, "3b", 0.225, "edge", 64)
    assert measured["n"] == 64 and len(measured["variants"]) == (4 if missing() else 5)
    for variant in measured["variants"]:
        assert variant["relative"] <= (1e-3 if variant["precision"] == "fp32" else 0.15)
        assert variant["agree"] >= (64 if variant["precision"] == "fp32" else 60)
