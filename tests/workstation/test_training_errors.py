"""What goes wrong in training: one sentence before the first step, and never half a file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nca_edge.errors import StorageError, UsageError
from nca_train import loop, store
from nca_train.loop import Job, train
from tests.workstation.synthetic import quiet, rows_of, tiny_recipe, write_data, write_manifest


@pytest.mark.parametrize("fails", ["write", "rename"])
def test_a_checkpoint_is_whole_or_the_one_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    job = Job(tiny_recipe(epochs=3), data, tmp_path / "run", max_minutes=1e-9, device="cpu")
    train(job, quiet)
    before = {p.name: p.read_bytes() for p in job.out.iterdir()}
    rename = os.replace

    def half(state: object, path: Path) -> None:
        path.write_bytes(b"PK half a checkpoint")
        raise KeyboardInterrupt

    def stop(source: Path, target: Path) -> None:
        if target.name == "last.pt":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        if fails == "write":
            patch.setattr(loop.torch, "save", half)
        else:
            patch.setattr(store.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            train(replace(job, resume=True), quiet)
    assert {name: (job.out / name).read_bytes() for name in before} == before
    train(replace(job, resume=True), quiet)
    assert json.loads((job.out / "run.json").read_text("utf-8"))["updates_done"] == 2


def test_files_lost_between_checkpoint_and_weights_come_back(data: Path, tmp_path: Path) -> None:
    """Stopped right after the last checkpoint: a resume trains nothing, but derives the other files anew."""
    job = Job(tiny_recipe(epochs=1), data, tmp_path / "run", device="cpu")
    train(job, quiet)
    with np.load(job.out / "weights.npz") as archive:
        before = {name: archive[name] for name in archive.files}
    files = {path.name for path in job.out.iterdir()}
    (job.out / "weights.npz").write_bytes(b"old")
    for path in job.out.iterdir():
        if path.name not in ("last.pt", "weights.npz"):
            path.unlink()
    train(replace(job, resume=True), quiet)
    with np.load(job.out / "weights.npz") as archive:
        assert all((archive[name] == before[name]).all() for name in before)
    assert len(rows_of(job.out)) == 1 and {path.name for path in job.out.iterdir()} == files


def test_full_disk_is_a_sentence(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: object, path: Path) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    monkeypatch.setattr(loop.torch, "save", full)
    with pytest.raises(StorageError, match=r"last\.pt: cannot be written .*--resume"):
        train(Job(tiny_recipe(epochs=1), data, tmp_path / "run", device="cpu"), quiet)


def test_run_folder_that_cannot_be_made(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be made"):
        train(Job(tiny_recipe(), data, tmp_path / "file" / "run"), quiet)


def _no_training(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    write_manifest(folder, [row for row in rows if row[1] != "eosinophil" or row[2] == 3])


def _no_validation(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    write_manifest(folder, [row for row in rows if row[2] != 3])


def _only_artefacts_validate(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    write_manifest(folder, [row for row in rows if row[1] == "platelet" or row[2] != 3])


def _only_one_fold(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    write_manifest(folder, [(file, label, 3) for file, label, _ in rows])


def _missing_file(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    (folder / rows[5][0]).unlink()


def _corrupt_file(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    path = folder / rows[5][0]
    path.write_bytes(path.read_bytes()[:200])


def _no_fields(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    (folder / "fields").rename(folder / "elsewhere")


def _empty_boxes(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    (folder / "fields" / "boxes.csv").write_text("file,label,x,y,w,h\n", "utf-8")


def _boxes_without_columns(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    (folder / "fields" / "boxes.csv").write_text("file,label,x,y,w,h\nfield0.png,WBC,3\n", "utf-8")


def _missing_field(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    (folder / "fields" / "field2.png").unlink()


@pytest.mark.parametrize(
    "damage, said",
    [
        (_no_training, "eosinophil has validation images but none to train on"),
        (_no_validation, "needs fold 3 to validate on.*: 0, 1, 2"),
        (_only_artefacts_validate, "cells that are no artefact to validate on"),
        (_only_one_fold, "others to train on.*: 3"),
        (_missing_file, "1 listed images are missing"),
        (_corrupt_file, r"basophil_05-\d+\.png: cannot be read.*Training stops before it starts"),
        (_no_fields, r"needs boxes\.csv"),
        (_empty_boxes, r"boxes\.csv lists no box"),
        (_boxes_without_columns, r"needs boxes\.csv \(file,label,x,y,w,h\)"),
        (_missing_field, r"field2\.png: no such file"),
    ],
)
def test_wrong_data_is_a_sentence_before_the_first_step(tmp_path: Path, damage: Any, said: str) -> None:
    folder = write_data(tmp_path / "data", per_class=8)
    rows = [tuple(line.split(",")) for line in (folder / "manifest.csv").read_text("utf-8").splitlines()[1:]]
    damage(folder, [(file, label, int(fold)) for file, label, fold in rows])
    with pytest.raises(UsageError, match=said):
        train(Job(tiny_recipe(), folder, tmp_path / "run", device="cpu"), quiet)
    assert not list((tmp_path / "run").glob("*"))


def test_wrong_use_is_a_sentence(run: Path, data: Path, tmp_path: Path) -> None:
    job = Job(tiny_recipe(), data, run, seed=3, device="cpu")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    wrong = [
        (job, "holds a run; add --resume"),
        (replace(job, resume=True, recipe=tiny_recipe(epochs=9)), "another recipe"),
        (replace(job, resume=True, fold=2), "another --fold"),
        (replace(job, resume=True, seed=5), "another --seed"),
        (replace(job, out=tmp_path / "absent", resume=True), "no run to go on with"),
        (replace(job, out=tmp_path / "new", max_minutes=0.0), "--max-minutes"),
        (replace(job, out=tmp_path / "new", max_minutes=math.nan), "--max-minutes"),
        (replace(job, out=tmp_path / "new", threads=-1), "--threads"),
        (replace(job, out=tmp_path / "new", recipe=tiny_recipe(batch=500)), "fewer than train.batch"),
    ]
    for call, said in wrong:
        with pytest.raises(UsageError, match=said):
            train(call, quiet)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    assert not list((tmp_path / "new").glob("*"))


def test_other_data_of_the_same_classes_do_not_resume(run: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "data", per_class=8)
    with pytest.raises(UsageError, match="another data"):
        train(Job(tiny_recipe(), other, run, seed=3, resume=True, device="cpu"), quiet)


@pytest.mark.parametrize("raw", [b"", b"text", b"PK\x03\x04"])
def test_damaged_checkpoint_is_a_sentence(data: Path, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "last.pt").write_bytes(raw)
    with pytest.raises(UsageError, match="cannot be read as a checkpoint"):
        train(Job(tiny_recipe(), data, tmp_path, resume=True), quiet)
