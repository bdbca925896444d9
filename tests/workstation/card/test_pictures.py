"""The pictures of the model card, and its figures as a person reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.text import Text

from nca_edge import RESEARCH_USE
from nca_edge.bundle import load_bundle
from nca_edge.labelled import read_labelled
from nca_export.card_pictures import Mistake, choose, coverage_picture, find_mistakes, sheet
from nca_export.card_table import percent, table
from nca_export.card_text import confusions, counted


def test_mistakes_are_the_cells_that_bear_a_wrong_label(bundle: Path, mislabelled: Path) -> None:
    manifest = load_bundle(bundle).manifest
    told: list[tuple[int, int]] = []
    found = find_mistakes(bundle, mislabelled, manifest.training, lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(1, 7)]
    assert sorted((m.truth, m.answer) for m in found) == [("basophil", "eosinophil")] + 2 * [("eosinophil", "basophil")]
    assert all(m.file.name.startswith(m.answer) and m.file.is_file() for m in found)  # files are named after what they show
    assert confusions(manifest.metrics["white_cells"]) == [(2, "eosinophil", "basophil"), (1, "basophil", "eosinophil")]


def test_two_of_each_confusion_are_shown_the_most_confident_first() -> None:
    def mistake(name: str, truth: str, answer: str, confidence: float) -> Mistake:
        return Mistake(Path(name), truth, answer, confidence, unsure=False)

    found = [mistake("a", "x", "y", 0.5), mistake("b", "x", "y", 0.9), mistake("c", "x", "y", 0.7), mistake("d", "y", "x", 0.6)]
    assert [m.file.name for m in choose(found, [("y", "x"), ("z", "x"), ("x", "y")])] == ["d", "b", "c"]
    pairs = [(str(n), "x") for n in range(9)]
    assert len(choose([mistake(f"{n}", truth, "x", 0.5) for truth, _ in pairs for n in range(3)], pairs)) == 12


@pytest.mark.parametrize("shown", [1, 5])
def test_attribution_stands_below_all_images(mislabelled: Path, shown: int) -> None:
    image = mislabelled / read_labelled(mislabelled)[0].file
    attribution = "Images: " + "A. Person, " * 30 + "Licence: CC BY 4.0"
    figure = sheet("Half b", [Mistake(image, "basophil", "neutrophil_segmented", 0.914, True)] * shown, attribution)
    figure.draw_without_rendering()
    words = " ".join(next(t for t in figure.texts if t.get_text().startswith("Images")).get_text().split())
    assert words == attribution
    captions = [axes.xaxis.label for axes in figure.axes]
    assert captions[0].get_text() == "labelled: basophil\nanswered: neutrophil segmented\n91.4 % confident (unsure)"
    notice, credit = figure.texts[0], next(t for t in figure.texts if t.get_text().startswith("Images"))
    assert notice.get_text() == RESEARCH_USE
    box = Text.get_window_extent
    assert len(figure.axes) == shown and 0 < box(notice).y0 < box(notice).y1 < box(credit).y0
    assert box(credit).y1 < min(box(caption).y0 for caption in captions)
    assert box(credit).x1 < figure.bbox.x1


def test_coverage_picture_marks_where_the_model_becomes_unsure() -> None:
    white = {"n": 40, "coverage": 0.8, "accuracy_when_sure": 0.95, "accuracy_coverage": [[0.5, 1.0, 0.9], [1.0, 0.875, 0.3]]}
    (axes,) = coverage_picture("Half b", white, 0.62).axes
    assert axes.get_lines()[0].get_xydata().tolist() == [[50, 100], [100, 87.5]]
    assert axes.get_lines()[-1].get_xydata().tolist() == [[80, 95]]
    assert [t.get_text() for t in axes.texts] == ["unsure below 0.62:\n80.0 % answered,\n95.0 % of these right"]
    (axes,) = coverage_picture("Half b", {**white, "coverage": 0.0, "accuracy_when_sure": None}, 1.0).axes
    assert len(axes.get_lines()) == 1 and not axes.texts


def test_figures_as_a_person_reads_them() -> None:
    assert (percent(0.8374), percent(None)) == ("83.7 %", "-")
    assert (counted(0, 0), counted(9, 9)) == ("no cells", "100.0 % (66.4 - 100.0), n = 9")
    assert table(("a|b",), [("c\nd",)]) == "| a\\|b |\n| --- |\n| c\\nd |"
