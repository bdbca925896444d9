"""Repeated runs become rows: exact text, exact numbers, and a sentence for everything that cannot be summed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.errors import UsageError
from nca_train.plots import channels_figure
from nca_train.table import Row, differences, read_run, read_tested, rows, table_text
from tests.workstation.synthetic import tiny_recipe

ROOT = Path(__file__).parents[2]
MODEL = {"grid": 8, "fold": 2, "channels": 20, "hidden": 24, "steps": 4, "pool": "max", "update": "half-lattice", "head": 8}
"""With 3 classes 400 + 1464 + 480 + 168 + 27 = 2,539 parameters and 4 * 32 * 2280 + 160 + 24 = 292,024 MAC;
with 40 channels 800 + 2904 + 960 + 328 + 27 = 5,019 and 4 * 32 * 4560 + 320 + 24 = 584,024."""


def write_run(folder: Path, accuracy: float, seed: int = 0, channels: int = 20, **facts: Any) -> Path:
    """A run folder with the keys of ``run.json`` that are read."""
    model = {**MODEL, "channels": channels}
    plain = {
        "recipe": {**tiny_recipe().to_json(), "model": model}, "architecture": {**model, "classes": 3}, "begun_from": None,
        "seed": seed, "fold": 3, "finished": True, "training_minutes": 10.0 + seed,
        "selected": {"epoch": 5, "validation_cell_accuracy": accuracy, "validation_accuracy": 0.99},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**plain, **facts}), "utf-8")
    return folder


def write_evaluation(path: Path, accuracy: object) -> Path:
    """The part of ``nca-edge evaluate --json`` that is read."""
    path.write_text(json.dumps({"model": "tiny", "n": 40, "accuracy": accuracy}), "utf-8")
    return path


def summed(*folders: Path, tested: list[str] | None = None) -> tuple[Row, ...]:
    """What the program makes of them."""
    runs = [read_run(folder) for folder in folders]
    return rows(runs, read_tested(tested or [], runs))


def call(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program as a user starts it, with warnings as errors."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "train"))), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-W", "error", "-m", "nca_train.table", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_table_json_and_figure_of_two_rows(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.80, 0.82, 0.87)):
        write_run(tmp_path / f"a{seed}", accuracy, seed)
    write_run(tmp_path / "b", 0.9, channels=40, finished=False)
    for name, accuracy in (("a0", 0.5), ("a1", 0.6), ("b", 0.75)):
        write_evaluation(tmp_path / f"{name}.json", accuracy)
    tested = [part for name in ("a0", "a1", "b") for part in ("--tested", f"chula={name}={name}.json")]
    done = call(tmp_path, "a0", "a1", "b", "a2", *tested, "--json", "out.json", "--figure", "out.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "recipe  channels  trained on  tested on                        accuracy, %   runs   parameters      GMAC  minutes\n"
        "tiny          20  drawn       validation half 3a, white cells   83.0 +- 3.6  n = 3       2,539  0.000292     11.0\n"
        "                              chula                             55.0 +- 7.1  n = 2\n"
        "tiny          40  drawn       validation half 3a, white cells   90.0         n = 1       5,019  0.000584     10.0\n"
        "                              chula                             75.0         n = 1\n"
        "\n"
        "accuracy: mean +- standard deviation (n - 1) over the runs; "
        "minutes: their mean, with those of the teacher and of the run each began from.\n"
        "A validation half selected the epochs of its runs: accuracy on it is optimistic.\n"
        "b: stopped early; counted with what it had learnt.\n"
        f"{RESEARCH_USE}\n"
    )
    document = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert document["notice"] == RESEARCH_USE and len(document["rows"]) == 2
    first, second = document["rows"]
    assert (first["recipe"], first["trained_on"], first["parameters"], first["minutes"]) == ("tiny", ["drawn"], 2539, 11.0)
    home, away = first["tested"]
    assert home["on"] == "validation half 3a, white cells" and home["accuracies"] == [0.80, 0.82, 0.87] and home["n"] == 3
    assert home["mean"] == pytest.approx(0.83) and home["deviation"] == pytest.approx(0.0013**0.5)
    assert away["on"] == "chula" and (away["mean"], away["deviation"]) == pytest.approx((0.55, 0.005**0.5))
    assert [t["deviation"] for t in second["tested"]] == [None, None]
    assert [(r["run"], r["seed"], r["finished"]) for r in first["runs"] + second["runs"]] == [
        ("a0", 0, True), ("a1", 1, True), ("a2", 2, True), ("b", 0, False),
    ]  # fmt: skip
    with Image.open(tmp_path / "out.png") as image:
        assert (image.format, image.size) == ("PNG", (960, 780))


def test_a_real_run_is_read(run: Path) -> None:
    (row,) = summed(run)
    facts = json.loads((run / "run.json").read_text("utf-8"))
    assert row.tested[0].accuracies == (facts["selected"]["validation_cell_accuracy"],)
    assert (row.label, row.runs[0].seed, row.runs[0].fold, row.runs[0].sources) == ("tiny", 3, 3, ("drawn",))
    assert row.architecture.to_json() == facts["architecture"]


def test_minutes_of_the_first_stage_count(tmp_path: Path) -> None:
    before = {"recipe": tiny_recipe(epochs=3).to_json(), "epochs_done": 3, "training_minutes": 7.5, "last": None}
    (row,) = summed(write_run(tmp_path / "a", 0.8, begun_from=before))
    assert row.minutes == 17.5
    taught_by = {"recipe": tiny_recipe(epochs=2).to_json(), "epochs_done": 2, "training_minutes": 4.0}
    (row,) = summed(write_run(tmp_path / "b", 0.8, begun_from=before, taught_by=taught_by))
    assert row.minutes == 21.5
    twice = write_run(tmp_path / "c", 0.8, begun_from={**before, "taught_by": taught_by}, taught_by=taught_by)
    assert summed(twice)[0].minutes == 21.5  # one teacher of both stages


def test_folds_are_repetitions_and_are_named(tmp_path: Path) -> None:
    (row,) = summed(write_run(tmp_path / "a", 0.8, fold=2), write_run(tmp_path / "b", 0.9, fold=0))
    assert row.tested[0].name == "validation half 0a, 2a, white cells" and row.tested[0].accuracies == (0.8, 0.9)


def test_another_recipe_of_the_same_name_is_another_row(tmp_path: Path) -> None:
    other = {**tiny_recipe(epochs=99).to_json(), "model": MODEL}
    table = summed(write_run(tmp_path / "a", 0.8), write_run(tmp_path / "b", 0.9, seed=1, recipe=other))
    assert [row.label for row in table] == ["tiny #1", "tiny #2"]
    assert differences(table) == ["tiny #1, tiny #2 differ in train.epochs."]
    assert "tiny #1, tiny #2 differ in train.epochs." in table_text(table).splitlines()


def test_figure_holds_one_point_a_row_and_set(tmp_path: Path) -> None:
    a, b, c = (write_run(tmp_path / n, v, s, ch) for n, v, s, ch in (("a", 0.8, 0, 20), ("b", 0.9, 1, 20), ("c", 0.7, 0, 40)))
    evaluation = write_evaluation(tmp_path / "e.json", 0.5)
    figure = channels_figure(summed(a, b, c, tested=[f"away={c}={evaluation}"]))
    accuracy, work = figure.axes
    points = [np.asarray(container[0].get_xydata())[0].tolist() for container in accuracy.containers]
    left, right = 2**-0.025, 2**0.025  # two test sets stand beside each other
    assert points == [pytest.approx(p) for p in ([20 * left, 85], [40 * left, 70], [40 * right, 50])]
    bars = [np.asarray(line.get_segments()[0])[:, 1] for line in accuracy.collections]  # type: ignore[attr-defined]
    assert len(bars) == 1 and bars[0] == pytest.approx([85 - 50**0.5, 85 + 50**0.5])
    assert [line.get_xydata().tolist() for line in work.get_lines()] == [  # type: ignore[union-attr]
        [[20, pytest.approx(292_024e-9)]], [[40, pytest.approx(584_024e-9)]],
    ]  # fmt: skip
    assert work.get_xscale() == "log" and list(work.get_xticks()) == [20, 40]
    assert RESEARCH_USE in [text.get_text() for text in figure.texts]


# --- what cannot be summed ----------------------------------------------------------------------------------------------


def test_wrong_use_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    done = call(tmp_path, "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nowhere: holds no training run (no run.json); give the folder that nca-edge train wrote.\n"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.8)
    done = call(tmp_path, "a", "--json", "gone/out.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gone/out.json: cannot be written (No such file or directory); choose another file.\n"


@pytest.mark.parametrize(
    "facts",
    [
        {"selected": {"epoch": 5, "validation_cell_accuracy": 83}},
        {"selected": {"epoch": 5, "validation_cell_accuracy": True}},
        {"selected": {"epoch": 5}},
        {"selected": 5},
        {"architecture": {"grid": 8}},
        {"architecture": {**MODEL, "classes": 0}},
        {"recipe": []},
        {"recipe": {"name": "x"}},
        {"begun_from": 1},
        {"fold": None},
    ],
)
def test_a_record_of_another_kind_is_refused(tmp_path: Path, facts: dict[str, Any]) -> None:
    folder = write_run(tmp_path / "a", 0.8, **facts)
    with pytest.raises(UsageError, match=r"a/run\.json: is not the record of a training run \(.+\); train again\.$"):
        read_run(folder)


def test_a_run_without_a_selected_epoch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no selected epoch; go on with --resume or leave it out"):
        read_run(write_run(tmp_path / "a", 0.8, selected=None))


def test_copies_are_no_repetitions(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", 0.8), write_run(tmp_path / "b", 0.8)
    with pytest.raises(UsageError, match=r"b repeats .*a: same recipe, seed and fold; leave one out"):
        summed(a, b)
    with pytest.raises(UsageError, match=r"a repeats .*a: same recipe, seed and fold; leave one out"):
        summed(a, a)


def test_an_evaluation_must_belong_to_a_run(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", 0.8)
    good = write_evaluation(tmp_path / "good.json", 0.5)
    for text in ("away", "away=a", f"away={a}=", f"={a}={good}"):
        with pytest.raises(UsageError, match=r"must be NAME=RUN=FILE\.json"):
            summed(a, tested=[text])
    with pytest.raises(UsageError, match="is none of the runs; give it as a RUN too"):
        summed(a, tested=[f"away={tmp_path / 'b'}={good}"])
    with pytest.raises(UsageError, match=r"away was given for .* already; leave one out"):
        summed(a, tested=[f"away={a}={good}"] * 2)


@pytest.mark.parametrize("accuracy", ["0.5", None, 50.0, float("nan")])
def test_an_evaluation_without_an_accuracy_is_refused(tmp_path: Path, accuracy: object) -> None:
    a, bad = write_run(tmp_path / "a", 0.8), write_evaluation(tmp_path / "bad.json", accuracy)
    with pytest.raises(UsageError, match="holds no evaluation"):
        summed(a, tested=[f"away={a}={bad}"])


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000, "\xff"])
def test_a_file_that_is_no_evaluation_is_refused(tmp_path: Path, content: str) -> None:
    a, bad = write_run(tmp_path / "a", 0.8), tmp_path / "bad.json"
    bad.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match="holds no evaluation"):
        summed(a, tested=[f"away={a}={bad}"])
