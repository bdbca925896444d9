"""The graphs of an automaton: as the reference, for one cell and for many, in files that small runtimes load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

from nca_edge.automaton import PRESETS, Architecture, draw_fire, fire_masks
from nca_edge.backends import Backend, LitertBackend, NativeBackend, NumpyBackend, OnnxBackend
from nca_edge.backends.native.library import missing
from nca_edge.errors import BundleError, UsageError
from nca_edge.formats import FORMATS, format_of
from nca_export import onnx_int8_graph
from nca_export.quantize import reach
from nca_export.variants import Automaton, build, inside, runner
from tests.benchmarks.int8_error import channels_as_they_are, stock_litert
from tests.workstation.automata import BASE, SMALL, name_of, random_images, random_weights

FORMS = [form for form in FORMATS if form.name != "native" or missing() is None]
VARIANTS = [(form.name, precision) for form in FORMS for precision in form.precisions]


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
    elif form == "native":
        together = NativeBackend("model", graph, a, 2)(images).logits
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        (together,) = session.run(["logits"], {"image": images})
    scale = np.abs(single).max()
    assert np.abs(single - together).max() <= (1e-6 if precision == "fp32" else 1e-5) * scale
    assert (single.argmax(1) == together.argmax(1)).all()


@pytest.mark.parametrize("form, precision", VARIANTS)
def test_threads_share_out_cells_and_change_no_bit(form: str, precision: str) -> None:
    """Alone a cell has all threads, in company one of them: the same numbers, in the order of the cells."""
    m = automaton(replace(BASE, update="half-lattice", grid=32), mask_step=3)
    graph, images = build(form, precision, m), random_images(m.architecture, 7)
    backend: Callable[..., Backend] = {"onnx": OnnxBackend, "litert": LitertBackend, "native": NativeBackend}[form]
    one, two = (backend("model", graph, m.architecture, threads, 3) for threads in (1, 2))
    together = two(images)
    for n in range(len(images)):
        for alone in (one(images[n : n + 1]), two(images[n : n + 1])):
            assert all(np.array_equal(part[0], whole[n]) for part, whole in zip(alone, together, strict=True))
    assert two(images[:0]).logits.shape == (0, m.architecture.classes)


@pytest.mark.parametrize("update", ["bernoulli", "half-lattice"])
@pytest.mark.parametrize("form, precision", VARIANTS)
def test_image_channels_never_change(form: str, precision: str, update: str) -> None:
    m = automaton(replace(BASE, update=update))
    a = m.architecture
    weights = {**m.weights, "w2": np.ones_like(m.weights["w2"])}  # as training leaves them: not 0 in the image's rows
    images = random_images(a, 1)
    state = runner(form, build(form, precision, replace(m, weights=weights)))(images)["state"]
    assert (state[..., :3] == images).all()


def test_int8_files_are_small_and_shared_weights_are_stored_once() -> None:
    a = PRESETS["edge"]
    m = Automaton(a, random_weights(a), draw_fire(a, 0))
    m = replace(m, reach=reach(a, m.weights, m.fire, random_images(a, 2)))
    for form in ("onnx", "litert"):
        plain, small = (len(build(form, precision, m)) for precision in ("fp32", "int8"))
        assert plain < 4 * a.parameters + 80_000
        assert small <= 0.45 * plain
    assert len(build("native", "int8", m)) < a.parameters + 20_000


def test_onnx_int8_names_its_operators() -> None:
    model = onnx.load_from_string(build("onnx", "int8", automaton(BASE)))
    assert {o.domain: o.version for o in model.opset_import} == {"": 18, "com.microsoft": 1} and model.ir_version == 9
    assert {node.op_type for node in model.graph.node if node.domain} == {"QLinearConv", "QGemm"}


def test_onnx_int8_computes_only_what_fires() -> None:
    """Both 1x1 layers of a step see the grid cells that its mask, or its phase, names, and no others."""
    for a in (BASE, replace(BASE, update="half-lattice")):
        m = automaton(a)
        model = onnx.load_from_string(build("onnx", "int8", m))
        products = [node for node in model.graph.node if node.op_type == "QGemm"]
        for node in products:
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
        changes = list(runner("onnx", model.SerializeToString())(random_images(a, 1)).values())[-len(products) :]
        assert [len(change) for change in changes] == fire_masks(a, m.fire).sum((1, 2)).tolist()


def test_neighbourhoods_gathered_in_parts_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many channels few grid cells' neighbourhoods fit into a cache: they are gathered some after the other."""
    m, images = automaton(BASE, mask_step=3), random_images(BASE, 3)
    at_once = runner("onnx", build("onnx", "int8", m))(images)
    monkeypatch.setattr(onnx_int8_graph, "PATCH_BYTES", 9 * BASE.channels * 7)
    graph = build("onnx", "int8", m)
    most = max(np.count_nonzero(mask) for mask in fire_masks(BASE, m.fire))
    gathers = [node for node in onnx.load_from_string(graph).graph.node if node.op_type == "Gather"]
    assert len(gathers) > 3 * BASE.steps * (most // 7 - 1)
    in_parts = runner("onnx", graph)(images)
    for name, array in at_once.items():
        assert np.array_equal(in_parts[name], array), name


@pytest.mark.parametrize("still", ["w1", "w2"])
@pytest.mark.parametrize("form, precision", VARIANTS)
def test_an_automaton_that_leaves_its_state_alone(form: str, precision: str, still: str) -> None:
    """As it is before the first update, and with a hidden layer that is dead: no scale can be taken from what is 0."""
    a = replace(BASE, update="half-lattice")
    weights = random_weights(a)
    weights = {**weights, still: np.zeros_like(weights[still]), "w1_bias": -np.abs(weights["w1_bias"])}
    images, fire = random_images(a, 2), draw_fire(a, 2)
    found = runner(form, build(form, precision, Automaton(a, weights, fire, None, reach(a, weights, fire, images))))(images)
    assert (found["state"][..., :3] == images).all() and not found["state"][..., 3:].any()
    assert np.allclose(found["logits"], NumpyBackend(a, weights, fire)(images).logits, atol=0.05)


@pytest.mark.parametrize("form, precision", VARIANTS)
def test_a_step_in_which_nothing_fires_changes_nothing(form: str, precision: str) -> None:
    m = automaton(BASE)
    fire, images = m.fire.copy(), random_images(BASE, 1)
    fire[2] = 0
    still = replace(m, fire=fire)
    probed = inside(form, precision, still)(images)
    assert np.array_equal(probed["state/3"], probed["state/2"])
    assert np.array_equal(runner(form, build(form, precision, still))(images)["logits"], probed["logits"])


def pointwise(graph: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers and scales of both 1x1 layers of the first step in a .tflite file."""
    model = schema.ModelT.InitFromPackedBuf(graph, 0)
    found, part = [], model.subgraphs[0]
    for operator in part.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D:
            kernel = part.tensors[operator.inputs[1]]
            numbers = model.buffers[kernel.buffer].data.view(np.int8).reshape(kernel.shape[0], kernel.shape[3])
            found.append((numbers, kernel.quantization.scale))
    return found[:2]


def test_the_runtime_makers_quantizer_rounds_the_same_weights() -> None:
    """Its 8-bit weights of our float32 graph are ours, without equalised channels and rounded singly.

    What else is in 8 bits is not its scheme: it rounds each layer's input anew, by a scale of the moment.
    """
    m = automaton(replace(BASE, update="half-lattice", fold=2, channels=17))
    first, second = pointwise(stock_litert(m, probe=False))
    with channels_as_they_are():
        own_first, own_second = pointwise(build("litert", "int8", m))
    assert (own_first[0] == first[0]).all() and np.allclose(own_first[1], first[1], rtol=1e-6)
    changing = slice(m.architecture.image_channels, None)  # the image's rows are 0, their scales anyone's
    assert (own_second[0] == second[0]).all()
    factors = own_second[1][changing] / second[1][changing]  # its channels of the change are made alike
    assert m.reach is not None and np.allclose(factors * m.reach.delta.max(0)[changing], 1, rtol=1e-5)


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
