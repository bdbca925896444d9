"""What explaining a cell from several looks brings: top channels that stay when it is turned, deletion, where peaks lie.

Usage: python -m tests.benchmarks.looks --data DIR/acevedo20 [--fold 3a] [--model NAME|DIR] [--every N] [--json FILE]
Half 3a chooses how many looks `classify --explain` takes; `explanations.py` reports on half 3b. A look at a turned view is one
of the eight looks at the view itself, so that eight looks a cell tell all of it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import pool
from nca_edge.camera import read_image
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.crops import _of_fold
from nca_edge.explain import TOP_CHANNELS, Question, Relevance, mean_relevance
from nca_edge.explainer import relevances
from nca_edge.faithful import Case, Head, area, curves, overlap
from nca_edge.labelled import read_labelled
from nca_edge.measure import CELL, peak_touches
from nca_edge.passes import TURNS, Look, turned
from nca_edge.pipeline import read_crop
from nca_edge.records import ChannelRelevance, Explanation
from nca_edge.trust import channel_means
from tests.benchmarks.explanations import LEFT_OUT, UM_PER_PX

WAYS = {"1": (0,), "2": (0, 1), "4": (0, 1, 2, 3), "8": tuple(range(8))}
"""Name -> numbers of the looks, as ``passes.TURNS`` counts them."""


def composed() -> list[list[int]]:
    """[a][b]: which look at a view is look b at what look a sees."""
    image = np.arange(25).reshape(1, 5, 5, 1)
    seen = [turned(image, n).tobytes() for n in range(len(TURNS))]
    return [[seen.index(turned(turned(image, a), b).tobytes()) for b in range(len(TURNS))] for a in range(len(TURNS))]


def top(each: list[Relevance]) -> NDArray[np.int64]:
    """The strongest channels of the mean."""
    return np.argsort(-np.abs(mean_relevance(each).channels), kind="stable")[:TOP_CHANNELS]


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
        self.stays: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.curves = {way: np.zeros((6, m.architecture.channels + 1)) for way in WAYS}
        self.peaks = {way: np.zeros(4) for way in WAYS}

    def add(self, all_looks: Look, crop: NDArray[np.float32], label: str) -> None:
        """Take all looks at one cell into account."""
        bundle = self.classifier.bundle
        target, kind = bundle.manifest.classes.index(label), bundle.manifest.architecture.pool
        each = relevances(bundle, all_looks, Question(label))
        pooled = np.stack([pool(state, kind) for state in all_looks.states])
        for way, numbers in WAYS.items():
            mine = [each[n] for n in numbers]
            for a in range(1, len(TURNS)):
                other = [each[self.composed[a][n]] for n in numbers]
                self.stays[way, "flip" if TURNS[a][1] else "rotation"].append(overlap(top(mine), top(other)))
            case = Case(pooled[list(numbers)], mean_relevance(mine).channels, target)
            self.curves[way] += curves(case, self.head, self.rng)
            if numbers == tuple(range(len(numbers))):
                n = len(numbers)
                seen = Look(all_looks.each[:n], all_looks.states[:n], all_looks.mask_states[:n])
                self.peaks[way] += _inside(self.classifier.explain(seen, crop, Question(label)))

    def rows(self) -> list[dict[str, Any]]:
        """One for each number of looks."""
        out = []
        for way in WAYS:
            areas = [area(row) for row in self.curves[way]]
            touches, middles, parabola, weight = self.peaks[way].tolist()
            out.append({
                "looks": int(way), **{name: float(np.mean(self.stays[way, name])) for name in ("rotation", "flip")},
                "deletion": areas[0] / areas[2], "insertion": areas[3] / areas[5], "inside": touches / weight,
                "center": middles / weight, "between_grid_cells": parabola / weight,
            })  # fmt: skip
        return out


def _inside(why: Explanation) -> NDArray[np.float64]:
    """Positive relevance whose grid cell touches the mask, whose middle is in it, whose parabola peaks in it, and all."""
    speaking = [c for c in why.top_channels if c.relevance > 0]
    if not why.mask.any():
        return np.zeros(4)
    kinds = [[peak_touches(c, why.mask), why.mask[c.peak[1], c.peak[0]] >= CELL, between(c, why.mask), True] for c in speaking]
    return np.array([c.relevance for c in speaking]) @ np.array(kinds, np.float64).reshape(-1, 4)


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
        "n": len(chosen), "rows": table.rows(),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
