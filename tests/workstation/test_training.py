"""The real loop on a tiny drawn data set: what it reads, that it learns, and what it leaves in the run folder."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nca_edge.classifier import from_8bit
from nca_edge.errors import UsageError
from nca_edge.labelled import half
from nca_edge.preprocess import cell_view
from nca_train.data import Cells, load_cells, load_views
from nca_train.loop import Job, Trainer, train
from nca_train.model import NCA
from nca_train.parallel import Team
from nca_train.recipe import parse_recipe
from tests.workstation.synthetic import quiet, rows_of, tiny_recipe, write_data, write_manifest

ALONE = Team(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def cells(data: Path) -> Cells:
    return load_cells(tiny_recipe(), data, 3, 0)


def test_cells_of_every_kind_are_read(cells: Cells) -> None:
    assert cells.classes == ("basophil", "eosinophil", "artefact")
    assert cells.wide.shape[1:] == (56, 56, 3) and cells.views.shape[1:] == (16, 16, 3)
    assert cells.wide.dtype == cells.views.dtype == np.uint8
    assert cells.allowed.tolist() == [[True, False, False], [False, True, False], [False, False, True], [True, True, False]]
    trained, validated = np.bincount(cells.kinds), np.bincount(cells.view_labels)
    assert trained[:2].tolist() == [18, 18] and validated[:2].tolist() == [3, 3]  # half a of fold 3
    assert trained[3] == 4  # white cells of fields; the fourth field's would validate, if its class were known
    patches = {field: 2 + 2 for field in range(5)}  # of each field: far from a white cell, and platelets (4 of 10 at most)
    artefacts = trained[2] + validated[2] - 18 - 3  # without the crops of platelets
    assert 10 + 4 <= artefacts <= 10 + 4 + 6 and sum(patches.values()) >= 14  # and corners, unless half b has them
    assert len(cells.wide) == len(cells.kinds) and len(cells.views) == len(cells.view_labels)
    assert cells.mean.min() > 0 and cells.mean.max() < 1 and (cells.std > 0).all()


def test_reading_is_repeatable_and_the_seed_places_patches(data: Path, cells: Cells) -> None:
    again, other = load_cells(tiny_recipe(), data, 3, 0), load_cells(tiny_recipe(), data, 3, 1)
    assert (again.wide == cells.wide).all() and (again.views == cells.views).all()
    assert other.wide.shape != cells.wide.shape or (other.wide != cells.wide).any()


def test_half_a_selects_and_half_b_is_never_seen(data: Path, cells: Cells) -> None:
    a, b = (load_views(tiny_recipe(), data, (3, 0), part, cells.classes) for part in "ab")
    assert (a.images == cells.views).all() and (a.labels == cells.view_labels).all()
    assert np.bincount(b.labels)[:2].tolist() == [3, 3]
    seen = {view.tobytes() for view in cells.views}
    assert not seen & {view.tobytes() for view in b.images}


def test_data_without_folds_are_split_by_their_names(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data")
    lines = (folder / "manifest.csv").read_text("utf-8").splitlines()
    (folder / "manifest.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines), "utf-8")
    rows = [line.split(",") for line in lines[1:] if "platelet" not in line]
    digests = [hashlib.sha256(Path(file).name.encode()).digest() for file, _, _ in rows]
    cells = load_cells(tiny_recipe(), folder, 1, 0)
    assert int((cells.kinds < 2).sum()) == sum(d[1] % 4 != 1 for d in digests)
    assert int((cells.view_labels < 2).sum()) == sum(d[1] % 4 == 1 and d[0] % 2 == 0 for d in digests) > 0


def test_a_label_of_several_classes_trains_and_does_not_validate(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", per_class=8)
    rows = [tuple(line.split(",")) for line in (folder / "manifest.csv").read_text("utf-8").splitlines()[1:]]
    unsure = {0, 3, 9}  # basophils of folds 0 and 3, an eosinophil of fold 1
    write_manifest(folder, [(f, "unsure" if n in unsure else label, int(k)) for n, (f, label, k) in enumerate(rows)])
    recipe = tiny_recipe()
    recipe = replace(recipe, data=replace(recipe.data, map={"platelet": "artefact", "unsure": "basophil|eosinophil"}))
    cells = load_cells(recipe, folder, 3, 0)
    assert cells.classes == ("basophil", "eosinophil", "artefact")
    assert cells.allowed[3:].tolist() == [[True, True, False]] * 2  # basophil|eosinophil, and any white cell
    assert np.bincount(cells.kinds)[[0, 1, 3, 4]].tolist() == [5, 5, 2, 4]
    assert half(rows[3][0]) == "a" and int((cells.view_labels == 0).sum()) == 0


# --- what is learnt -----------------------------------------------------------------------------------------------------


def test_it_learns(run: Path) -> None:
    last = rows_of(run)[-1]
    assert last["validation_accuracy"] > 0.9
    assert last["validation_cell_accuracy"] > 0.9
    assert tiny_recipe().train.exits and tiny_recipe().train.consistency and tiny_recipe().model.pool == "max+mean"


def test_run_folder_is_complete_and_finite(run: Path) -> None:
    files = {"last.pt", "weights.npz", "metrics.jsonl", "run.json", "calibration.npz"}
    assert {p.name for p in run.iterdir() if p.suffix != ".png"} == files
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(set(row) == set(rows[0]) for row in rows)
    facts = json.loads((run / "run.json").read_text("utf-8"))
    assert facts["finished"] and facts["epochs_done"] == 12 and facts["last"] == rows[-1]
    assert facts["training_cells"] == sum(facts["training_cells_per_class"].values()) + 4
    assert facts["training_cells_of_several_classes"] == 4
    assert facts["updates_done"] == 12 * (facts["training_cells"] // 8)
    assert parse_recipe(facts["recipe"]) == tiny_recipe()
    assert (facts["seed"], facts["fold"], facts["device"], facts["processes"]) == (3, 3, "cpu", 1)


def test_the_epoch_that_validates_best_is_kept(run: Path, data: Path) -> None:
    rows = rows_of(run)
    selected = json.loads((run / "run.json").read_text("utf-8"))["selected"]
    best = max(row["validation_cell_accuracy"] for row in rows)
    assert selected == [row for row in rows if row["validation_cell_accuracy"] == best][-1]
    cells = load_cells(tiny_recipe(), data, 3, 3)
    model = NCA(tiny_recipe().model.architecture(3))
    with np.load(run / "weights.npz") as archive:
        fire = archive["fire"]
        model.load_weights({name: archive[name] for name in archive.files if name != "fire"})
    views = torch.from_numpy((from_8bit(cells.views) - cells.mean) / cells.std)
    with torch.inference_mode():
        (logits,), _ = model(views, fire)
    right = logits.argmax(1).numpy() == cells.view_labels
    assert float(right.mean()) == pytest.approx(selected["validation_accuracy"])


def test_a_worse_epoch_does_not_replace_a_better_one(data: Path, cells: Cells, tmp_path: Path) -> None:
    trainer = Trainer(Job(tiny_recipe(), data, tmp_path), cells, ALONE)
    kept = []
    for epoch, accuracy in enumerate([0.5, 0.9, 0.7, 0.9, 0.8], start=1):
        torch.nn.init.constant_(trainer.averaged.head2.bias, epoch)
        trainer.history.append({"epoch": epoch, "validation_cell_accuracy": accuracy})
        trainer.record.select(trainer, np.full(len(cells.views), epoch))
        assert trainer.record.best is not None and trainer.record.best_row is not None
        kept.append((trainer.record.best_row["epoch"], float(trainer.record.best["head2_bias"][0])))
        assert set(trainer.record.best_answers) == {kept[-1][0]}
    assert kept == [(1, 1), (2, 2), (2, 2), (4, 4), (4, 4)]


def test_cells_for_int8_are_training_cells_as_the_device_sees_them(run: Path, data: Path) -> None:
    cells = load_cells(tiny_recipe(), data, 3, 3)
    with np.load(run / "calibration.npz") as archive:
        views = archive["views"]
    assert views.shape == (64, 16, 16, 3) and views.dtype == np.uint8 and len(cells.wide) > 64
    for view, index in ((views[0], 0), (views[-1], len(cells.wide) - 1)):
        seen = cell_view(from_8bit(cells.wide[index]), (28.0, 28.0), cells.wide_um / 56, 10.0, 16)
        assert np.abs(view / 255 - seen).max() <= 0.5 / 255 + 1e-6
    assert len({view.tobytes() for view in views}) == 64


def test_a_run_begins_with_the_weights_of_another(run: Path, data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    second = replace(recipe, train=replace(recipe.train, epochs=1, learning_rate=1e-7, warmup_updates=0))
    out = train(Job(second, data, tmp_path / "second", seed=3, init=run, device="cpu"), quiet)
    with np.load(run / "weights.npz") as first, np.load(out / "weights.npz") as tuned:
        assert all(np.abs(first[name] - tuned[name]).max() < 1e-5 for name in first.files if name != "fire")
    assert json.loads((out / "run.json").read_text("utf-8"))["begun_from"]["epochs_done"] == 12


@pytest.mark.parametrize("size", ["channels", "hidden"])
def test_no_smaller_run_begins_with_the_weights_of_a_larger(run: Path, data: Path, tmp_path: Path, size: str) -> None:
    recipe = tiny_recipe()
    other = replace(recipe, model=replace(recipe.model, **{size: getattr(recipe.model, size) - 1}))
    with pytest.raises(UsageError, match="--init"):
        train(Job(other, data, tmp_path / "third", seed=3, init=run, device="cpu"), quiet)


def test_a_wider_run_begins_with_the_answers_of_a_narrower(run: Path, data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    wider = replace(recipe, model=replace(recipe.model, hidden=recipe.model.hidden + 5))
    wider = replace(wider, train=replace(recipe.train, epochs=1, learning_rate=1e-7, warmup_updates=0, weight_decay=0))
    out = train(Job(wider, data, tmp_path / "wider", seed=3, init=run, device="cpu"), quiet)
    images = torch.randn(4, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    logits = []
    for folder, chosen in ((run, recipe), (out, wider)):
        with np.load(folder / "weights.npz") as archive:
            weights, fire = {name: archive[name] for name in archive.files if name != "fire"}, archive["fire"]
        model = NCA(chosen.automaton.architecture(len(json.loads((folder / "run.json").read_text("utf-8"))["classes"])))
        model.load_weights(weights)
        logits.append(model(images, fire)[0][-1].detach())
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-4)


# --- single parts -------------------------------------------------------------------------------------------------------


def rates(trainer: Trainer) -> list[float]:
    found = []
    for update in range(trainer.updates + 1):
        trainer.update = update
        found.append(trainer.learning_rate())
    return found


def test_learning_rate_warms_up_and_cools_down(data: Path, cells: Cells, tmp_path: Path) -> None:
    found = rates(Trainer(Job(tiny_recipe(epochs=4, warmup_updates=4), data, tmp_path), cells, ALONE))
    assert found[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert found[4:] == sorted(found[4:], reverse=True) and found[-1] == pytest.approx(1e-4)


def test_learning_rate_of_the_papers_shrinks_by_a_factor(data: Path, cells: Cells, tmp_path: Path) -> None:
    found = rates(Trainer(Job(tiny_recipe(epochs=1, warmup_updates=2, decay=0.5), data, tmp_path), cells, ALONE))
    assert found[:5] == pytest.approx([0.005, 0.01, 0.01, 0.005, 0.0025])


def test_rare_kinds_are_drawn_as_often(data: Path, cells: Cells, tmp_path: Path) -> None:
    trainer = Trainer(Job(tiny_recipe(balance=1.0), data, tmp_path), cells, ALONE)
    drawn = [float(trainer.draw_weights[torch.from_numpy(cells.kinds == kind)].sum()) for kind in range(4)]
    assert drawn == pytest.approx([1.0, 1.0, 1.0, 1.0])


def test_an_update_that_overflows_is_skipped(data: Path, cells: Cells, tmp_path: Path) -> None:
    trainer = Trainer(Job(tiny_recipe(), data, tmp_path), cells, ALONE)
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.std = torch.zeros(3)  # every image is infinite
    assert not math.isfinite(trainer.learn())
    assert trainer.update == 1
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_training_that_diverged_says_so(data: Path, cells: Cells, tmp_path: Path) -> None:
    trainer = Trainer(Job(tiny_recipe(epochs=1), data, tmp_path), cells, ALONE)
    trainer.std = torch.zeros(3)
    with pytest.raises(UsageError, match=r"epoch 1: no loss was finite; lower train\.learning_rate"):
        trainer.advance(time.monotonic() + 600, quiet, lambda done, total, text: None)
    assert not (tmp_path / "weights.npz").exists()
