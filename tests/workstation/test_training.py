"""The real loop on a tiny drawn data set: what it reads, that it learns, and that a resume changes nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nca_edge.errors import UsageError
from nca_train.data import Cells, load_cells
from nca_train.loop import Job, Trainer, train
from nca_train.recipe import parse_recipe
from tests.workstation.synthetic import quiet, rows_of, tiny_recipe


@pytest.fixture(scope="module")
def cells(data: Path) -> Cells:
    return load_cells(tiny_recipe(), data, 3, 0)


def test_cells_of_every_kind_are_read(cells: Cells) -> None:
    assert cells.classes == ("basophil", "eosinophil", "artefact")
    assert cells.wide.shape[1:] == (56, 56, 3) and cells.views.shape[1:] == (16, 16, 3)
    assert cells.wide.dtype == cells.views.dtype == np.uint8
    assert (np.bincount(cells.wide_labels)[:2] == 18).all() and (np.bincount(cells.view_labels)[:2] == 6).all()
    artefacts = int((cells.wide_labels == 2).sum() + (cells.view_labels == 2).sum())
    assert artefacts == 24 + 6 + 10 + 4  # platelet crops, corners, patches of fields, platelets of fields
    assert len(cells.wide) == len(cells.wide_labels) and len(cells.views) == len(cells.view_labels)
    assert cells.mean.min() > 0 and cells.mean.max() < 1 and (cells.std > 0).all()


def test_reading_is_repeatable_and_the_seed_places_patches(data: Path, cells: Cells) -> None:
    again, other = load_cells(tiny_recipe(), data, 3, 0), load_cells(tiny_recipe(), data, 3, 1)
    assert (again.wide == cells.wide).all() and (again.views == cells.views).all()
    assert other.wide.shape != cells.wide.shape or (other.wide != cells.wide).any()


# --- what is learnt -----------------------------------------------------------------------------------------------------


def test_it_learns(run: Path) -> None:
    last = rows_of(run)[-1]
    assert last["validation_accuracy"] > 0.9
    assert last["validation_cell_accuracy"] > 0.9


def test_run_folder_is_complete_and_finite(run: Path) -> None:
    assert {p.name for p in run.iterdir()} == {"last.pt", "weights.npz", "metrics.jsonl", "run.json"}
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(set(row) == set(rows[0]) for row in rows)
    facts = json.loads((run / "run.json").read_text("utf-8"))
    assert facts["finished"] and facts["epochs_done"] == 12 and facts["last"] == rows[-1]
    assert facts["training_cells"] == sum(facts["training_cells_per_class"].values())
    assert parse_recipe(facts["recipe"]) == tiny_recipe()
    assert (facts["seed"], facts["fold"]) == (3, 3)


@pytest.mark.parametrize("update", ["half-lattice", "bernoulli"])
def test_resumed_run_equals_an_uninterrupted_one(data: Path, tmp_path: Path, update: str) -> None:
    recipe = tiny_recipe(epochs=3)
    recipe = replace(recipe, model=replace(recipe.model, update=update))
    whole = train(Job(recipe, data, tmp_path / "whole"), quiet)
    parts = Job(recipe, data, tmp_path / "parts", max_minutes=1e-9)
    train(parts, quiet)
    assert not json.loads((parts.out / "run.json").read_text("utf-8"))["finished"]
    torch.rand(7)  # whatever else drew numbers in between
    for _ in range(2):
        train(replace(parts, resume=True), quiet)
    with np.load(whole / "weights.npz") as a, np.load(parts.out / "weights.npz") as b:
        assert set(a.files) == set(b.files)
        assert all(a[name].tobytes() == b[name].tobytes() for name in a.files)
    assert [row["loss"] for row in rows_of(whole)] == [row["loss"] for row in rows_of(parts.out)]
    before = (parts.out / "weights.npz").read_bytes()
    train(replace(parts, resume=True), quiet)  # nothing left to do
    assert (parts.out / "weights.npz").read_bytes()[-100:] == before[-100:] and len(rows_of(parts.out)) == 3


def test_a_run_begins_with_the_weights_of_another(run: Path, data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    second = replace(recipe, train=replace(recipe.train, epochs=1, learning_rate=1e-9, warmup_updates=0))
    out = train(Job(second, data, tmp_path / "second", seed=3, init=run), quiet)
    with np.load(run / "weights.npz") as first, np.load(out / "weights.npz") as tuned:
        assert all(np.abs(first[name] - tuned[name]).max() < 1e-5 for name in first.files if name != "fire")
    assert json.loads((out / "run.json").read_text("utf-8"))["begun_from"]["epochs_done"] == 12
    other = replace(recipe, model=replace(recipe.model, hidden=recipe.model.hidden + 1))
    with pytest.raises(UsageError, match="--init"):
        train(Job(other, data, tmp_path / "third", seed=3, init=run), quiet)


def test_learning_rate_warms_up_and_cools_down(data: Path, cells: Cells, tmp_path: Path) -> None:
    trainer = Trainer(Job(tiny_recipe(epochs=4, warmup_updates=4), data, tmp_path), cells)
    rates = []
    for update in range(4 * trainer.updates_per_epoch + 1):
        trainer.update = update
        rates.append(trainer.learning_rate())
    assert rates[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert rates[4:] == sorted(rates[4:], reverse=True) and rates[-1] == pytest.approx(1e-4)


def test_rare_classes_are_drawn_as_often(data: Path, cells: Cells, tmp_path: Path) -> None:
    trainer = Trainer(Job(tiny_recipe(balance=1.0), data, tmp_path), cells)
    drawn = [float(trainer.draw_weights[torch.from_numpy(cells.wide_labels == c)].sum()) for c in range(3)]
    assert drawn == pytest.approx([1.0, 1.0, 1.0])


def test_an_update_that_overflows_is_skipped(data: Path, cells: Cells, tmp_path: Path) -> None:
    trainer = Trainer(Job(tiny_recipe(), data, tmp_path), cells)
    before = [p.clone() for p in trainer.model.parameters()]
    images = torch.full((8, 16, 16, 3), float("inf"))
    assert not math.isfinite(trainer.learn(images, torch.zeros(8, dtype=torch.int64)))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_training_that_diverged_says_so(data: Path, cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(Job(tiny_recipe(), data, tmp_path), cells)
    monkeypatch.setattr(trainer, "learn", lambda images, labels: float("nan"))
    with pytest.raises(UsageError, match=r"lower train\.learning_rate"):
        trainer.one_epoch()
