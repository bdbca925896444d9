"""The pictures of a run: what is drawn, what is said, and the cases with little to draw."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.differential import clopper_pearson
from nca_edge.errors import StorageError
from nca_train import plots

CLASSES = ("basophil", "neutrophil_band", "promyelocyte", "artefact")
TRUTH = np.array([0] * 10 + [1] * 4 + [3] * 1200, np.int64)
ANSWERS = np.array([0] * 8 + [1] * 2 + [0] * 4 + [3] * 1200, np.int64)
"""promyelocyte has no cells and is never answered; neutrophil_band is never right."""


def row(epoch: int, **values: float) -> dict[str, Any]:
    """An epoch as the loop writes it down."""
    plain = {
        "epoch": epoch, "loss": 2.0 / epoch, "validation_accuracy": 0.5 + epoch / 10,
        "validation_cell_accuracy": 0.4 + epoch / 10, "state_largest": 20.0 + epoch, "learning_rate": 10.0**-epoch,
        "images_per_s": 70.0, "seconds": 60.0 * epoch,
    }  # fmt: skip
    return {**plain, **values}


HISTORY = [row(1), row(2), row(3)]


def texts(figure: FigureBase) -> list[str]:
    """All that is written in a figure."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_three_pictures_of_150_dpi_are_written_whole(tmp_path: Path) -> None:
    plots.draw_run(tmp_path, HISTORY, CLASSES, TRUTH, ANSWERS, HISTORY[1])
    sizes = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG" and image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            sizes[path.name] = image.size
    assert sizes == {"curves.png": (1050, 1080), "confusion.png": (960, 588), "recall.png": (1050, 402)}


def test_the_same_run_gives_the_same_bytes_whatever_the_users_settings_are() -> None:
    first = plots.png(plots.curves(HISTORY, HISTORY[1]))
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "savefig.dpi": 30}):
        assert plots.png(plots.curves(HISTORY, HISTORY[1])) == first
        assert matplotlib.rcParams["font.size"] == 20  # and leaves them alone


@pytest.mark.parametrize("selected", [HISTORY[1], None])
def test_every_picture_says_research_use_only(selected: dict[str, Any] | None) -> None:
    figures = [
        plots.curves(HISTORY, selected),
        plots.confusion("x", CLASSES, TRUTH, ANSWERS),
        plots.recalls("x", CLASSES, TRUTH, ANSWERS),
    ]
    assert all(texts(figure).count(RESEARCH_USE) == 1 for figure in figures)


def test_curves_hold_the_rows_and_mark_the_selected_epoch() -> None:
    loss, accuracy, rate, state = plots.curves(HISTORY, HISTORY[1]).axes
    assert [axes.get_title("left") for axes in (loss, accuracy, rate, state)] == [
        "Training loss", "Validation accuracy, %", "Learning rate", "Largest state value",
    ]  # fmt: skip
    drawn = [np.asarray(axes.get_lines()[0].get_xydata()).tolist() for axes in (loss, rate, state)]
    assert drawn == [[[e, 2.0 / e] for e in (1, 2, 3)], [[e, 10.0**-e] for e in (1, 2, 3)], [[e, 20.0 + e] for e in (1, 2, 3)]]
    cells, everything = accuracy.get_lines()[:2]
    assert np.asarray(cells.get_ydata()) == pytest.approx([50, 60, 70])
    assert np.asarray(everything.get_ydata()) == pytest.approx([60, 70, 80])
    for axes in (loss, accuracy, rate, state):
        assert [2, 2] in [np.asarray(line.get_xdata()).tolist() for line in axes.get_lines()]
    assert "selected: epoch 2, 60.0 % of the white cells" in texts(accuracy.figure)


def test_every_point_lies_inside_its_panel() -> None:
    for history in (HISTORY, HISTORY[:1], [row(1, learning_rate=0.001, state_largest=3e38)], [row(1, learning_rate=0.0)]):
        figure = plots.curves(history, history[0])
        assert plots.png(figure)[:4] == b"\x89PNG"
        for axes in figure.axes:
            low, high = axes.get_ylim()
            assert all(low <= y <= high for y in np.asarray(axes.get_lines()[0].get_ydata()))
    rate = plots.curves([row(1, learning_rate=0.001)], None).axes[2]
    assert rate.get_yscale() == "log" and rate.get_ylim() == pytest.approx((0.0008, 0.0125))


