"""What explaining a cell from several looks brings: top channels that stay when it is turned, deletion, where peaks lie.

Usage: python -m tests.benchmarks.looks --data DIR/acevedo20 [--fold 3a] [--model NAME|DIR] [--every N] [--json FILE]
Half 3a chooses how many looks `classify --explain` takes and how the top channels are chosen (by expected relevance, or by the
relevance itself, for comparison); `explanations.py` reports on half 3b. A look at a turned view is one
of the eight looks at the view itself, so that eight looks a cell tell all of it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge import explain
from nca_edge.automaton import pool
from nca_edge.camera import read_image
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.crops import _of_fold
from nca_edge.explain import TOP_CHANNELS, Question, Relevance, mean_relevance, strongest
from nca_edge.explainer import relevances
from nca_edge.faithful import ORDERS, Case, Head, area, curves, overlap
from nca_edge.labelled import read_labelled
from nca_edge.measure import CELL, peak_touches
from nca_edge.passes import TURNS, Look, turned
from nca_edge.records import ChannelRelevance, Explanation
from nca_edge.single_cell import read_crop
from nca_edge.trust import channel_means
from tests.benchmarks.explanations import LEFT_OUT, UM_PER_PX

WAYS: dict[str, tuple[int, ...]] = {"1": (0,), "answer": (), "2": (0, 1), "4": (0, 1, 2, 3), "8": tuple(range(8))}
"""Name -> numbers of the looks, as ``passes.TURNS`` counts them; ``answer``: those that a session has."""
SWAYS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
"""Values of ``explain.SWAY`` that are tried."""
PAIRS = 20_000
"""Pairs of cells that are compared."""
BY = 1.5
"""Grid cells beside the outline within which a peak is one of the outline: most channels there are bright along it."""


def composed() -> list[list[int]]:
    """[a][b]: which look at a view is look b at what look a sees."""
    image = np.arange(25).reshape(1, 5, 5, 1)
    seen = [turned(image, n).tobytes() for n in range(len(TURNS))]
    return [[seen.index(turned(turned(image, a), b).tobytes()) for b in range(len(TURNS))] for a in range(len(TURNS))]


Choose = Callable[[list[Relevance]], NDArray[np.int64]]
"""Relevance in each look -> the top channels."""


def top(each: list[Relevance]) -> NDArray[np.int64]:
    """The top channels as explanations choose them."""
    return strongest(mean_relevance(each))[:TOP_CHANNELS]


def by_relevance(each: list[Relevance]) -> NDArray[np.int64]:
    """Those of largest absolute relevance."""
    return np.argsort(-np.abs(mean_relevance(each).channels), kind="stable")[:TOP_CHANNELS]


CHOICES: dict[str, Choose] = {"expected": top, "relevance": by_relevance}


def between(channel: ChannelRelevance, mask: NDArray[np.uint8]) -> bool:
    """Whether the maximum of a parabola through the winner and its neighbours, between grid cells, lies in the mask."""
    px, grid, at = len(mask) / len(channel.map), len(channel.map), []
    row, column = (int(value / px) for value in (channel.peak[1], channel.peak[0]))
    for place, line in ((row, channel.map[:, column]), (column, channel.map[row])):
        shift = 0.0
        if 0 < place < grid - 1:
            before, here, after = (float(value) for value in line[place - 1 : place + 2])
            bend = before - 2 * here + after
            shift = float(np.clip((before - after) / 2 / bend, -0.5, 0.5)) if bend < 0 else 0.0
        at.append(min(int((place + 0.5 + shift) * px), len(mask) - 1))
    return bool(mask[at[0], at[1]] >= CELL)


class Table:
    """Sums over cells."""

    def __init__(self, classifier: Classifier) -> None:
        m = classifier.bundle.manifest
        self.classifier, self.composed = classifier, composed()
        self.head = Head(classifier.bundle.weights, m.temperature, channel_means(classifier)[0])
        self.rng = np.random.default_rng(0)
        self.stays: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self.lists: dict[tuple[str, str], list[NDArray[np.int64]]] = defaultdict(list)
        self.sways: dict[float, list[float]] = defaultdict(list)
        self.labels: list[str] = []
        self.curves = {way: np.zeros((2 * len(ORDERS), m.architecture.channels + 1)) for way in WAYS}
        self.peaks = {way: np.zeros(5) for way in WAYS}

    def add(self, all_looks: Look, crop: NDArray[np.float32], label: str) -> None:
        """Take all looks at one cell into account."""
        bundle = self.classifier.bundle
        target, kind = bundle.manifest.classes.index(label), bundle.manifest.architecture.pool
        each = relevances(bundle, all_looks, Question(label))
        pooled = np.stack([pool(state, kind) for state in all_looks.states])
        self.labels.append(label)
        self._sway(all_looks, label)
        for way, fixed in WAYS.items():
            numbers = fixed or self._answered(all_looks, 0)
            mine = [each[n] for n in numbers]
            for name, choose in CHOICES.items():
                first = choose(mine)
                self.lists[way, name].append(first)
                self.stays[way, name, "all_looks"].append(overlap(first, by_relevance(each)))
                for a in range(1, len(TURNS)):
                    others = [each[self.composed[a][n]] for n in fixed or self._answered(all_looks, a)]
                    self.stays[way, name, "flip" if TURNS[a][1] else "rotation"].append(overlap(first, choose(others)))
            mean = mean_relevance(mine)
            case = Case(pooled[list(numbers)], mean.channels, mean.expected, target)
            self.curves[way] += curves(case, self.head, self.rng)
            n = len(numbers)
            seen = Look(all_looks.each[:n], all_looks.states[:n], all_looks.mask_states[:n])
            self.peaks[way] += _inside(self.classifier.explain(seen, crop, Question(label)))

    def _answered(self, all_looks: Look, a: int) -> tuple[int, ...]:
        """Which looks answer where the cell lies as look ``a`` sees it."""
        passes = self.classifier.passes
        sure = self.classifier.confidence(all_looks.each[self.composed[a][0]]) >= passes.below
        return (0,) if sure else tuple(range(passes.most))

    def _sway(self, all_looks: Look, label: str) -> None:
        """How many of the top channels of the answer's looks are those of all looks' relevance, for other constants."""
        own = explain.SWAY
        for value in SWAYS:
            explain.SWAY = value
            each = relevances(self.classifier.bundle, all_looks, Question(label))
            mine = [each[n] for n in self._answered(all_looks, 0)]
            self.sways[value].append(overlap(top(mine), by_relevance(each)))
        explain.SWAY = own

    def rows(self) -> list[dict[str, Any]]:
        """One for each number of looks and each choice of the top channels."""
        out = []
        for way in WAYS:
            areas = [area(row) for row in self.curves[way]]
            touches, middles, parabola, rim, weight = self.peaks[way].tolist()
            for n, name in enumerate(CHOICES):
                changes = {
                    change: float(np.mean(self.stays[way, name, change])) for change in ("rotation", "flip", "all_looks")
                }
                row = {"looks": way, "chosen_by": name, **changes, **self._pairs(self.lists[way, name])}
                row |= {"deletion": areas[n] / areas[len(ORDERS) - 1]}
                row |= {"insertion": areas[len(ORDERS) + n] / areas[-1]}
                if name == "expected":
                    row |= {"inside": touches / weight, "center": middles / weight, "between_grid_cells": parabola / weight}
                    row |= {"center_misses_by_the_outline": rim / weight}
                out.append(row)
        return out

    def _pairs(self, lists: list[NDArray[np.int64]]) -> dict[str, float]:
        """Top channels that two cells drawn at random share: of one class, of two."""
        rng, shared = np.random.default_rng(0), {True: [0.0], False: [0.0]}
        for i, j in rng.integers(0, len(lists), (PAIRS, 2)):
            if i != j:
                shared[self.labels[i] == self.labels[j]].append(overlap(lists[i], lists[j]))
        return {
            "two_cells_of_a_class": float(np.mean(shared[True][1:] or 0)),
            "two_classes": float(np.mean(shared[False][1:] or 0)),
        }


def _inside(why: Explanation) -> NDArray[np.float64]:
    """Positive relevance: whose grid cell touches the mask, whose middle is in it, whose parabola peaks in it; whose middle is
    beside it by no more than ``BY`` grid cells; all."""
    from scipy import ndimage

    speaking = [c for c in why.top_channels if c.relevance > 0]
    if not why.mask.any():
        return np.zeros(5)
    beside = ndimage.distance_transform_edt(why.mask < CELL) * len(speaking[0].map) / len(why.mask) if speaking else why.mask
    kinds = []
    for c in speaking:
        middle = why.mask[c.peak[1], c.peak[0]] >= CELL
        by = beside[c.peak[1], c.peak[0]]
        kinds.append([peak_touches(c, why.mask), middle, between(c, why.mask), not middle and by <= BY, True])
    return np.array([c.relevance for c in speaking]) @ np.array(kinds, np.float64).reshape(-1, 5)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fold", default="3a")
    parser.add_argument("--model", help="name of a shipped bundle or a folder")
    parser.add_argument("--every", type=int, default=4, help="of the cells, every so many")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    classifier = load(ModelChoice(given.model, "onnx", "fp32", 1))
    table, known = Table(classifier), set(classifier.bundle.manifest.classes)
    listed = [i for i in _of_fold(read_labelled(given.data), given.fold) if i.label in known and i.label not in LEFT_OUT]
    chosen = listed[:: given.every]
    for n, image in enumerate(chosen, start=1):
        reading = read_crop(read_image(given.data / image.file), classifier, UM_PER_PX)
        if reading.shown is None:
            raise RuntimeError("read_crop explains unless told otherwise")
        (seen,) = classifier.look(reading.shown.view[None])
        crop = reading.shown.crop.astype(np.float32) / np.float32(255)
        table.add(classifier.look_again(seen, reading.shown.view, len(TURNS)), crop, reading.prediction.label)
        if n % 50 == 0:
            print(f"{n} of {len(chosen)}", flush=True)
    found = {
        "model": classifier.bundle.manifest.name, "manifest_sha256": classifier.bundle.sha256, "fold": given.fold,
        "n": len(chosen), "rows": table.rows(), "sway": {str(v): float(np.mean(kept)) for v, kept in table.sways.items()},
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
