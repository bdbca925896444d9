"""The figures of `evaluate`, against small cases worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nca_edge.classifier import ModelChoice
from nca_edge.crops import EvaluateOutcome, EvaluateRequest, evaluate, evaluation_text
from nca_edge.errors import InputError, UsageError
from nca_edge.evaluate import Judged, Vocabulary, accuracy_coverage, calibration_error, score
from nca_edge.labelled import LabelledImage, fold_of, half, read_labelled
from nca_edge.records import Image8, Prediction

CLASSES = ("basophil", "neutrophil_band", "neutrophil_segmented", "artefact")
GROUPS = {"neutrophil": ("neutrophil_band", "neutrophil_segmented"), "basophil": ("basophil",)}


def judged(pairs: str, confidence: float = 0.9, unsure: str = "") -> list[Judged]:
    """``ab`` is truth a, answer b."""
    return [Judged(pair, pair[0], pair[1], confidence, pair in unsure.split()) for pair in pairs.split()]


def test_a_case_by_hand() -> None:
    """Three of class a (two right, one said b), one b (right), one c said d: 3 of 5 right."""
    result = score(judged("aa aa ab bb cd", unsure="ab cd"))
    assert (result.n, result.accuracy, result.coverage, result.accuracy_when_sure) == (5, 0.6, 0.6, 1.0)
    # Clopper-Pearson of 3 in 5, as in any table
    assert (result.accuracy_low, result.accuracy_high) == (
        pytest.approx(0.1466328, abs=1e-6),
        pytest.approx(0.9472550, abs=1e-6),
    )
    # a: precision 1, recall 2/3, F1 4/5; b: precision 1/2, recall 1, F1 2/3; c: never said, F1 0
    assert result.macro_f1 == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)
    assert result.labels == ("a", "b", "c", "d")
    assert result.confusion == ((2, 1, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0))
    assert [(c.name, c.n, c.precision) for c in result.classes] == [("a", 3, 1.0), ("b", 1, 0.5), ("c", 1, None)]
    assert [c.recall for c in result.classes] == [pytest.approx(2 / 3), 1.0, 0.0]
    # one of one: 0.025 .. 1; none of one: 0 .. 0.975
    assert (result.classes[1].low, result.classes[1].high) == (pytest.approx(0.025), 1.0)
    assert (result.classes[2].low, result.classes[2].high) == (0.0, pytest.approx(0.975))
    assert result.calibration_error == pytest.approx(0.3)
    json.dumps(result.to_json(), allow_nan=False)


def test_order_of_the_confusion() -> None:
    """True classes by name, then the answers that are no true class, by name."""
    result = score(judged("za ba bz zz"))
    assert result.labels == ("b", "z", "a")
    assert result.confusion == ((0, 1, 1), (0, 1, 1), (0, 0, 0))


def test_all_unsure() -> None:
    result = score(judged("aa", unsure="aa"))
    assert (result.coverage, result.accuracy_when_sure) == (0.0, None)


def test_nothing_to_judge() -> None:
    with pytest.raises(UsageError, match="--data, --fold and --map"):
        score([])


def test_calibration_error_by_hand() -> None:
    """Bin 0.9-0.967: two of mean 0.95, one right -> gap 0.45; bin of 0.5: two of mean 0.5, all right -> gap 0.5."""
    confidence = np.array([0.94, 0.96, 0.5, 0.5])
    assert calibration_error(confidence, np.array([True, False, True, True])) == pytest.approx(0.5 * 0.45 + 0.5 * 0.5)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0  # the ends belong to a bin


def test_accuracy_of_the_most_confident_by_hand() -> None:
    """Four answers, the least confident wrong: all right up to three quarters, then three of four."""
    curve = accuracy_coverage(np.array([0.6, 0.9, 0.8, 0.7]), np.array([False, True, True, True]))
    assert curve == ((0.25, 1.0, 0.9), (0.5, 1.0, 0.8), (0.75, 1.0, 0.7), (1.0, 0.75, 0.6))


def test_bootstrap_intervals_hold_the_figure_and_shrink_with_n() -> None:
    few, many = score(judged("aa ab bb ba aa bb " * 5)), score(judged("aa ab bb ba aa bb " * 80))
    for result in (few, many):
        assert result.macro_f1_interval[0] < result.macro_f1 < result.macro_f1_interval[1]
        low, high = result.calibration_error_interval
        assert low < 0.9 - 4 / 6 < high
    assert np.ptp(many.macro_f1_interval) < 0.5 * np.ptp(few.macro_f1_interval)
    # 480 answers, 2 of 3 right in both classes: the standard error of F1 is about that of a share, 0.0215
    assert np.ptp(many.macro_f1_interval) == pytest.approx(2 * 1.96 * 0.0215, rel=0.15)


def test_halves_belong_to_file_names() -> None:
    """SHA-256 of "c.png" begins with 58 (even), of "a.png" with 7f (odd); folders do not matter."""
    assert (half("c.png"), half("x/c.png"), half("a.png")) == ("a", "a", "b")
    names = [f"{n}.png" for n in range(2000)]
    assert sum(half(name) == "a" for name in names) == pytest.approx(1000, abs=100)
    counts = np.bincount([fold_of(name) for name in names])
    assert len(counts) == 4 and counts == pytest.approx(np.full(4, 500), abs=80)


def test_classes_mean_themselves() -> None:
    words = Vocabulary(CLASSES, GROUPS, {}, ["basophil", "neutrophil_band", "monkey"])
    assert words.truth_of == {"basophil": "basophil", "neutrophil_band": "neutrophil_band"}
    assert words.skipped == ("monkey",)
    assert words.answer_of == {name: name for name in CLASSES}


def test_a_group_takes_its_classes_along() -> None:
    """Data with `neutrophil` and a few bands: both are judged as neutrophils."""
    words = Vocabulary(CLASSES, GROUPS, {"NEU": "neutrophil", "junk": None}, ["NEU", "neutrophil_band", "junk", "basophil"])
    assert words.truth_of == {"NEU": "neutrophil", "neutrophil_band": "neutrophil", "basophil": "basophil"}
    assert words.answer_of["neutrophil_segmented"] == "neutrophil" and words.answer_of["artefact"] == "artefact"
    assert words.skipped == ("junk",)


def test_a_group_is_as_probable_as_its_classes_together() -> None:
    said = Prediction("neutrophil_band", 0.4, True, dict(zip(CLASSES, (0.1, 0.4, 0.3, 0.2), strict=True)))
    assert Vocabulary(CLASSES, GROUPS, {}, ["neutrophil"]).answer(said) == ("neutrophil", pytest.approx(0.7))
    assert Vocabulary(CLASSES, GROUPS, {}, ["basophil"]).answer(said) == ("neutrophil_band", 0.4)


def test_a_map_may_speak_of_labels_that_are_not_there() -> None:
    assert Vocabulary(CLASSES, GROUPS, {"other": "basophil"}, ["basophil"]).truth_of == {"basophil": "basophil"}


@pytest.mark.parametrize("target", ["neutrofil", ""])
def test_a_map_to_nothing_known_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match="does not know; it knows artefact, basophil, neutrophil"):
        Vocabulary(CLASSES, GROUPS, {"NEU": target}, ["NEU"])


def test_data_that_means_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="map them with --map"):
        Vocabulary(CLASSES, GROUPS, {"basophil": None}, ["basophil", "monkey"])


def manifest(folder: Path, text: str) -> Path:
    (folder / "manifest.csv").write_text(text, "utf-8")
    return folder


def test_labelled_by_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    folder = manifest(tmp_path, "\ufefffile,label,fold,more\na.png,x,2,y\na.png,z,,\n")
    assert read_labelled(folder) == [LabelledImage("a.png", "x", 2), LabelledImage("a.png", "z", None)]


def test_labelled_by_folders(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a/x.tif", "b/._1.png", "b/notes.txt", ".git/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [(i.file, i.label) for i in read_labelled(tmp_path)] == [("a/x.tif", "a"), ("b/1.JPG", "b"), ("b/2.png", "b")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,class\na.png,x\n", "needs the columns file and label"),
        ("file,label\na.png\n", "line 2 has no file or no label"),
        ("file,label,fold\na.png,x,two\n", "fold 'two', which is no whole number"),
        ("file,label\ngone.png,x\n", "1 listed images are missing, the first is gone.png"),
        (f"file,label\n{'x' * 5000},x\n", "1 listed images are missing"),
        ("file,label\n", "holds no labelled image"),
        ("", "holds no labelled image"),
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match=sentence):
        read_labelled(manifest(tmp_path, text))


def test_a_manifest_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(b"file,label\n\xff\xfe,x\n")
    with pytest.raises(UsageError, match="in UTF-8"):
        read_labelled(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        read_labelled(tmp_path / "manifest.csv")


@pytest.fixture
def data(tmp_path: Path, cells: tuple[Image8, ...]) -> Path:
    """Three cells and a broken file; what the labels are worth is not asked."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, cell in zip("abc", cells, strict=True):
        Image.fromarray(cell).save(folder / f"{name}.png")
    (folder / "broken.png").write_text("no image")
    return manifest(folder, "file,label,fold\na.png,neutrophil,0\nb.png,junk,0\nc.png,basophil,1\nbroken.png,basophil,1\n")


