"""Temperature and the threshold below which a cell is unsure, both from validation data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca_edge.backends import OnnxBackend
from nca_edge.passes import Passes, turned
from nca_edge.records import Image8
from nca_export.run import Run

PASSES = Passes(4, 0.8)
"""Looks at a cell that the first look leaves open; the figures that chose them are in train/README.md."""
UNSURE_ACCURACY = 0.95
"""Answers that are not unsure shall be right this often on the half of the validation fold that sets the threshold."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What half a of the validation fold decides."""

    temperature: float
    unsure_below: float


UNCALIBRATED = Calibration(1.0, 0.5)


def probabilities(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Softmax of logits / temperature, (n, classes) float64."""
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max(1, keepdims=True))
    normalised: NDArray[np.float64] = p / p.sum(1, keepdims=True)
    return normalised


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Temperature scaling (Guo et al. 2017): the temperature of least negative log-likelihood, between 0.05 and 20."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        p = probabilities(logits, float(np.exp(log_temperature)))
        return float(-np.log(p[np.arange(len(labels)), labels] + 1e-12).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def prior_shift(share: float, wanted: float, temperature: float) -> float:
    """What to add to a class's logit so that its calibrated odds move from one prior share of the class to another.

    Saerens et al. 2002 (Neural Computation 14:21): posterior odds scale with prior odds.
    """
    odds, wanted_odds = share / (1 - share), wanted / (1 - wanted)
    return float(temperature * np.log(wanted_odds / odds))


def unsure_threshold(p: NDArray[np.float64], labels: NDArray[np.int64], accuracy: float) -> float:
    """Lowest confidence from which on answers are right at least this often; where none is, the one of the best accuracy.

    Accuracy is taken over all answers of at least that confidence, and at least a tenth of all answers must remain. Thresholds
    are whole thousandths and judged as such: rounding one down after the choice would let further answers through unjudged.
    """
    confidence = p.max(1)
    right = p.argmax(1) == labels
    fewest = max(1, len(right) // 10)
    candidates = np.unique(np.minimum(np.floor(confidence * 1000) / 1000, confidence))  # ascending
    sure = [confidence >= t for t in candidates]
    shares = np.array([right[s].mean() if s.sum() >= fewest else -1.0 for s in sure])
    good = np.flatnonzero(shares >= accuracy)
    return float(candidates[good[0] if len(good) else int(np.argmax(shares))])


@dataclass(frozen=True, slots=True)
class Looks:
    """What one look, and the mean of all, say of some cells."""

    first: NDArray[np.float32]
    """(m, classes) logits."""
    mean: NDArray[np.float32]
    """(m, classes) logits."""

    @classmethod
    def at(cls, run: Run, backend: OnnxBackend, images: Image8) -> Looks:
        """All looks at (m, size, size, 3) images."""
        each = [run.answers(backend, np.asarray(turned(images, number), np.uint8)) for number in range(PASSES.most)]
        return cls(each[0], np.asarray(np.mean(each, axis=0, dtype=np.float64), np.float32))

    def logits(self, temperature: float) -> NDArray[np.float32]:
        """(m, classes) the mean where the first look is not sure, as ``passes.look`` decides."""
        open_ = probabilities(self.first, temperature).max(1) < PASSES.below
        return np.asarray(np.where(open_[:, None], self.mean, self.first), np.float32)


def calibrate(looks: Looks, labels: NDArray[np.int64]) -> Calibration:
    """Temperature and threshold from labelled cells, (m,) labels.

    Which cells are looked at again depends on the temperature, and it on them: a few rounds settle it.
    """
    temperature = fit_temperature(looks.mean, labels)
    for _ in range(4):
        temperature = fit_temperature(looks.logits(temperature), labels)
    p = probabilities(looks.logits(temperature), temperature)
    return Calibration(temperature, unsure_threshold(p, labels, UNSURE_ACCURACY))
