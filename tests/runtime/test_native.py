"""The compiled step: the same bits by every instruction set, alone and in company; files that it must not trust."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nca_edge import trial
from nca_edge.automaton import PRESETS
from nca_edge.backends import NativeBackend, resolve
from nca_edge.backends.native import graph, layout, library
from nca_edge.bundle import Bundle, find_bundle, load_bundle
from nca_edge.classifier import ModelChoice, check_golden, load
from nca_edge.errors import BundleError, UsageError
from nca_edge.records import Image32

FILE = "model.int8.npz"
needs_step = pytest.mark.skipif(library.missing() is not None, reason=library.missing() or "")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(find_bundle(None))


@pytest.fixture
def cells(bundle: Bundle) -> Image32:
    views = bundle.golden_views.astype(np.float32) / 255
    return ((views - np.float32(bundle.manifest.mean)) / np.float32(bundle.manifest.std)).astype(np.float32)


def backend(bundle: Bundle, threads: int = 1) -> NativeBackend:
    return NativeBackend(FILE, bundle.contents[FILE], bundle.manifest.architecture, threads, bundle.manifest.mask_step)


@pytest.fixture
def sets() -> Iterator[list[int]]:
    """Numbers of the instruction sets of this core; the best is chosen again in the end."""
    step = library.load()
    numbers = []
    while step.nca_choose(len(numbers)) is not None:
        numbers.append(len(numbers))
    yield numbers
    step.nca_choose(0)


@needs_step
def test_every_instruction_set_gives_the_same_bits(bundle: Bundle, cells: Image32, sets: list[int]) -> None:
    answers = []
    for number in sets:
        library.load().nca_choose(number)
        answers.append(backend(bundle)(cells))
    for answer in answers:
        assert np.array_equal(answer.state, answers[0].state)
        assert np.array_equal(answer.logits, answers[0].logits)


@needs_step
def test_company_changes_no_bit(bundle: Bundle, cells: Image32) -> None:
    together, one = backend(bundle, threads=2), backend(bundle)
    for _ in range(3):
        answer = together(cells)
        for n in range(len(cells)):
            assert np.array_equal(answer.state[n], one(cells[n : n + 1]).state[0])


@needs_step
def test_no_cells_give_no_answers(bundle: Bundle) -> None:
    size = bundle.manifest.architecture.size
    assert backend(bundle)(np.empty((0, size, size, 3), np.float32)).logits.shape == (0, bundle.manifest.architecture.classes)


@needs_step
def test_the_shipped_model_reproduces_its_golden_cells_but_for_last_bits_of_the_head() -> None:
    classifier = load(ModelChoice(backend="native", precision="int8", trial=False))
    check_golden(classifier, FILE)
    views = classifier.bundle.golden_views.astype(np.float32) / 255
    logits = classifier.answer(views).logits
    assert np.allclose(logits, classifier.bundle.golden_variants["native-int8"], rtol=0, atol=1e-5)


@needs_step
def test_the_image_channels_stay_as_they_were(bundle: Bundle, cells: Image32) -> None:
    a = bundle.manifest.architecture
    folded = cells.reshape(-1, a.grid, a.fold, a.grid, a.fold, 3).transpose(0, 1, 3, 2, 4, 5)
    state = backend(bundle)(cells).state[..., : a.image_channels]
    assert np.array_equal(state, folded.reshape(-1, a.grid, a.grid, a.image_channels))


def damaged(content: bytes, **changes: object) -> bytes:
    """The file with some arrays replaced, or left out where the value is None."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {**{name: archive[name] for name in archive.files}, **changes}
    stream = io.BytesIO()
    np.savez(stream, **{name: np.asarray(array) for name, array in arrays.items() if array is not None})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"w1": None}, "w1 is not as it must be"),
        ({"w2": np.zeros((3, 3), np.int8)}, "w2 is not as it must be"),
        ({"k1": np.full((64, 9), -128, np.int8)}, "k1 is not as it must be"),
        ({"scale": np.full(16, np.nan, np.float32)}, "scale is not as it must be"),
        ({"scale": np.zeros(16, np.float32)}, "a scale is not above 0"),
        ({"between": np.zeros(16, np.float32)}, "a scale is not above 0"),
        ({"factors": np.zeros(64, np.float32)}, "a scale is not above 0"),
        ({"k2_scales": np.ones(64, np.float32)}, "a kernel reaches too far"),
        ({"fire": np.full(16, 9, np.uint8)}, "fire schedule"),
        ({"facts": np.array(["{}"])}, "architecture"),
        ({"facts": np.array(["[]"])}, "indices"),
        ({"facts": None}, "facts"),
    ],
)
def test_a_file_that_the_step_could_not_trust_is_refused(bundle: Bundle, changes: dict[str, object], why: str) -> None:
    with pytest.raises(BundleError, match=rf"model.int8.npz: cannot be read .*{why}.*export the bundle again"):
        graph.read_graph(FILE, damaged(bundle.contents[FILE], **changes))


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(BundleError, match="cannot be read as an automaton in 8 bits"):
        graph.read_graph(FILE, b"no archive")


