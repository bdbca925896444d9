"""The teacher: a network that the automaton learns from, trained by the same loop on the same views."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nca_edge.errors import UsageError
from nca_export.run import read_run
from nca_train.data import load_cells
from nca_train.loop import Job, train
from nca_train.objective import answer_loss, divergence, objective
from nca_train.recipe import Distill, Recipe, Teacher, load_recipe, parse_recipe
from nca_train.teacher import load_teacher
from tests.workstation.synthetic import quiet, rows_of, tiny_recipe


def teacher_recipe() -> Recipe:
    recipe = tiny_recipe(epochs=2, batch=8, learning_rate=0.002)
    options = replace(recipe.train, optimizer="adamw", exits=[], consistency=0.0)
    return replace(recipe, name="tiny-teacher", model=None, teacher=Teacher(size=16, side=32), train=options)


def pupil_recipe(**options: int) -> Recipe:
    return replace(tiny_recipe(**options), distill=Distill(weight=0.7))


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(Job(teacher_recipe(), data, tmp_path_factory.mktemp("teacher") / "t", device="cpu"), quiet)


@pytest.fixture(scope="module")
def pupil(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pupil") / "p"
    return train(Job(pupil_recipe(epochs=2), data, out, device="cpu", teacher=teacher), quiet)


def test_shipped_teacher_and_pupil_share_data_views_and_variation() -> None:
    """Else the pupil would be taught on what the teacher has never seen."""
    teacher, edge = load_recipe("teacher"), load_recipe("edge")
    assert (teacher.view, teacher.data, teacher.fields, teacher.augment) == (edge.view, edge.data, edge.fields, edge.augment)
    assert teacher.size == edge.size and edge.distill is not None


def test_a_teacher_run_is_recorded_and_repeats(teacher: Path, data: Path, tmp_path: Path) -> None:
    facts = json.loads((teacher / "run.json").read_text("utf-8"))
    assert facts["architecture"] is None and facts["finished"] and parse_recipe(facts["recipe"]) == teacher_recipe()
    assert [row["epoch"] for row in rows_of(teacher)] == [1, 2]
    again = Job(teacher_recipe(), data, tmp_path / "again", max_minutes=1e-9, device="cpu")
    train(again, quiet)  # stopped after one update
    train(replace(again, resume=True, max_minutes=math.inf), quiet)
    assert [row["loss"] for row in rows_of(again.out)] == [row["loss"] for row in rows_of(teacher)]
    with np.load(teacher / "weights.npz") as a, np.load(again.out / "weights.npz") as b:
        assert all((a[name] == b[name]).all() for name in a.files)
        assert any("running_mean" in name for name in a.files)


def test_a_loaded_teacher_answers_as_the_record_says(teacher: Path, data: Path) -> None:
    cells = load_cells(teacher_recipe(), data, 3, 0)
    loaded, about = load_teacher(teacher, cells, pupil_recipe(), 3)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    views = (torch.from_numpy(cells.views).float() / 255 - torch.from_numpy(cells.mean)) / torch.from_numpy(cells.std)
    (logits,), state = loaded(views)
    right = logits.argmax(1).numpy() == cells.view_labels
    assert float(right.mean()) == pytest.approx(about["selected"]["validation_accuracy"])
    assert state.abs().max() == 0
    loaded.train()
    with torch.no_grad():
        alone = loaded.eval()(views[:1])[0][0]
    assert torch.allclose(alone, logits[:1], atol=1e-4)  # no cell's answer hangs on its neighbours


def test_the_pupil_says_who_taught_it(pupil: Path, teacher: Path) -> None:
    taught = read_run(pupil).facts["taught_by"]
    assert taught["recipe"]["name"] == "tiny-teacher" and taught["epochs_done"] == 2 and len(taught["weights_sha256"]) == 64
    with pytest.raises(UsageError, match="holds a teacher, which no board runs"):
        read_run(teacher)


def test_what_the_teacher_says_is_part_of_the_loss() -> None:
    logits, said = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.0, 1.0, 0.5]])
    allowed, options = torch.tensor([[False, False, True]]), tiny_recipe().train
    options = replace(options, exit_weight=0.5)
    label, told = answer_loss(logits, allowed, options), divergence(logits, said)
    state = torch.zeros(1, 2, 2, 4)
    assert objective([logits], state, allowed, None, options, (0.7, said)).item() == pytest.approx(
        (0.3 * label + 0.7 * told).item()
    )
    assert objective([logits, logits], state, allowed, None, options, (1.0, said)).item() == pytest.approx((1.5 * told).item())


@pytest.mark.parametrize("changed", ["no distill", "an automaton", "fold", "view_um", "view size", "nothing there"])
def test_a_teacher_that_does_not_fit_is_refused(teacher: Path, pupil: Path, data: Path, tmp_path: Path, changed: str) -> None:
    recipe, job_fold, given = pupil_recipe(), 3, teacher
    what = {"fold": "fold", "view_um": "view_um", "view size": "view size"}
    said = f"another .*{what[changed]}" if changed in what else "holds no teacher"
    if changed == "no distill":
        recipe, said = tiny_recipe(), "has no table distill"
    elif changed == "an automaton":
        given = pupil
    elif changed == "fold":
        job_fold = 2
    elif changed == "view_um":
        recipe = replace(recipe, view=replace(recipe.view, view_um=8.0))
    elif changed == "view size":
        recipe = replace(recipe, model=replace(recipe.automaton, grid=4))
    else:
        given = tmp_path / "nothing"
    with pytest.raises(UsageError, match=said):
        train(Job(recipe, data, tmp_path / "run", fold=job_fold, device="cpu", teacher=given), quiet)


def test_without_a_teacher_the_labels_alone_teach_and_that_is_said(data: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    recipe = pupil_recipe(epochs=1)
    out = train(Job(recipe, data, tmp_path / "run", device="cpu"), heard.append)
    assert any(text.startswith("learning from the labels alone") for text in heard)
    plain = train(Job(replace(recipe, distill=None), data, tmp_path / "plain", device="cpu"), quiet)
    assert [row["loss"] for row in rows_of(out)] == [row["loss"] for row in rows_of(plain)]


def test_a_resume_with_another_teacher_is_refused(teacher: Path, data: Path, tmp_path: Path) -> None:
    job = Job(pupil_recipe(epochs=1), data, tmp_path / "run", max_minutes=1e-9, device="cpu", teacher=teacher)
    train(job, quiet)
    other = tmp_path / "other"
    train(Job(replace(teacher_recipe(), train=replace(teacher_recipe().train, epochs=1)), data, other, device="cpu"), quiet)
    with pytest.raises(UsageError, match="was trained with another --teacher"):
        train(replace(job, resume=True, teacher=other), quiet)
