"""A run becomes a bundle: the same answers, the same bytes, and refusals."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nca_edge.automaton import pool
from nca_edge.backends import NumpyBackend
from nca_edge.backends.native.library import missing
from nca_edge.bundle import Bundle, load_bundle
from nca_edge.bundle_writer import packed
from nca_edge.classifier import ModelChoice, from_8bit, load
from nca_edge.cli import app
from nca_edge.errors import BundleError, NcaEdgeError
from nca_export import parity, variants
from nca_export.bundle import Request, export
from nca_export.prepare import BLOOD, FEW, GROUPS, REACH, blood_shifts, prepare_bundle
from nca_export.quantize import reach
from nca_export.run import read_run
from nca_export.source import calibration_cells, find_source, normalised
from nca_train.data import load_cells
from nca_train.loop import Job, train
from tests.workstation.synthetic import quiet, rows_of, tiny_recipe


@pytest.mark.parametrize("backend", ["numpy", "onnx"])
def test_bundle_answers_as_the_model_did(run: Path, bundle: Path, data: Path, backend: str) -> None:
    cells = load_cells(tiny_recipe(), data, 3, 3)
    classifier = load(ModelChoice(str(bundle), backend, threads=1))
    logits = classifier.answer(from_8bit(cells.views)).logits
    right = logits.argmax(1) == cells.view_labels
    assert float(right.mean()) == pytest.approx(rows_of(run)[-1]["validation_accuracy"])


def test_manifest_holds_what_the_run_was(run: Path, bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    assert manifest["classes"] == ["basophil", "eosinophil", "artefact"]
    assert manifest["groups"] == {"eosinophil": ["eosinophil"], "basophil": ["basophil"]}
    assert manifest["data"][0]["licence"] == "CC0"
    assert manifest["training"]["seed"] == 3 and manifest["training"]["epochs"] == 12
    assert manifest["metrics"]["white_cells"]["n"] == 6  # half b alone
    assert 0 <= manifest["unsure_below"] <= 1 and manifest["temperature"] > 0
    assert {f["name"] for f in manifest["files"]} == {"weights.npz", "golden.npz", "reach.npz", "model.onnx", "model.tflite"}


def test_the_bundle_keeps_what_its_channels_are_on_training_cells(run: Path, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    m = loaded.manifest
    cells = normalised(calibration_cells(run), np.asarray(m.mean, np.float32), np.asarray(m.std, np.float32))
    states = NumpyBackend(m.architecture, loaded.weights, loaded.fire)(cells).state
    expected = np.mean([pool(state, m.architecture.pool) for state in states], axis=0)
    assert m.channel_means == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_command_verifies_the_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["models", "verify", str(bundle)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "numpy fp32 reproduces the golden cells" in said and "onnx fp32 reproduces the golden cells" in said


def test_commands_train_and_export(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fast.toml").write_text(
        'name = "fast"\n[model]\ngrid = 4\nfold = 1\nchannels = 8\nhidden = 8\nsteps = 2\npool = "mean"\nupdate = "bernoulli"\n'
        'head = 8\n[view]\nview_um = 10\n[data]\num_per_px = 0.5\n[data.map]\nplatelet = "artefact"\n'
        "[train]\nepochs = 1\nbatch = 8\nlearning_rate = 0.01\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    app(["train", "fast.toml", "--data", str(data), "--threads", "1"], standalone_mode=False)
    assert capsys.readouterr().out.strip() == "runs/fast-1"
    app(["export", "runs/fast-1", "--data", str(data)], standalone_mode=False)
    assert capsys.readouterr().out.strip() == "bundles/fast"
    assert (tmp_path / "bundles" / "fast" / "manifest.json").is_file()


def test_same_run_gives_the_same_bytes(run: Path, data: Path, bundle: Path, tmp_path: Path) -> None:
    again = export(Request(run, data, tmp_path / "again"), quiet)
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in bundle.iterdir()}


def test_a_bundle_that_keeps_no_reach_of_its_change_takes_it_from_its_golden_cells(bundle: Path) -> None:
    whole = load_bundle(bundle)
    with np.load(io.BytesIO(whole.contents[REACH])) as archive:
        kept = dict(archive)
    own = kept.pop("delta")
    found = prepare_bundle(whole, None)
    m = found.automaton
    assert m.reach is not None and np.array_equal(m.reach.delta, own)
    before = prepare_bundle(replace(whole, contents={**whole.contents, REACH: packed(kept)}), None).automaton.reach
    golden = reach(m.architecture, m.weights, m.fire, found.normalised(found.golden))
    assert before is not None and np.array_equal(before.delta, golden.delta * FEW) and before.delta.any()
    assert np.array_equal(before.low, m.reach.low) and np.array_equal(before.high, m.reach.high)


def test_stopped_run_is_exported_and_says_so(data: Path, tmp_path: Path) -> None:
    job = Job(tiny_recipe(), data, tmp_path / "run", max_minutes=1e-9)
    train(job, quiet)
    said: list[str] = []
    export(Request(job.out, data, tmp_path / "bundle"), said.append)
    assert "stopped after epoch 0" in said[0]


def test_a_variant_that_disagrees_is_left_out_and_the_rest_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = variants.build

    def wrong(form: str, precision: str, automaton: Any, probe: bool = False) -> bytes:
        if form == "onnx":
            weights = {**automaton.weights, "head2_bias": automaton.weights["head2_bias"] + 1}
            automaton = replace(automaton, weights=weights)
        return honest(form, precision, automaton, probe)

    monkeypatch.setattr(parity, "build", wrong)
    with pytest.raises(NcaEdgeError, match=r"model\.onnx: not written: logits differ") as caught:
        export(Request(run, out=tmp_path / "bundle"), quiet)
    assert caught.value.exit_code == 1
    assert {p.name for p in (tmp_path / "bundle").iterdir()} == {
        "golden.npz", "manifest.json", "model.tflite", "reach.npz", "weights.npz",
    }  # fmt: skip
    with pytest.raises(BundleError, match="no variant passed"):
        export(Request(run, out=tmp_path / "none", formats=("onnx",)), quiet)
    assert not (tmp_path / "none").exists()


def test_all_variants_without_data_and_from_a_bundle(run: Path, bundle: Path, tmp_path: Path) -> None:
    """A bundle keeps what its steps hold: int8 needs no cells."""
    said: list[str] = []
    whole = export(Request(run, out=tmp_path / "all", int8=True), said.append)
    assert any(text.startswith("without --data: not calibrated") for text in said)
    names = {"model.onnx", "model.int8.onnx", "model.tflite", "model.int8.tflite"}
    names |= {"model.int8.npz"} if missing() is None else set()
    assert names <= {p.name for p in whole.iterdir()}
    measured = json.loads((whole / "manifest.json").read_text("utf-8"))["metrics"]["variants"]
    assert {row["file"] for row in measured} == names and all(row["n"] > 0 for row in measured)
    more = export(Request(bundle, out=tmp_path / "more", formats=("litert",), int8=True), quiet)
    before, after = (json.loads((folder / "manifest.json").read_text("utf-8")) for folder in (bundle, more))
    assert {p.name for p in more.glob("model*")} == {"model.tflite", "model.int8.tflite"}
    assert after["temperature"] == before["temperature"] and after["metrics"]["white_cells"] == before["metrics"]["white_cells"]
    for backend, precision in (("litert", "fp32"), ("litert", "int8"), ("numpy", "fp32")):
        load(ModelChoice(str(more), backend, precision, threads=1))


def test_labelled_cells_are_counted_for_each_variant(run: Path, data: Path, tmp_path: Path) -> None:
    folder = export(Request(run, data, tmp_path / "bundle", int8=True), quiet)
    metrics = json.loads((folder / "manifest.json").read_text("utf-8"))["metrics"]
    for row in metrics["variants"]:
        assert row["labelled"] == metrics["white_cells"]["n"]
        assert row["right"] / row["labelled"] == pytest.approx(metrics["white_cells"]["accuracy"], abs=0.2)


def test_without_a_run_the_newest_finished_one_is_taken(
    run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, where = find_source(None)
    assert isinstance(source, Bundle) and where.name == "edge"  # none: what is shipped
    for name, finished, minute in (("old", True, 1), ("new", True, 2), ("newest", False, 3)):
        folder = tmp_path / "runs" / name
        shutil.copytree(run, folder)
        facts = json.loads((folder / "run.json").read_text("utf-8"))
        (folder / "run.json").write_text(json.dumps({**facts, "finished": finished}), "utf-8")
        os.utime(folder / "run.json", (minute, minute))
    assert find_source(None)[1] == Path("runs/new")


def test_export_needs_no_torch() -> None:
    """The export extra brings onnx alone."""
    code = "import sys, nca_export.bundle; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(str(root / part) for part in (".", "train", "export"))
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, check=False).returncode == 0


def test_eosinophils_lose_what_training_drew_too_often(run: Path) -> None:
    found = read_run(run)
    assert blood_shifts(found, 1.0) == {}  # two classes are no differential
    five = {members[0]: 400 for members in GROUPS.values()} | {"eosinophil": 1600, "artefact": 9000}
    recipe = replace(found.recipe, train=replace(found.recipe.train, balance=0.5))
    facts = {**found.facts, "classes": list(five), "training_cells_per_class": five}
    (shift,) = blood_shifts(replace(found, recipe=recipe, facts=facts), 0.5).items()
    drawn = 40 / (40 + 4 * 20)  # square roots of the counts, artefacts left out
    assert shift[0] == "eosinophil"
    assert shift[1] == pytest.approx(
        0.5 * (math.log(BLOOD["eosinophil"] / (1 - BLOOD["eosinophil"])) - math.log(drawn / (1 - drawn)))
    )
