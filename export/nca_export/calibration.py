"""Temperature and the threshold below which a cell is unsure, both from validation data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