def test_without_a_selected_epoch_there_are_only_curves(tmp_path: Path) -> None:
    plots.draw_run(tmp_path, HISTORY[:1], CLASSES, np.empty(0, np.int64), np.empty(0, np.int64), None)
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    assert not any("selected" in text for text in texts(plots.curves(HISTORY, None)))


def test_answers_of_other_cells_are_not_drawn(tmp_path: Path) -> None:
    plots.draw_run(tmp_path, HISTORY, CLASSES, TRUTH, ANSWERS[1:], HISTORY[1])
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_confusion_counts_and_shares() -> None:
    table = [[8, 2, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1200]]
    assert plots.counts(CLASSES, TRUTH, ANSWERS).tolist() == table
    axes = plots.confusion("Validation cells, epoch 2", CLASSES, TRUTH, ANSWERS).axes[0]
    shares = axes.images[0].get_array()
    assert isinstance(shares, np.ma.MaskedArray)
    assert shares.filled(0).tolist() == [[0.8, 0.2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "8", (1, 0): "2", (0, 1): "4", (1, 1): "0", (3, 3): "1,200"}
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "basophil  (10)", "neutrophil band  (4)", "promyelocyte  (no cells)", "artefact  (1,200)",
    ]  # fmt: skip
    assert [t.get_text() for t in axes.get_xticklabels()] == ["basophil", "neutrophil band", "promyelocyte", "artefact"]
    # 1208 of 1214
    assert "Validation cells, epoch 2: accuracy 99.5 % (98.9 - 99.8), n = 1,214" in texts(axes.figure)


def test_counts_can_be_read_on_their_colour() -> None:
    axes = plots.confusion("x", CLASSES, TRUTH, ANSWERS).axes[0]
    image = axes.images[0]
    shares = np.array([[0.8, 0.2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    for text in axes.texts:
        column, line = (int(v) for v in text.get_position())
        red, green, blue, _ = image.cmap(shares[line, column])
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert text.get_color() == ("black" if light > 0.5 else "white")


def test_recall_bars_and_exact_intervals() -> None:
    axes = plots.recalls("x", CLASSES, TRUTH, ANSWERS).axes[0]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in bars] == [(0, 80), (1, 0), (3, 100)]
    whiskers = [np.asarray(collection.get_segments()[0])[:, 0] for collection in axes.collections]  # type: ignore[attr-defined]
    for drawn, (right, n) in zip(whiskers, ((8, 10), (0, 4), (1200, 1200)), strict=True):
        assert drawn == pytest.approx([100 * end for end in clopper_pearson(right, n)])
    said = [text.get_text().replace(plots.FIGURE_SPACE, " ") for text in axes.texts]
    assert said == [
        " 80.0 %   n =    10   (44.4 - 97.5)", "  0.0 %   n =     4   (0.0 - 60.2)", "no validation cells",
        "100.0 %   n = 1,200   (99.7 - 100.0)",
    ]  # fmt: skip
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # in the order of the matrix, from above


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    plots.draw_run(tmp_path, HISTORY, ("a$x", "b$^$"), np.array([0, 1]), np.array([0, 0]), HISTORY[0])
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"curves\.png: cannot be written"):
        plots.draw_run(tmp_path / "gone", HISTORY, CLASSES, TRUTH, ANSWERS, HISTORY[1])


def test_neither_pyplot_nor_torch_is_loaded() -> None:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "train")))}
    program = "import sys, nca_train.plots; print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "[]\n"


def test_a_finished_run_has_its_pictures(run: Path) -> None:
    for name in (plots.CURVES, plots.CONFUSION, plots.RECALL):
        with Image.open(run / name) as image:
            assert image.format == "PNG"
    assert not list(run.glob("*.part"))
