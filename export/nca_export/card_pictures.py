"""Pictures of a model card: what is confused, what being unsure buys, and the worst mistakes themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from nca_edge.camera import read_image
from nca_edge.classifier import ModelChoice, load
from nca_edge.errors import UsageError
from nca_edge.labelled import LabelledImage, fold_of, half, read_labelled
from nca_edge.pipeline import ARTEFACT
from nca_edge.single_cell import read_crop
from nca_train.plots import BLUE, GREY, ORANGE, confusion, house_style, new_figure, spoken

SHOWN = 12
"""Mistakes on the sheet at most."""
OF_EACH = 2
"""Of one confusion."""
COLUMNS = 4
WIDTH = 150
"""Of the attribution below the sheet, characters."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A cell of half b that was given another name than its label."""

    file: Path
    truth: str
    answer: str
    confidence: float
    unsure: bool


def find_mistakes(bundle: Path, data: Path, training: dict[str, Any], tell: Callable[[int, int], None]) -> list[Mistake]:
    """Read every white cell of half b of the validation fold as the device does.

    Parameters
    ----------
    bundle : its folder
    data : the labelled images that the model was trained on
    training : of the bundle's manifest; its recipe says how they are read
    tell : images done, images in all

    Raises
    ------
    UsageError
        These are not the cells that the bundle was measured on.
    InputError
        An image cannot be read.
    """
    classifier = load(ModelChoice(str(bundle.resolve())))
    manifest, recipe = classifier.bundle.manifest, training["recipe"]["data"]
    known = set(manifest.classes) - {ARTEFACT}
    cells = [
        (image, label)
        for image in _reported(data, recipe["exclude"], training["fold"])
        if (label := recipe["map"].get(image.label, image.label)) in known
    ]
    measured = manifest.metrics["white_cells"]["n"]
    if len(cells) != measured:
        raise UsageError(
            f"--data {data}: half b of fold {training['fold']} has {len(cells)} white cells, and the model was measured on "
            f"{measured}; give the data that it was exported with."
        )
    mistakes = []
    for done, (image, label) in enumerate(cells, start=1):
        file = data / image.file
        said = read_crop(read_image(file), classifier, recipe["um_per_px"], explain=False).prediction
        if said.label != label:
            mistakes.append(Mistake(file, label, said.label, said.confidence, said.unsure))
        tell(done, len(cells))
    return mistakes


def _reported(data: Path, exclude: list[str], fold: int) -> list[LabelledImage]:
    listed = [image for image in read_labelled(data) if image.label not in exclude]
    no_folds = all(image.fold is None for image in listed)
    return [i for i in listed if (fold_of(i.file) if no_folds else i.fold) == fold and half(i.file) == "b"]


def choose(mistakes: Sequence[Mistake], frequent: Sequence[tuple[str, str]]) -> list[Mistake]:
    """The most confident mistakes, two of each of the most frequent confusions, twelve at most."""
    worst = sorted(mistakes, key=lambda m: (-m.confidence, m.file))
    return [m for pair in frequent for m in [w for w in worst if (w.truth, w.answer) == pair][:OF_EACH]][:SHOWN]


def confusion_picture(where: str, white: dict[str, Any]) -> Figure:
    """The confusion matrix of ``Evaluation.to_json``."""
    table = np.array(white["confusion"], np.int64)
    truth, answers = (np.repeat(index.ravel(), table.ravel()) for index in np.indices(table.shape))
    return confusion(where, tuple(white["labels"]), truth, answers)


def coverage_picture(where: str, white: dict[str, Any], unsure_below: float) -> Figure:
    """Accuracy of the most confident answers against their share of all; ringed: where the model begins to be unsure."""
    shares, right, _ = 100 * np.array(white["accuracy_coverage"]).T
    with house_style():
        figure = new_figure(6.4, 3.6)
        axes = figure.add_subplot()
        axes.plot(shares, right, "o-", color=BLUE)
        lowest = min(right)
        if white["accuracy_when_sure"] is not None:
            x, y = 100 * white["coverage"], 100 * white["accuracy_when_sure"]
            axes.plot([x, x], [0, y], ":", color=GREY, linewidth=1, zorder=0)
            axes.plot([x], [y], "o", markersize=11, markerfacecolor="none", markeredgewidth=1.6, color=ORANGE)
            left = x > 50  # the words stand where there is room
            axes.annotate(
                f"unsure below {unsure_below:g}:\n{x:.1f} % answered,\n{y:.1f} % of these right",
                (x, 0.05), xycoords=("data", "axes fraction"), xytext=(-6 if left else 6, 0), textcoords="offset points",
                ha="right" if left else "left", va="bottom", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            lowest = min(lowest, y)
        axes.set_ylim(max(0.0, lowest - 0.35 * (100 - lowest) - 2), 100 + 0.06 * (100 - lowest) + 0.2)
        axes.set_xlim(0, 102)
        percent = FuncFormatter(lambda value, _: f"{value:g} %")
        axes.xaxis.set_major_formatter(percent)
        axes.yaxis.set_major_formatter(percent)
        axes.set_xlabel("cells answered, the most confident first")
        axes.set_ylabel("right among these")
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        figure.suptitle(f"{where}: what being unsure buys, n = {white['n']:,}", x=0.02, ha="left", fontsize=10, weight="bold")
    return figure


def sheet(where: str, mistakes: Sequence[Mistake], attribution: str) -> Figure:
    """The raw images of some mistakes; below each what it is labelled and what was answered, below all whose images they are.

    Parameters
    ----------
    mistakes : at least one
    """
    rows = -(-len(mistakes) // COLUMNS)
    below = textwrap.wrap(attribution, WIDTH)
    room = 0.4 + 0.13 * len(below)
    with house_style():
        height = 2.45 * rows + 0.5 + room
        figure = new_figure(2.1 * COLUMNS, height)
        figure.set_layout_engine("constrained", rect=(0, room / height, 1, 1 - room / height), w_pad=0.12, h_pad=0.08)
        grid = figure.add_gridspec(rows, COLUMNS)
        for place, mistake in enumerate(mistakes):
            _crop(figure.add_subplot(grid[place // COLUMNS, place % COLUMNS]), mistake)
        figure.suptitle(f"{where}: wrong and confident", x=0.02, ha="left", fontsize=10, fontweight="bold")
        figure.text(0.015, 0.3 / height, "\n".join(below), fontsize=7.5, color=GREY, va="bottom")
    return figure


def _crop(axes: Axes, mistake: Mistake) -> None:
    axes.imshow(read_image(mistake.file))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    truth, answer = spoken((mistake.truth, mistake.answer))
    unsure = " (unsure)" if mistake.unsure else ""
    axes.set_xlabel(f"labelled: {truth}\nanswered: {answer}\n{100 * mistake.confidence:.1f} % confident{unsure}", fontsize=8)
