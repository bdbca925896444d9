"""Pictures of runs: how one learnt, what it confuses, how often it finds each class; what channels buy over several.

Figures are built without pyplot: its global state would keep every figure of a long run alive and pick a window system.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from nca_edge import RESEARCH_USE
from nca_edge.differential import ARTEFACT, clopper_pearson
from nca_train.store import replace

if TYPE_CHECKING:
    from nca_train.table import Row

CURVES = "curves.png"
CONFUSION = "confusion.png"
RECALL = "recall.png"
DPI = 150
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
"""Okabe and Ito's colours, which all kinds of colour vision tell apart."""
SHARES = "magma_r"
"""Perceptually uniform, and pale where nothing is: a confusion matrix is mostly empty."""
FIGURE_SPACE = "\u2007"
"""As wide as a digit: columns of numbers line up."""

History = list[dict[str, Any]]
"""Rows of ``metrics.jsonl``."""
Labels = NDArray[np.int64]


def draw_run(
    folder: Path, history: History, classes: tuple[str, ...], truth: Labels, answers: Labels, selected: dict[str, Any] | None
) -> None:
    """Write ``curves.png``, and with a selected epoch ``confusion.png`` and ``recall.png``, into the run folder.

    Parameters
    ----------
    history : at least one epoch
    truth : (m,) class index of each validation cell
    answers : (m,) what the selected epoch's weights said of it; of another length, they are of other cells and not drawn
    selected : the selected epoch's row of ``history``; None: there is none, nor an answer

    Raises
    ------
    StorageError
        The folder cannot be written; the old pictures are still there.
    """
    pictures = {CURVES: png(curves(history, selected))}
    if selected is not None and len(answers) == len(truth) > 0:
        where = f"Validation cells{' and artefacts' if ARTEFACT in classes else ''}, epoch {selected['epoch']}"
        pictures[CONFUSION] = png(confusion(where, classes, truth, answers))
        pictures[RECALL] = png(recalls(where, classes, truth, answers))
    for name, data in pictures.items():
        replace(folder / name, lambda path, data=data: path.write_bytes(data))  # type: ignore[misc]


@contextmanager
def house_style() -> Iterator[None]:
    """The same picture on every workstation, whatever its owner's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.titleweight": "bold",
            "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.axisbelow": True,
            "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": "black", "ytick.labelcolor": "black",
            "legend.frameon": False, "lines.linewidth": 1.6, "lines.markersize": 4,
            "text.parse_math": False,  # a class may be named with a dollar sign
        })  # fmt: skip
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, with the line that belongs on everything a person reads."""
    figure = Figure((width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", rect=(0, 0.25 / height, 1, 1 - 0.25 / height), w_pad=0.12, h_pad=0.08)
    figure.text(0.12 / width, 0.1 / height, RESEARCH_USE, fontsize=7.5, color=GREY)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a file's bytes."""
    stream = io.BytesIO()
    with house_style():
        figure.savefig(stream, format="png")
    return stream.getvalue()


def curves(history: History, selected: dict[str, Any] | None) -> Figure:
    """Loss and accuracies against the epoch; below them the learning rate and the largest state value."""
    with house_style():
        figure = new_figure(7, 7.2)
        grid = figure.add_gridspec(3, 2, height_ratios=(3, 3, 1.6))
        loss, accuracy = figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, :])
        rate, state = figure.add_subplot(grid[2, 0]), figure.add_subplot(grid[2, 1])
        epochs = [row["epoch"] for row in history]
        _line(loss, epochs, [row["loss"] for row in history], BLUE, "Training loss")
        everything = [100 * row["validation_accuracy"] for row in history]
        _line(accuracy, epochs, [100 * row["validation_cell_accuracy"] for row in history], BLUE, "Validation accuracy, %")
        accuracy.plot(epochs, everything, "s--", color=ORANGE)
        names = dict(zip(accuracy.get_lines(), ("white cells", "all, artefacts included"), strict=True))
        accuracy.legend(names.keys(), names.values(), loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
        _line(rate, epochs, [row["learning_rate"] for row in history], GREEN, "Learning rate")
        decades(rate, [row["learning_rate"] for row in history])
        _line(state, epochs, [row["state_largest"] for row in history], GREEN, "Largest state value")
        state.set_ylim(0, 1.1 * max(row["state_largest"] for row in history) or 1)
        accuracy.margins(y=0.18)  # room for the words below the points
        for axes in (rate, state):
            axes.set_xlabel("epoch")
        for axes in figure.axes:
            _epoch_axis(axes, epochs, selected)
        if selected is not None:
            _name_selected(accuracy, selected, middle=(epochs[0] + epochs[-1]) / 2)
    return figure


def _line(axes: Axes, epochs: list[int], values: list[float], color: str, title: str) -> None:
    axes.plot(epochs, values, "o-", color=color)
    axes.set_title(title)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)


