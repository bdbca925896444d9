"""`nca-edge evaluate --explanations`: how far a bundle's explanations can be trusted, cell by cell over labelled crops."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import draw_fire, pool
from nca_edge.backends import NumpyBackend
from nca_edge.classifier import Classifier, ModelChoice, from_8bit, load
from nca_edge.explain import TOP_CHANNELS, Question, head_relevance
from nca_edge.faithful import Case, Head, area, curves, overlap
from nca_edge.measure import CELL, measured, peak_touches, rests_on_background
from nca_edge.pipeline import CropReading
from nca_edge.preprocess import normalise
from nca_edge.records import Explanation, Image32, Shown

LARGEST_MASK = 0.6
"""A mask that takes more of the view says little about where a peak lies."""
STABLE_CELLS = 200
"""Cells, evenly spread, on which changes are tried: each costs a dozen answers."""
STAIN_SPREAD = 0.05
"""Standard deviation of the logarithm of the factor on each colour's absorbance."""
SEEDS = (1, 2)
"""Of other fire schedules than the bundle's."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What was found."""

    n: int
    baseline: str
    """Cells whose mean stands for a channel that is taken away: ``training cells`` or ``golden cells``."""
    deletion: dict[str, float]
    """Area under the curve of the class's probability: ``strongest_first``, ``speaking_first``, ``random``; ``ratio`` and
    ``ratio_speaking_first`` are to random's."""
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
    explain_ms: float
    """Median wall time of relevance, mask and measures of one cell."""
    explain_cpu_ms: float
    """The same in CPU time, which other programs lengthen less."""

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return asdict(self)


class Auditor:
    """Is shown reading after reading, and sums up at the end.

    Parameters
    ----------
    every : changes are tried on every so many cells
    """

    def __init__(self, classifier: Classifier, choice: ModelChoice, every: int) -> None:
        self.classifier, self.every = classifier, max(1, every)
        bundle = classifier.bundle
        m = bundle.manifest
        self.pool, self.pools = m.architecture.pool, m.architecture.features // m.architecture.channels
        means, self.baseline = channel_means(classifier)
        self.head, self.rng = Head(bundle.weights, m.temperature, means), np.random.default_rng(0)
        self.other = _other_precision(classifier, choice)
        fires = [draw_fire(m.architecture, seed) for seed in SEEDS]
        self.schedules = [NumpyBackend(m.architecture, bundle.weights, fire) for fire in fires]
        self.sums = np.zeros((6, m.architecture.channels + 1))
        self.seen, self.no_mask, self.large = 0, 0, 0
        self.peaks: list[tuple[float, float, float, float]] = []
        self.kept: dict[str, list[float]] = defaultdict(list)
        self.flags: list[tuple[bool, bool]] = []
        self.times: list[tuple[float, float]] = []

    def add(self, reading: CropReading, right: bool) -> None:
        """Take one cell into account; ``right``: the model named it as its label says."""
        if reading.shown is None:
            raise RuntimeError("an explanation is needed")
        shown, why = reading.shown, reading.shown.explanation
        (seen,) = self.classifier.look(shown.view[None])
        case = self._case(seen.states[0], self.classifier.bundle.manifest.classes.index(why.label))
        self.sums += curves(case, self.head, self.rng)
        self.flags.append((rests_on_background(why.outside_share), right))
        self._peaks(why)
        if self.seen % self.every == 0:
            self._changes(shown, case)
            crop = from_8bit(shown.crop)
            wall, cpu = time.perf_counter(), time.thread_time()
            again = self.classifier.explain(seen, crop, Question(why.label))
            measured(again, reading.scale, (len(crop) / 2, len(crop) / 2), crop.shape[:2])
            self.times.append((time.perf_counter() - wall, time.thread_time() - cpu))
        self.seen += 1

    def result(self) -> Trust:
        """Sum up; at least one cell was added."""
        names = [f"{kind}_{order}" for kind in ("deletion", "insertion") for order in ("strongest", "speaking", "random")]
        mean = self.sums / self.seen
        areas = [area(row) for row in mean]
        inside, center, weight, masks = (sum(values) for values in zip(*self.peaks, strict=True)) if self.peaks else (0.0,) * 4
        peaks = {
            "inside": inside / (weight or 1), "center": center / (weight or 1), "mask": masks / max(1, len(self.peaks)),
            "n": len(self.peaks), "no_mask": self.no_mask, "large": self.large,
        }  # fmt: skip
        kept = {name: float(np.mean(self.kept[name])) if self.kept[name] else None for name in CHANGES}
        return Trust(
            self.seen, self.baseline, _ratios(areas[:3]), _ratios(areas[3:]),
            {name: tuple(round(float(v), 4) for v in row) for name, row in zip(names, mean, strict=True)},
            peaks,
            {**kept, "n": len(self.times)}, _flagged(self.flags),
            1e3 * median(wall for wall, _ in self.times), 1e3 * median(cpu for _, cpu in self.times),
        )  # fmt: skip

    def _case(self, state: Image32, target: int) -> Case:
        pooled = pool(state, self.pool)
        return Case(pooled, head_relevance(pooled, self.head.weights, target, self.pools).channels, target)

    def _peaks(self, why: Explanation) -> None:
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

    def _changes(self, shown: Shown, case: Case) -> None:
        """Which of the top channels stay when the view, the schedule or the arithmetic changes."""
        top, view = case.strongest_first()[:TOP_CHANNELS], shown.view
        answer: Callable[[Image32], Image32] = lambda changed: self.classifier.answer(changed[None]).state[0]  # noqa: E731
        states = [("rotation", answer(np.ascontiguousarray(np.rot90(view, k)))) for k in (1, 2, 3)]
        mirrored = view[:, ::-1]
        states += [("flip", answer(np.ascontiguousarray(np.rot90(mirrored, k)))) for k in range(4)]
        gain = np.exp(self.rng.normal(0, STAIN_SPREAD, 3)).astype(np.float32)
        states.append(("stain", answer(np.power(np.maximum(view, np.float32(1e-3)), gain))))
        images = normalise(view[None], self.classifier.mean, self.classifier.std)
        states += [("fire", backend(images).state[0]) for backend in self.schedules]
        if self.other is not None:
            states.append(("precision", self.other.answer(view[None]).state[0]))
        for name, state in states:
            self.kept[name].append(overlap(top, self._case(state, case.target).strongest_first()[:TOP_CHANNELS]))