def outcome_of(data: Path, mapping: dict[str, str | None] | None = None, fold: str | None = None) -> EvaluateOutcome:
    choice = ModelChoice(backend="onnx", threads=1)
    return evaluate(EvaluateRequest(data, None, mapping or {}, fold), choice, lambda done, total: None)


def test_an_unreadable_image_is_a_failure(data: Path) -> None:
    outcome = outcome_of(data)
    assert outcome.result.n == 2
    assert outcome.failures == ("broken.png: not an image that can be read; save it as JPEG or PNG.",)
    assert outcome.skipped == {"junk": 1}
    assert outcome.result.labels[:2] == ("basophil", "neutrophil")
    assert not {"neutrophil_band", "neutrophil_segmented"} & set(outcome.result.labels)
    assert sum(outcome.scale_sources.values()) == 2
    assert evaluation_text(outcome).startswith(f"{outcome.model} (onnx fp32), n = 2\naccuracy ")


def test_one_fold(data: Path) -> None:
    outcome = outcome_of(data, {"junk": "artefact"}, fold="0")
    assert (outcome.result.n, outcome.failures, outcome.skipped) == (2, (), {})
    with pytest.raises(UsageError, match="no image of fold 7"):
        outcome_of(data, fold="7")


@pytest.mark.parametrize("fold", ["3c", "", "b", "-1", "3ab", "three"])
def test_a_fold_that_is_none(data: Path, fold: str) -> None:
    with pytest.raises(UsageError, match="such as 3 or 3b"):
        outcome_of(data, fold=fold)