def decades(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis with at least one decade on it, where the values allow one."""
    if min(values) <= 0:  # a fast decay ends in an exact 0
        return
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    axes.set_yscale("log")
    axes.set_ylim(0.8 * 10.0**low, 1.25 * 10.0 ** max(high, low + 1))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _epoch_axis(axes: Axes, epochs: list[int], selected: dict[str, Any] | None) -> None:
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if selected is not None:
        axes.axvline(selected["epoch"], color=GREY, linewidth=1, linestyle=":", zorder=0)


def _name_selected(axes: Axes, selected: dict[str, Any], middle: float) -> None:
    """Ring the selected epoch's accuracy and say its number, on the side where there is room."""
    epoch, value = selected["epoch"], 100 * selected["validation_cell_accuracy"]
    axes.plot([epoch], [value], "o", markersize=10, markerfacecolor="none", color=BLUE)
    left = epoch > middle
    text = f"selected: epoch {epoch}, {value:.1f} % of the white cells"
    axes.annotate(
        text, (epoch, 0.04), xycoords=("data", "axes fraction"), xytext=(-6 if left else 6, 0), textcoords="offset points",
        ha="right" if left else "left", va="bottom", color=GREY,
    )  # fmt: skip


def counts(classes: tuple[str, ...], truth: Labels, answers: Labels) -> NDArray[np.int64]:
    """(classes, classes) cells by true class (row) and answer (column)."""
    table = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(table, (truth, answers), 1)
    return table


def spoken(classes: tuple[str, ...]) -> list[str]:
    """Class names as a person writes them."""
    return [name.replace("_", " ") for name in classes]


def _scored(where: str, table: NDArray[np.int64]) -> str:
    """The title of a picture of these counts: accuracy, its 95 % interval, n."""
    right, n = int(table.trace()), int(table.sum())
    low, high = clopper_pearson(right, n)
    return f"{where}: accuracy {100 * right / n:.1f} % ({100 * low:.1f} - {100 * high:.1f}), n = {n:,}"


def confusion(where: str, classes: tuple[str, ...], truth: Labels, answers: Labels) -> Figure:
    """The confusion matrix: colours are shares of the labelled class, numbers are cells; grey: no cells."""
    table = counts(classes, truth, answers)
    totals = table.sum(1)
    shares = np.ma.masked_array(table / np.maximum(totals, 1)[:, None], table == 0)
    with house_style():
        side = 0.48 * len(classes)
        figure = new_figure(max(side + 3.2, 6.4), max(side + 2.0, 3.6))
        axes = figure.add_subplot()
        image = axes.imshow(shares, matplotlib.colormaps[SHARES].with_extremes(bad="white"), vmin=0, vmax=1)
        for row in np.flatnonzero(totals == 0).tolist():
            axes.axhspan(row - 0.5, row + 0.5, color="#e4e4e4", zorder=1)
        for (row, column), count in np.ndenumerate(table):
            if totals[row] and (count or row == column):  # zeros beside the diagonal only hide the errors
                ink = "white" if count > 0.45 * totals[row] else "black"
                axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color=ink)
        named = [f"{name}  ({f'{n:,}' if n else 'no cells'})" for name, n in zip(spoken(classes), totals.tolist(), strict=True)]
        axes.set_yticks(range(len(classes)), named)
        axes.set_xticks(range(len(classes)), spoken(classes), rotation=45, ha="right", rotation_mode="anchor")
        edges = np.arange(len(classes) + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="#e4e4e4", linewidth=0.6)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_ylabel("labelled as  (n)")
        axes.set_xlabel("answered")
        figure.suptitle(_scored(where, table), x=0.02, ha="left", fontsize=10, fontweight="bold")
        percent = FuncFormatter(lambda value, _: f"{100 * value:.0f} %")
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, format=percent)
        bar.outline.set_visible(False)
        bar.set_label("share of the labelled class")
    return figure