CHANGES = ("rotation", "flip", "stain", "fire", "precision")


def channel_means(classifier: Classifier) -> tuple[NDArray[np.float64], str]:
    """(features,) mean of the pooled features over training cells, where the bundle keeps it, else over its golden cells."""
    m = classifier.bundle.manifest
    if m.channel_means is not None:
        return np.asarray(m.channel_means, np.float64), "training cells"
    states = classifier.answer(from_8bit(classifier.bundle.golden_views)).state
    return np.mean([pool(state, m.architecture.pool) for state in states], axis=0), "golden cells"


def _other_precision(classifier: Classifier, choice: ModelChoice) -> Classifier | None:
    """The same bundle and backend in 8 bits, or in float32 where 8 bits were asked for; None where there is only one."""
    other = "int8" if classifier.precision == "fp32" else "fp32"
    if (classifier.backend.name, other) not in classifier.bundle.file_of():
        return None
    return load(replace(choice, backend=classifier.backend.name, precision=other))


def _ratios(areas: list[float]) -> dict[str, float]:
    strongest, speaking, at_random = areas
    return {
        "strongest_first": strongest, "speaking_first": speaking, "random": at_random,
        "ratio": strongest / at_random, "ratio_speaking_first": speaking / at_random,
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
        ("the same in the order of relevance with its sign", f"{t.deletion['ratio_speaking_first']:.2f}"),
        ("insertion, area against random order", f"{t.insertion['ratio']:.2f}"),
        (
            f"relevance that peaks in the cell ({t.peaks['n']:.0f} masks that take {percent(t.peaks['mask'])} of the view)",
            percent(t.peaks["inside"]),
        ),
        ("the same, middles of grid cells alone", percent(t.peaks["center"])),
        (f"top channels that stay under rotation ({t.overlap['n']:.0f} cells)", percent(t.overlap["rotation"])),
        *((f"... under {words}", percent(t.overlap[name])) for name, words in WORDS.items()),
        (f"cells flagged: relevance outside the cell ({t.flagged['n']:.0f} of {t.n})", percent((t.flagged["n"] or 0) / t.n)),
        ("... of these named right, of the others", f"{percent(t.flagged['right'])}, {percent(t.flagged['others_right'])}"),
        ("relevance, mask and measures of one cell, median", f"{t.explain_ms:.1f} ms"),
        ("the same in CPU time", f"{t.explain_cpu_ms:.1f} ms"),
    ]
    return "\n".join([f"explanations of {t.n} cells", *(f"{name:<84}{value:>16}" for name, value in rows)])


WORDS = {"flip": "flip", "stain": "a small change of stain", "fire": "another fire schedule", "precision": "8 bits for float32"}