def test_half_of_a_fold(data: Path) -> None:
    """a.png and b.png are fold 0."""
    named = {"neutrophil": "neutrophil", "junk": "artefact"}
    sizes = {part: sum(half(f) == part for f in ("a.png", "b.png")) for part in "ab"}
    for part, n in sizes.items():
        if n:
            assert outcome_of(data, dict(named), fold=f"0{part}").result.n == n
        else:
            with pytest.raises(UsageError, match=f"no image of fold 0{part}"):
                outcome_of(data, dict(named), fold=f"0{part}")


def test_not_one_image_can_be_read(data: Path) -> None:
    manifest(data, "file,label\nbroken.png,basophil\n")
    with pytest.raises(InputError, match=r"none of the 1 images could be read; the first: broken\.png: not an image"):
        outcome_of(data)


def test_the_command(data: Path, call: Callable[..., Any]) -> None:
    (data / "map.json").write_text('{"junk": null, "basophil": "basophil"}')
    done = call("evaluate", "--data", data, "--map", data / "map.json", "--backend", "onnx", "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert set(told) == {
        "model", "manifest_sha256", "backend", "precision", "n", "accuracy", "accuracy_low", "accuracy_high", "macro_f1",
        "macro_f1_interval", "calibration_error", "calibration_error_interval", "accuracy_coverage", "coverage",
        "accuracy_when_sure", "classes", "labels", "confusion", "failures", "skipped", "scale_sources", "notice",
    }  # fmt: skip
    assert told["n"] == 2
    assert done.err == (
        "broken.png: not an image that can be read; save it as JPEG or PNG.\nleft out, no class of this model: junk (1)\n"
    )


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": ["b"]}', '{"a": "martian"}', "[" * 100_000])
def test_a_map_that_cannot_be_used(data: Path, call: Callable[..., Any], text: str) -> None:
    (data / "map.json").write_text(text)
    done = call("evaluate", "--data", data, "--map", data / "map.json", "--backend", "onnx")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("--map") and done.err.count("\n") == 1