def recalls(where: str, classes: tuple[str, ...], truth: Labels, answers: Labels) -> Figure:
    """Recall of each class with its 95 % Clopper-Pearson interval, in the order of the confusion matrix."""
    table = counts(classes, truth, answers)
    wide = len(f"{table.sum(1).max():,}")
    with house_style():
        figure = new_figure(7, 1.4 + 0.32 * len(classes))
        axes = figure.add_subplot()
        for place, n in enumerate(table.sum(1).tolist()):
            right = int(table[place, place])
            if not n:
                axes.text(1, place, "no validation cells", va="center", color=GREY)
                continue
            share, (low, high) = 100 * right / n, clopper_pearson(right, n)
            axes.barh(place, share, height=0.62, color="#7fb8d8")
            reach = [[share - 100 * low], [100 * high - share]]
            axes.errorbar(share, place, xerr=reach, color="black", elinewidth=1.1, capsize=3, clip_on=False)
            told = f"{share:{FIGURE_SPACE}>5.1f} %   n = {n:{FIGURE_SPACE}>{wide},}   ({100 * low:.1f} - {100 * high:.1f})"
            axes.text(1.03, place, told, transform=axes.get_yaxis_transform(), va="center")
        axes.set_yticks(range(len(classes)), spoken(classes))
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("recall, % of the cells labelled as this class; whiskers: 95 % interval")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        figure.suptitle(_scored(where, table), x=0.02, ha="left", fontsize=10, fontweight="bold")
    return figure


def channels_figure(table: Sequence[Row]) -> Figure:
    """Accuracy against channels, one point a row and test set with its deviation; below it the work for one cell."""
    sets = list(dict.fromkeys(test.name for row in table for test in row.tested))
    colours, markers = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9"), "os^Dv"
    channels = sorted({row.architecture.channels for row in table})
    with house_style():
        figure = new_figure(6.4, 5.2)
        accuracy, work = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        named = len({row.runs[0].name for row in table}) > 1 or len(table) > len(channels)
        for row in table:
            same = [other for other in table if other.architecture.channels == row.architecture.channels]
            # Beside each other: deviations that lie on one line cannot be told apart.
            middle = row.architecture.channels * 2 ** (0.2 * (same.index(row) - (len(same) - 1) / 2))
            for test in row.tested:
                place = sets.index(test.name)
                x = middle * 2 ** (0.05 * (place - (len(sets) - 1) / 2))
                spread = None if test.deviation is None else 100 * test.deviation
                colour, marker = colours[place % 5], markers[place % 5]
                accuracy.errorbar(x, 100 * test.mean, yerr=spread, fmt=marker, color=colour, markersize=6, capsize=3)
            work.plot(middle, row.architecture.macs / 1e9, "o", color=GREY)
            if named:
                at = accuracy.get_xaxis_transform()
                accuracy.text(middle, 0.02, row.label, transform=at, rotation=90, ha="center", fontsize=7, color=GREY)
        handles = [accuracy.plot([], [], markers[i % 5], color=colours[i % 5], markersize=6)[0] for i in range(len(sets))]
        figure.legend(handles, sets, loc="outside upper left", ncols=2)
        accuracy.margins(y=0.35 if named else 0.08)
        accuracy.set_ylabel("accuracy, %\n(mean ± standard deviation)")
        work.set_ylabel("GMAC a cell")
        work.set_xlabel("channels")
        decades(work, [row.architecture.macs / 1e9 for row in table])
        for axes in (accuracy, work):
            axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        work.set_xscale("log", base=2)
        work.set_xlim(channels[0] / math.sqrt(2), channels[-1] * math.sqrt(2))
        work.set_xticks(channels)
        work.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        work.xaxis.set_minor_locator(NullLocator())
    return figure
