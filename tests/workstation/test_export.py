"""A run becomes a bundle: the same answers, the same bytes, and refusals."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nca_edge.classifier import ModelChoice, from_8bit, load
from nca_edge.cli import app
from nca_edge.errors import BundleError, UsageError
from nca_export.bundle import GROUPS, blood_shifts, export_run, read_run
from nca_train.data import load_cells
from nca_train.loop import Job, train
from tests.workstation.synthetic import FOLDS, quiet, rows_of, tiny_recipe, write_data


@pytest.fixture(scope="module")
def bundle(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(run, data, tmp_path_factory.mktemp("bundles") / "tiny", quiet)


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
    assert {f["name"] for f in manifest["files"]} == {"weights.npz", "golden.npz", "model.onnx"}


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
    again = export_run(run, data, tmp_path / "again", quiet)
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in bundle.iterdir()}


def test_stopped_run_is_exported_and_says_so(data: Path, tmp_path: Path) -> None:
    job = Job(tiny_recipe(), data, tmp_path / "run", max_minutes=1e-9)
    train(job, quiet)
    said: list[str] = []
    export_run(job.out, data, tmp_path / "bundle", said.append)
    assert "stopped after epoch 0" in said[0]


def test_export_refuses_what_is_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no training run"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("[]", "utf-8")
    with pytest.raises(UsageError, match="not the record"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{}", "utf-8")
    with pytest.raises(UsageError, match="has no architecture"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    with pytest.raises(BundleError, match=r"weights\.npz"):
        read_run(tmp_path)
    (tmp_path / "weights.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(BundleError, match=r"weights\.npz"):
        read_run(tmp_path)


def test_export_refuses_other_data(run: Path, data: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "data", per_class=2 * FOLDS)
    with pytest.raises(UsageError, match=r"none of the classes|other cells"):
        export_run(run, other, tmp_path / "bundle", quiet)
    assert not (tmp_path / "bundle").exists()


def test_a_graph_that_disagrees_is_not_written(run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nca_export.bundle as exporter

    honest = exporter.build_onnx

    def wrong(architecture: Any, weights: Any, fire: Any, mask_step: Any = None) -> bytes:
        return honest(architecture, {**weights, "head2_bias": weights["head2_bias"] + 1}, fire, mask_step)

    monkeypatch.setattr(exporter, "build_onnx", wrong)
    with pytest.raises(BundleError, match="nothing was written"):
        export_run(run, data, tmp_path / "bundle", quiet)
    assert not (tmp_path / "bundle").exists()


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
    assert shift[1] == pytest.approx(0.5 * (math.log(0.02 / 0.98) - math.log(drawn / (1 - drawn))))
