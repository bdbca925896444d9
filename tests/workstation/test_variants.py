"""The four graphs of an automaton: as the reference, for one cell and for many, in files that small runtimes load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from nca_edge.automaton import PRESETS, Architecture, draw_fire
from nca_edge.backends import LitertBackend, NumpyBackend, OnnxBackend
from nca_edge.errors import BundleError, UsageError
from nca_edge.formats import FORMATS, format_of
from nca_export.quantize import reach
from nca_export.variants import Automaton, build, runner
from tests.benchmarks.int8_error import channels_as_they_are
from tests.workstation.automata import BASE, SMALL, name_of, random_images, random_weights

VARIANTS = [(form.name, precision) for form in FORMATS for precision in form.precisions]


def automaton(a: Architecture, mask_step: int | None = None) -> Automaton:
    weights, fire = random_weights(a), draw_fire(a, 2)
    return Automaton(a, weights, fire, mask_step, reach(a, weights, fire, random_images(a, 4)))


@pytest.mark.parametrize("a", SMALL, ids=name_of)
@pytest.mark.parametrize("form, precision", VARIANTS)
def test_every_graph_is_the_reference(a: Architecture, form: str, precision: str) -> None:
    m, images = automaton(a, mask_step=3), random_images(a, 4)
    expected = NumpyBackend(a, m.weights, m.fire, 3)(images)
    found = runner(form, build(form, precision, m))(images)
    allowed = 1e-5 if precision == "fp32" else 0.05
    for name, array in zip(("logits", "state", "mask_state"), expected, strict=True):
        assert found[name].shape == array.shape
        assert np.abs(found[name] - array).max() <= allowed * np.abs(array).max(), name


@pytest.mark.parametrize("update", ["bernoulli", "half-lattice"])
@pytest.mark.parametrize("form, precision", VARIANTS)
def test_company_changes_no_answer(form: str, precision: str, update: str) -> None:
    """Eight cells in one call are eight calls: no scale is taken over a batch."""
    a = replace(BASE, update=update, fold=2, channels=17)
    graph, images = build(form, precision, automaton(a)), random_images(a, 8)
    images[3] *= 20  # a neighbour that would stretch a common scale
    single = runner(form, graph)(images)["logits"]
    if form == "litert":
        from ai_edge_litert.interpreter import Interpreter

        together = Interpreter(model_content=graph, num_threads=1).get_signature_runner()(image=images)["logits"]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        (together,) = session.run(["logits"], {"image": images})
    scale = np.abs(single).max()
    assert np.abs(single - together).max() <= (1e-6 if precision == "fp32" else 1e-5) * scale
    assert (single.argmax(1) == together.argmax(1)).all()


@pytest.mark.parametrize("form, precision", VARIANTS)
def test_image_channels_never_change(form: str, precision: str) -> None:
    a = replace(BASE, update="half-lattice")
    m = automaton(a)
    weights = {**m.weights, "w2": np.ones_like(m.weights["w2"])}  # as training leaves them: not 0 in the image's rows
    images = random_images(a, 1)
    state = runner(form, build(form, precision, replace(m, weights=weights)))(images)["state"]
    assert (state[..., :3] == images).all()


def test_int8_files_are_small_and_shared_weights_are_stored_once() -> None:
    a = PRESETS["edge"]
    m = Automaton(a, random_weights(a), draw_fire(a, 0))
    m = replace(m, reach=reach(a, m.weights, m.fire, random_images(a, 2)))
    for form in FORMATS:
        plain, small = (len(build(form.name, precision, m)) for precision in ("fp32", "int8"))
        assert plain < 4 * a.parameters + 80_000
        assert small <= 0.45 * plain


def test_onnx_int8_names_its_operators() -> None:
    model = onnx.load_from_string(build("onnx", "int8", automaton(BASE)))
    assert {o.domain: o.version for o in model.opset_import} == {"": 18, "com.microsoft": 1} and model.ir_version == 9
    assert {node.op_type for node in model.graph.node if node.domain} == {"QLinearConv", "QGemm"}


def test_the_runtime_makers_quantizer_says_the_same(tmp_path: Path) -> None:
    """Its dynamic int8 of our float32 graph, of the layers that we quantize, is our scheme without equalised channels."""
    from litert_quantizer import qtyping, quantizer

    m = automaton(replace(BASE, update="half-lattice", fold=2, channels=17))
    images = random_images(m.architecture, 3)
    (tmp_path / "plain.tflite").write_bytes(build("litert", "fp32", m))
    theirs = quantizer.Quantizer(str(tmp_path / "plain.tflite"))
    weights = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE)
    scheme = qtyping.OpQuantizationConfig(weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.INTEGER)
    theirs.update_quantization_recipe(regex=".*", operation_name=qtyping.TFLOperationName.CONV_2D, op_config=scheme)
    expected = runner("litert", bytes(theirs.quantize().quantized_model))(images)["state"]
    plain = runner("litert", build("litert", "fp32", m))(images)["state"]
    with channels_as_they_are():
        found = runner("litert", build("litert", "int8", m))(images)["state"]
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.abs(expected - plain).max() > 1e-4 * np.abs(expected).max()  # and 8 bits they are


def test_int8_needs_cells() -> None:
    with pytest.raises(UsageError, match="needs cells to find its scales"):
        build("onnx", "int8", replace(automaton(BASE), reach=None))


def test_backends_refuse_what_is_no_graph() -> None:
    with pytest.raises(BundleError, match=r"model\.tflite: LiteRT cannot load it"):
        LitertBackend("model.tflite", b"TFL3 of something else", BASE, 1)
    with pytest.raises(BundleError, match="gives no mask_state"):
        LitertBackend("model.tflite", build("litert", "fp32", automaton(BASE)), BASE, 1, mask_step=2)
    with pytest.raises(BundleError, match="gives no mask_state"):
        OnnxBackend("model.onnx", build("onnx", "fp32", automaton(BASE)), BASE, 1, mask_step=2)


def test_file_names_say_format_and_precision() -> None:
    assert format_of("model.onnx") == ("onnx", "fp32") and format_of("model.int8.tflite") == ("litert", "int8")
    assert format_of("weights.npz") is None
