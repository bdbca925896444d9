"""How good is a bundle on labelled crops: accuracy, macro-F1, recall by class, confusion, calibration; with n and intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.differential import clopper_pearson
from nca_edge.errors import UsageError
from nca_edge.records import Prediction


@dataclass(frozen=True, slots=True)
class Judged:
    """One labelled crop and what the model said."""

    file: str
    truth: str
    """After the map: a class or a group of the bundle."""
    answer: str
    """In the same vocabulary."""
    confidence: float
    """Probability of the answer, that is of all its classes where it is a group."""
    unsure: bool


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One row of the result."""

    name: str
    n: int
    """Crops that truly are of this class."""
    recall: float
    low: float
    """Lower end of the 95 % Clopper-Pearson interval."""
    high: float
    precision: float | None
    """None when the model never said it."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result over one data set."""

    n: int
    accuracy: float
    accuracy_low: float
    """95 % Clopper-Pearson."""
    accuracy_high: float
    macro_f1: float
    """Mean F1 over the true classes."""
    macro_f1_interval: tuple[float, float]
    """95 %, percentiles of 1,000 bootstrap samples."""
    calibration_error: float
    """Expected calibration error, 15 bins of equal width."""
    calibration_error_interval: tuple[float, float]
    """As above."""
    coverage: float
    """Share of crops that are not unsure."""
    accuracy_when_sure: float | None
    accuracy_coverage: tuple[tuple[float, float, float], ...]
    """(share answered, accuracy of these, their least confidence) from the most confident answers to all."""
    classes: tuple[ClassScore, ...]
    labels: tuple[str, ...]
    """Rows and columns of the confusion matrix: true classes first, then other answers."""
    confusion: tuple[tuple[int, ...], ...]
    """confusion[true][answer]."""

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return asdict(self)


class Vocabulary:
    """Which data label means which class or group of the bundle.

    Where a data set speaks of a group (``neutrophil``), all its classes are judged as that group, in labels and in answers.

    Parameters
    ----------
    classes, groups : of the bundle
    mapping : data label -> class or group, or None to leave it out; labels that are classes or groups already need no entry
    labels : of the data set

    Raises
    ------
    UsageError
        A label is mapped to something that the bundle does not know, or no label is left.
    """

    def __init__(
        self, classes: Iterable[str], groups: dict[str, tuple[str, ...]], mapping: dict[str, str | None], labels: Iterable[str]
    ) -> None:
        self.answer_of = {c: c for c in classes}
        known = {*self.answer_of, *groups}
        for label, target in mapping.items():
            if target is not None and target not in known:
                told = ", ".join(sorted(known))
                raise UsageError(f"--map: {label!r} is mapped to {target!r}, which this model does not know; it knows {told}.")
        meant = {label: mapping.get(label, label) for label in set(labels)}
        self.skipped = tuple(sorted(label for label, target in meant.items() if target not in known))
        """Labels that mean nothing to this bundle, or were mapped to None."""
        used = {target for target in meant.values() if target is not None}
        for group, members in groups.items():
            if group in used:
                self.answer_of.update(dict.fromkeys(members, group))
        self.truth_of = {
            label: self.answer_of.get(target, target)
            for label, target in meant.items()
            if target is not None and target in known
        }
        if not self.truth_of:
            raise UsageError(
                f"no label of this data set means anything to this model; map them with --map to {', '.join(sorted(known))}."
            )

    def answer(self, prediction: Prediction) -> tuple[str, float]:
        """The best class, or the group it is judged as, and the probability of that."""
        said = self.answer_of[prediction.label]
        return said, sum(p for name, p in prediction.probabilities.items() if self.answer_of[name] == said)


def score(judged: list[Judged]) -> Evaluation:
    """Count it all up.

    Raises
    ------
    UsageError
        Nothing was judged.
    """
    if not judged:
        raise UsageError("no labelled crop could be judged; check --data, --fold and --map.")
    truths = sorted({j.truth for j in judged})
    labels = (*truths, *sorted({j.answer for j in judged} - set(truths)))
    index = {name: i for i, name in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    for j in judged:
        confusion[index[j.truth], index[j.answer]] += 1
    right = np.array([j.truth == j.answer for j in judged])
    sure = np.array([not j.unsure for j in judged])
    low, high = clopper_pearson(int(right.sum()), len(judged))
    rows = tuple(_class_score(name, confusion, index[name]) for name in truths)
    confidence = np.array([j.confidence for j in judged])
    pairs = np.array([(index[j.truth], index[j.answer]) for j in judged])
    f1_interval, error_interval = _bootstrap(pairs, len(truths), confidence)
    return Evaluation(
        len(judged), float(right.mean()), low, high, macro_f1(confusion, len(truths)), f1_interval,
        calibration_error(confidence, right), error_interval,
        float(sure.mean()), float(right[sure].mean()) if sure.any() else None, accuracy_coverage(confidence, right),
        rows, labels, tuple(tuple(int(v) for v in row) for row in confusion),
    )  # fmt: skip


def macro_f1(confusion: NDArray[np.int64], classes: int) -> float:
    """Mean F1 over the first ``classes`` rows; a class that is absent (from a bootstrap sample) is left out."""
    said, true, hits = confusion.sum(0)[:classes], confusion.sum(1)[:classes], np.diag(confusion)[:classes]
    present = true > 0
    return float(np.mean(2 * hits[present] / (said + true)[present]))


def accuracy_coverage(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[tuple[float, float, float], ...]:
    """Accuracy of the most confident 5 %, 10 %, ... 100 % of the answers, and the least confidence among them."""
    order = np.argsort(-confidence, kind="stable")
    counts = sorted({max(1, round(len(order) * share / 20)) for share in range(1, 21)})
    share_right = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    return tuple((n / len(order), float(share_right[n - 1]), float(confidence[order[n - 1]])) for n in counts)


Interval = tuple[float, float]
BOOTSTRAPS = 1000


def _bootstrap(pairs: NDArray[np.int64], classes: int, confidence: NDArray[np.float64]) -> tuple[Interval, Interval]:
    """95 % percentile intervals of macro-F1 and calibration error over cells drawn with replacement (Efron 1979)."""
    rng = np.random.default_rng(0)
    right, width = pairs[:, 0] == pairs[:, 1], int(pairs.max()) + 1
    f1, error = [], []
    for _ in range(BOOTSTRAPS):
        drawn = rng.integers(0, len(pairs), len(pairs))
        counts = np.bincount(pairs[drawn, 0] * width + pairs[drawn, 1], minlength=width * width)
        f1.append(macro_f1(counts.reshape(width, width), classes))
        error.append(calibration_error(confidence[drawn], right[drawn]))
    low, high = np.percentile([f1, error], [2.5, 97.5], axis=1)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _class_score(name: str, confusion: NDArray[np.int64], i: int) -> ClassScore:
    n, hits, said = int(confusion[i].sum()), int(confusion[i, i]), int(confusion[:, i].sum())
    low, high = clopper_pearson(hits, n)
    return ClassScore(name, n, hits / n, low, high, hits / said if said else None)


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): gap of confidence and accuracy in bins of equal width, weighted by size."""
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(where, confidence - right, minlength=bins)).sum() / len(right))
