"""A bundle comes back as it was written, and nothing damaged is trusted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nca_edge.automaton import Architecture, Weights, draw_fire
from nca_edge.backends import NumpyBackend
from nca_edge.bundle import Bundle, Manifest, find_bundle, load_bundle
from nca_edge.bundle_writer import Contents, write_bundle
from nca_edge.classifier import Classifier, ModelChoice, check_golden, from_8bit, load
from nca_edge.errors import BundleError, UsageError
from nca_edge.passes import Look
from nca_edge.preprocess import normalise

ARCHITECTURE = Architecture(6, 2, 14, 5, 4, "max", "half-lattice", 6, 3)
MANIFEST = Manifest(
    name="tiny", classes=("monocyte", "basophil", "artefact"), groups={"monocyte": ("monocyte",), "basophil": ("basophil",)},
    architecture=ARCHITECTURE, view_um=20.0, mean=(0.8, 0.7, 0.9), std=(0.1, 0.2, 0.1), temperature=1.5, unsure_below=0.6,
    seed=7,
)  # fmt: skip


def tiny_weights() -> Weights:
    rng = np.random.default_rng(5)
    return {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in ARCHITECTURE.shapes().items()}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    weights, fire = tiny_weights(), draw_fire(ARCHITECTURE, 7)
    views = np.random.default_rng(6).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    images = normalise(from_8bit(views), np.array(MANIFEST.mean, np.float32), np.array(MANIFEST.std, np.float32))
    logits = NumpyBackend(ARCHITECTURE, weights, fire)(images).logits
    folder = tmp_path / "tiny"
    write_bundle(folder, Contents(MANIFEST, weights, fire, {"views": views, "logits": logits}, {}))
    return folder


def test_a_bundle_comes_back_as_it_was_written(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert replace(loaded.manifest, files=()) == MANIFEST
    for name, array in tiny_weights().items():
        assert np.array_equal(loaded.weights[name], array)
    assert np.array_equal(loaded.fire, draw_fire(ARCHITECTURE, 7))
    assert load(ModelChoice(str(bundle))).backend.name == "numpy"  # it holds no ONNX graph


def test_the_same_bundle_is_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    loaded = load_bundle(bundle)
    again = tmp_path / "again"
    golden = {"views": loaded.golden_views, "logits": loaded.golden_logits}
    write_bundle(again, Contents(MANIFEST, loaded.weights, loaded.fire, golden, {}))
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in bundle.iterdir()}


def test_every_flipped_bit_of_a_data_file_is_seen(bundle: Path) -> None:
    for name in ("weights.npz", "golden.npz"):
        path = bundle / name
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(BundleError, match=name):
                load_bundle(bundle)
        path.unlink()
        with pytest.raises(BundleError, match=name):
            load_bundle(bundle)
        path.write_bytes(whole)
    load_bundle(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"schema": None}, {"colour": "blue"}, {"classes": ["monocyte"]}, {"classes": ["a", "a", "b"]},
        {"temperature": 0}, {"temperature": float("nan")}, {"std": [0, 1, 1]}, {"mean": [1, 2]}, {"unsure_below": 1.5},
        {"passes": 9}, {"passes": 0}, {"more_passes_below": 2},
        {"channel_means": [0.0] * 13}, {"channel_means": [float("nan")] * 14}, {"channel_means": "many"},
        {"view_um": "wide"}, {"groups": {"monocyte": ["eosinophil"]}}, {"groups": None}, {"files": []},
        {"files": [{"name": 1}]},
        {"architecture": {"grid": 6}}, {"files": [{"name": "../weights.npz", "sha256": ""}]}, {"mean": None},
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_as_the_schema_says_is_refused(bundle: Path, change: dict[str, object]) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BundleError):
        load_bundle(bundle)


def test_a_manifest_that_is_cut_short_or_missing_is_refused(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load_bundle(bundle)
    path.unlink()
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load_bundle(bundle)


def test_a_backend_that_answers_otherwise_is_refused(bundle: Path) -> None:
    loaded: Bundle = load_bundle(bundle)
    wrong = {**loaded.weights, "head2_bias": loaded.weights["head2_bias"] + np.float32(0.1)}
    classifier = Classifier(loaded, NumpyBackend(ARCHITECTURE, wrong, loaded.fire), "fp32", 1)
    with pytest.raises(BundleError, match=r"weights\.npz: answers of the numpy backend differ"):
        check_golden(classifier, "weights.npz")


def test_a_model_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UsageError, match="edge"):
        find_bundle("no-such-model")


def seen(*logits: float) -> Look:
    """One look at one cell."""
    return Look(np.array([logits], np.float32), (), ())


def test_prediction_is_the_softmax_at_the_bundles_temperature(bundle: Path) -> None:
    prediction = load(ModelChoice(str(bundle))).predict(seen(3.0, 0.0, 0.0))
    expected = np.exp(2.0) / (np.exp(2.0) + 2)  # 3 / temperature 1.5
    assert prediction.label == "monocyte" and prediction.confidence == pytest.approx(expected) and not prediction.unsure
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert load(ModelChoice(str(bundle))).predict(seen(0.1, 0.0, 0.0)).unsure
