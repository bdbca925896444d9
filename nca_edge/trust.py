"""`nca-edge evaluate --explanations`: how far a bundle's explanations can be trusted, cell by cell over labelled crops."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import pool
from nca_edge.classifier import Classifier, ModelChoice, from_8bit
from nca_edge.explain import Question, mean_relevance
from nca_edge.explainer import relevances
from nca_edge.faithful import ORDERS, Case, Head, area, curves
from nca_edge.measure import CELL, measured, peak_touches, rests_on_background
from nca_edge.passes import TURNS, Look
from nca_edge.records import Explanation
from nca_edge.single_cell import CropReading
from nca_edge.steady import CHANGES, Steadiness

LARGEST_MASK = 0.6
"""A mask that takes more of the view says little about where a peak lies."""
STABLE_CELLS = 200
"""Cells, evenly spread, on which changes are tried: each costs dozens of answers."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What was found."""

    n: int
    looks: float
    """Looks at a cell, mean: its answer and the explanation that a session keeps come from them."""
    baseline: str
    """Cells whose mean stands for a channel that is taken away: ``training cells`` or ``golden cells``."""
    deletion: dict[str, float]
    """Area under the curve of the class's probability: ``strongest_first`` (as explanations choose their ten),
    ``relevance_first`` (by absolute relevance), ``speaking_first`` (with its sign), ``random``; ``ratio``,
    ``ratio_relevance_first`` and ``ratio_speaking_first`` are the first three to random's."""
    insertion: dict[str, float]
    """The same when channels are put back."""
    curves: dict[str, tuple[float, ...]]
    """Mean curves of the deletion and insertion, over 0, 1, ... channels."""
    peaks: dict[str, float]
    """``inside``: share of the top channels' positive relevance that peaks in a grid cell which the mask touches; ``center``:
    whose middle is in the mask; ``mask``: mean share of the view that the mask takes; ``n`` cells, those with a mask that takes
    at most 60 % of it; ``no_mask`` cells without any, ``large`` with a larger one."""
    overlap: dict[str, float | None]
    """Share of the top channels that stay: ``rotation``, ``flip``, ``stain``, ``fire``, ``precision`` (fp32 against int8; None
    where there is only one), over ``n`` cells."""
    flagged: dict[str, float | None]
    """Cells that rest on the background: ``n``, the share of them that was named right, and the same of the ``others``."""
    several: dict[str, Any]
    """What ``classify --explain`` shows, from ``looks`` looks at each of the ``n`` cells on which changes were tried:
    ``deletion``, ``insertion``, ``peaks`` and ``overlap`` as above."""
    explain_ms: float
    """Median wall time of relevance, mask and measures of one cell."""
    explain_cpu_ms: float
    """The same in CPU time, which other programs lengthen less."""

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return asdict(self)


class Tally:
    """Sums of the curves, of the peaks and of what stays."""

    def __init__(self, channels: int) -> None:
        self.sums, self.seen, self.no_mask, self.large = np.zeros((2 * len(ORDERS), channels + 1)), 0, 0, 0
        self.peaks: list[tuple[float, float, float, float]] = []
        self.kept: dict[str, list[float]] = defaultdict(list)

    def add(self, rows: NDArray[np.float64], why: Explanation) -> None:
        """Take the curves and the peaks of one cell into account."""
        self.sums += rows
        self.seen += 1
        share = float((why.mask >= CELL).mean())
        if share == 0:
            self.no_mask += 1
        elif share > LARGEST_MASK:
            self.large += 1
        else:
            speaking = [c for c in why.top_channels if c.relevance > 0]
            inside = sum(c.relevance for c in speaking if peak_touches(c, why.mask))
            center = sum(c.relevance for c in speaking if why.mask[c.peak[1], c.peak[0]] >= CELL)
            self.peaks.append((inside, center, sum(c.relevance for c in speaking), share))

    def result(self) -> dict[str, Any]:
        """As ``Trust`` has them."""
        mean = self.sums / max(1, self.seen)
        areas = [area(row) for row in mean]
        inside, center, weight, masks = (sum(values) for values in zip(*self.peaks, strict=True)) if self.peaks else (0.0,) * 4
        names = [f"{kind}_{order}" for kind in ("deletion", "insertion") for order in ORDERS]
        return {
            "deletion": _ratios(areas[: len(ORDERS)]), "insertion": _ratios(areas[len(ORDERS) :]),
            "curves": {name: tuple(round(float(v), 4) for v in row) for name, row in zip(names, mean, strict=True)},
            "peaks": {
                "inside": inside / (weight or 1), "center": center / (weight or 1), "mask": masks / max(1, len(self.peaks)),
                "n": len(self.peaks), "no_mask": self.no_mask, "large": self.large,
            },
            "overlap": {name: float(np.mean(self.kept[name])) if self.kept[name] else None for name in CHANGES},
        }  # fmt: skip