def test_another_automaton_than_the_manifests_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="another automaton than the manifest"):
        NativeBackend(FILE, bundle.contents[FILE], PRESETS["wss"], 1)


def test_arrays_begin_on_a_cache_line(bundle: Bundle) -> None:
    _, arrays = layout.lay_out(graph.read_graph(FILE, bundle.contents[FILE]), signed=False)
    assert {name: array.ctypes.data % 64 for name, array in arrays.items()} == dict.fromkeys(arrays, 0)


def test_signed_bytes_change_zero_points_and_biases_and_keep_channels_in_order(bundle: Bundle) -> None:
    read = graph.read_graph(FILE, bundle.contents[FILE])
    plain, signed = (layout.lay_out(read, signed)[1] for signed in (False, True))
    changed = {name for name in plain if not np.array_equal(np.sort(plain[name], None), np.sort(signed[name], None))}
    assert changed == {"rounding", "kernel_offsets", "kernel_bias", "bias1", "bias2"}
    less = (plain["rounding"] - signed["rounding"])[:, 1]
    assert np.array_equal(less, 128 << plain["rounding"][:, 2])
    assert np.array_equal(np.sort(plain["kernel_offsets"]) - 128, np.sort(signed["kernel_offsets"]))
    assert np.array_equal(signed["bias2"], 128 * read.arrays["w2"].astype(int).sum(1)) and not plain["bias2"].any()


@given(st.floats(1 / graph.FINER, 1), st.integers(0, 255))
def test_the_state_is_rounded_to_8_bits_to_the_nearest_but_for_what_15_bits_of_a_scale_lose(ratio: float, zero: int) -> None:
    state = np.arange(-(2**15), 2**15)
    (multiplier, added, shift), *_ = layout._rounding(np.array([ratio]), np.array([zero])).tolist()
    found = (((state * multiplier + 2**14) >> 15) + added) >> shift
    expected = state * ratio + zero
    assert np.abs(added) < 2**15 and 0 <= multiplier < 2**15
    assert np.abs(found - expected)[(expected >= 0) & (expected <= 255)].max() <= 0.5 + 0.51 / 2**shift + 256 / 2**15


def test_a_kernel_whose_scale_is_next_to_nothing_gives_its_bias(bundle: Bundle) -> None:
    read = graph.read_graph(FILE, bundle.contents[FILE])
    channels = read.architecture.channels
    x = {
        **read.arrays,
        "k1_scales": np.full(channels, 1e-12, np.float32),
        "k1_bias": np.linspace(-9, 9, channels, dtype=np.float32),
    }
    scale, zero = x["scale"][:, None], x["zero"][:, None].astype(np.int32)
    kernel = layout._Kernel.of(x, "k1", scale, zero, 0)
    assert not kernel.weights.any()
    perceived = (
        kernel.biases.astype(np.int32).view(np.float32) * kernel.scales.astype(np.float64) + kernel.offsets - layout.SHIFT
    )
    assert np.allclose(perceived, x["k1_bias"] / scale + zero, rtol=0, atol=1e-3)


def test_an_installation_without_the_step_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find", lambda: (None, "this installation brings no compiled step"))
    assert trial.installed("native") is None
    with pytest.raises(UsageError, match=r"does not run here: this installation brings no compiled step; use --backend onnx"):
        load(ModelChoice(backend="native", precision="int8", trial=False))


def test_auto_takes_the_step_first_in_int8_and_never_in_fp32(bundle: Bundle) -> None:
    names = ("native", "onnx", "litert", "numpy")
    assert resolve(names, "int8", bundle.file_of())[0] == ("native", FILE)
    assert "native" not in {name for name, _ in resolve(names, "fp32", bundle.file_of())}


@pytest.mark.skipif(not library.FILE.is_file(), reason="no compiled step in this installation")
def test_a_library_that_cannot_be_loaded_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "step.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(library, "FILE", broken)
    found, why = library.find.__wrapped__()
    assert found is None and why.startswith("the compiled step cannot be loaded (")


@needs_step
def test_a_library_of_another_version_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LAYOUT", -1)
    assert library.find.__wrapped__() == (None, "the compiled step is of another version; install nca-edge again")
