"""What `nca-edge export` refuses, with a sentence, and what it leaves as it was."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nca_edge.cli import app
from nca_edge.errors import BundleError, StorageError, UsageError
from nca_export import bundle as export_bundle
from nca_export.bundle import Request, export
from nca_export.run import read_run
from tests.workstation.synthetic import FOLDS, quiet, write_data


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


def _edited(run: Path, folder: Path, **facts: Any) -> Path:
    """A copy of a run with other facts."""
    shutil.copytree(run, folder)
    before = json.loads((folder / "run.json").read_text("utf-8"))
    (folder / "run.json").write_text(json.dumps({**before, **facts}), "utf-8")
    return folder


def test_export_refuses_what_does_not_belong_together(run: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="names 2 classes, the weights have 3; train again"):
        export(Request(_edited(run, tmp_path / "classes", classes=["basophil", "artefact"])), quiet)
    broken = _edited(run, tmp_path / "nan")
    with np.load(broken / "weights.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["w1"][0, 0] = np.nan
    np.savez(broken / "weights.npz", **arrays)
    with pytest.raises(BundleError, match="w1 holds numbers that are not finite; train the model again"):
        export(Request(broken, out=tmp_path / "out"), quiet)
    mended = shutil.copytree(bundle, tmp_path / "manifest")
    text = (mended / "manifest.json").read_text("utf-8")
    (mended / "manifest.json").write_text(text.replace('"steps": ', '"steps": 1'), "utf-8")
    with pytest.raises(BundleError, match=r"golden|fire|weights"):
        export(Request(mended, out=tmp_path / "out"), quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given, sentence",
    [
        ("tflite", "--format tflite: did you mean litert? known are onnx, litert and native."),
        ("onx", "--format onx: did you mean onnx? known are onnx, litert and native."),
        ("pytorch", "--format pytorch: known are onnx, litert and native."),
    ],
)
def test_unknown_formats_get_the_nearest_name(given: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        app(["export", "--format", given], standalone_mode=False)
    assert str(caught.value) == sentence


def test_a_missing_extra_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("nca_export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(UsageError, match=r"nca-edge\[export\]"):
        app(["export", str(run), "--out", str(tmp_path / "out")], standalone_mode=False)


def test_export_refuses_other_data(run: Path, data: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "data", per_class=2 * FOLDS)
    with pytest.raises(UsageError, match=r"none of the classes|other cells"):
        export(Request(run, other, tmp_path / "bundle"), quiet)
    assert not (tmp_path / "bundle").exists()


def test_wrong_places_are_told_before_the_work(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    for asked, sentence in (
        (Request(bundle, tmp_path / "nowhere"), r"--data .*nowhere: no such folder"),
        (Request(bundle, out=tmp_path / "file"), "file: is a file; give a folder to --out"),
        (Request(bundle, out=tmp_path), "holds something that is no bundle; choose another --out"),
    ):
        with pytest.raises(UsageError, match=sentence):
            export(asked, said.append)
    assert said == []


def test_a_full_disk_leaves_the_bundle_that_was_there_and_no_half_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(Request(run, out=tmp_path / "bundle"), quiet)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name.endswith(".tflite"):
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    for folder in (out, tmp_path / "first"):
        with pytest.raises(StorageError, match="No space left"):
            export(Request(run, out=folder), quiet)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_what_is_no_bundle_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "field.jpg").write_bytes(b"somebody's own")
    with pytest.raises(UsageError, match="holds something that is no bundle"):
        export(Request(run, out=tmp_path / "photos"), quiet)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["field.jpg"]


def test_native_holds_8_bits_alone(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--format native: holds 8 bits alone; add --int8"):
        export(Request(bundle, out=tmp_path / "new", formats=("native",)), quiet)


def test_without_the_compiled_step_native_is_left_out_and_said(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_bundle, "missing", lambda: "this CPU lacks AVX2")
    said: list[str] = []
    export(Request(bundle, out=tmp_path / "new", int8=True), said.append)
    assert "native is left out: this CPU lacks AVX2; the other formats are written" in said
    assert not (tmp_path / "new" / "model.int8.npz").exists() and (tmp_path / "new" / "model.int8.onnx").exists()
    with pytest.raises(UsageError, match="the native backend does not run here: this CPU lacks AVX2"):
        export(Request(bundle, out=tmp_path / "none", formats=("native",), int8=True), quiet)