class Auditor:
    """Is shown reading after reading, and sums up at the end.

    Parameters
    ----------
    every : changes are tried, and all looks taken, on every so many cells
    """

    def __init__(self, classifier: Classifier, choice: ModelChoice, every: int) -> None:
        self.classifier, self.every = classifier, max(1, every)
        m = classifier.bundle.manifest
        means, self.baseline = channel_means(classifier)
        self.head, self.rng = Head(classifier.bundle.weights, m.temperature, means), np.random.default_rng(0)
        self.steadiness = Steadiness(classifier, choice, self.rng)
        self.own, self.several = Tally(m.architecture.channels), Tally(m.architecture.channels)
        self.looks = 0
        self.flags: list[tuple[bool, bool]] = []
        self.times: list[tuple[float, float]] = []

    def add(self, reading: CropReading, right: bool) -> None:
        """Take one cell into account; ``right``: the model named it as its label says."""
        if reading.shown is None:
            raise RuntimeError("an explanation is needed")
        shown, why = reading.shown, reading.shown.explanation
        (seen,) = self.classifier.look(shown.view[None])
        self.looks += len(seen.states)
        if self.own.seen % self.every == 0:
            self._closely(reading, seen)
        self.own.add(curves(self._case(seen, why.label), self.head, self.rng), why)
        self.flags.append((rests_on_background(why.outside_share), right))

    def result(self) -> Trust:
        """Sum up; at least one cell was added."""
        own, several = self.own.result(), self.several.result()
        del several["curves"], several["overlap"]["fire"]
        return Trust(
            self.own.seen, self.looks / self.own.seen, self.baseline, own["deletion"], own["insertion"], own["curves"],
            own["peaks"], {**own["overlap"], "n": len(self.times)}, _flagged(self.flags),
            {"n": self.several.seen, "looks": len(TURNS), **several},
            1e3 * median(wall for wall, _ in self.times), 1e3 * median(cpu for _, cpu in self.times),
        )  # fmt: skip

    def _closely(self, reading: CropReading, seen: Look) -> None:
        """Time its explanation, try changes, and look at it in all ways."""
        shown, asked = reading.shown, Question(reading.prediction.label)
        if shown is None or asked.label is None:
            raise RuntimeError("an explanation is needed")
        crop = from_8bit(shown.crop)
        wall, cpu = time.perf_counter(), time.thread_time()
        again = self.classifier.explain(seen, crop, asked)
        measured(again, reading.scale, (len(crop) / 2, len(crop) / 2), crop.shape[:2])
        self.times.append((time.perf_counter() - wall, time.thread_time() - cpu))
        for every, name, share in self.steadiness.tried(shown.view, asked.label):
            (self.several if every else self.own).kept[name].append(share)
        seen = self.classifier.look_again(seen, shown.view, len(TURNS))
        rows = curves(self._case(seen, asked.label), self.head, self.rng)
        self.several.add(rows, self.classifier.explain(seen, crop, asked))

    def _case(self, seen: Look, label: str) -> Case:
        m = self.classifier.bundle.manifest
        relevance = mean_relevance(relevances(self.classifier.bundle, seen, Question(label)))
        pooled = np.stack([pool(state, m.architecture.pool) for state in seen.states])
        return Case(pooled, relevance.channels, relevance.expected, m.classes.index(label))


def channel_means(classifier: Classifier) -> tuple[NDArray[np.float64], str]:
    """(features,) mean of the pooled features over training cells, where the bundle keeps it, else over its golden cells."""
    m = classifier.bundle.manifest
    if m.channel_means is not None:
        return np.asarray(m.channel_means, np.float64), "training cells"
    states = classifier.answer(from_8bit(classifier.bundle.golden_views)).state
    return np.mean([pool(state, m.architecture.pool) for state in states], axis=0), "golden cells"


def _ratios(areas: list[float]) -> dict[str, float]:
    strongest, relevance, speaking, at_random = areas
    return {
        "strongest_first": strongest, "relevance_first": relevance, "speaking_first": speaking, "random": at_random,
        "ratio": strongest / at_random, "ratio_relevance_first": relevance / at_random,
        "ratio_speaking_first": speaking / at_random,
    }  # fmt: skip


def _flagged(flags: list[tuple[bool, bool]]) -> dict[str, float | None]:
    rights = {kind: [right for flag, right in flags if flag is kind] for kind in (True, False)}
    share = {kind: float(np.mean(values)) if values else None for kind, values in rights.items()}
    return {"n": len(rights[True]), "right": share[True], "others": len(rights[False]), "others_right": share[False]}


def trust_text(t: Trust) -> str:
    """The plain table for people."""
    percent: Callable[[float | None], str] = lambda v: "-" if v is None else f"{100 * v:.1f} %"  # noqa: E731
    rows = [
        (f"deletion, area against random order (channels set to the mean of {t.baseline})", f"{t.deletion['ratio']:.2f}"),
        ("the same in the order of absolute relevance", f"{t.deletion['ratio_relevance_first']:.2f}"),
        ("the same in the order of relevance with its sign", f"{t.deletion['ratio_speaking_first']:.2f}"),
        ("insertion, area against random order", f"{t.insertion['ratio']:.2f}"),
        (
            f"relevance that peaks in the cell ({t.peaks['n']:.0f} masks that take {percent(t.peaks['mask'])} of the view)",
            percent(t.peaks["inside"]),
        ),
        ("the same, middles of grid cells alone", percent(t.peaks["center"])),
        (f"top channels that stay under rotation ({t.overlap['n']:.0f} cells)", percent(t.overlap["rotation"])),
        *((f"... under {words}", percent(t.overlap[name])) for name, words in WORDS.items()),
        *several_rows(t, percent),
        (f"cells flagged: relevance outside the cell ({t.flagged['n']:.0f} of {t.n})", percent((t.flagged["n"] or 0) / t.n)),
        ("... of these named right, of the others", f"{percent(t.flagged['right'])}, {percent(t.flagged['others_right'])}"),
        ("relevance, mask and measures of one cell, median", f"{t.explain_ms:.1f} ms"),
        ("the same in CPU time", f"{t.explain_cpu_ms:.1f} ms"),
    ]
    return "\n".join([f"explanations of {t.n} cells", *(f"{name:<84}{value:>16}" for name, value in rows)])


def several_rows(t: Trust, percent: Callable[[float | None], str]) -> list[tuple[str, str]]:
    """What an explanation from all looks has."""
    s = t.several
    overlap, peaks = s["overlap"], s["peaks"]
    whole = f"explained from {s['looks']} looks instead of {t.looks:.1f} ({s['n']} cells): deletion"
    return [
        (whole, f"{s['deletion']['ratio']:.2f}"),
        ("... relevance that peaks in the cell; middles alone", f"{percent(peaks['inside'])}; {percent(peaks['center'])}"),
        ("... top channels that stay under rotation, flip", f"{percent(overlap['rotation'])}, {percent(overlap['flip'])}"),
        ("... under a small change of stain, 8 bits", f"{percent(overlap['stain'])}, {percent(overlap['precision'])}"),
    ]


WORDS = {"flip": "flip", "stain": "a small change of stain", "fire": "another fire schedule", "precision": "8 bits for float32"}
