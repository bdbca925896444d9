"""Are explanations more than decoration: what happens to an answer when channels are taken away in order of their relevance.

Deletion and insertion as Petsiuk et al. (2018, RISE) do it with pixels, here with the pooled channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Weights

Reals = NDArray[np.float64]
ORDERS = ("strongest", "relevance", "speaking", "random")
RANDOM_ORDERS = 5
"""Random orders that a cell's relevance is compared with."""


@dataclass(frozen=True, slots=True)
class Head:
    """What turns pooled channels into probabilities, and what stands for a channel that is taken away."""

    weights: Weights
    temperature: float
    means: Reals
    """(features,) mean of each pooled feature over cells."""

    def logits(self, pooled: Reals) -> Reals:
        """(n, features) -> (n, classes)."""
        w = self.weights
        hidden = np.maximum(pooled @ w["head1"].T.astype(np.float64) + w["head1_bias"], 0)
        return np.asarray(hidden @ w["head2"].T.astype(np.float64) + w["head2_bias"])

    def probabilities(self, logits: Reals) -> Reals:
        """(n, classes) logits -> the same, calibrated."""
        logits = logits / self.temperature
        grown = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(grown / grown.sum(1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Case:
    """One cell."""

    pooled: Reals
    """(looks, features)"""
    relevance: Reals
    """(channels,), mean over the looks."""
    expected: Reals
    """The same, expected relevance (``explain.Relevance``)."""
    target: int
    """Index of the class whose probability is watched."""

    def strongest_first(self) -> NDArray[np.int64]:
        """Channels by absolute expected relevance, as explanations choose their ten."""
        return np.argsort(-np.abs(self.expected), kind="stable")

    def relevance_first(self) -> NDArray[np.int64]:
        """Channels by absolute relevance."""
        return np.argsort(-np.abs(self.relevance), kind="stable")

    def speaking_first(self) -> NDArray[np.int64]:
        """Channels by relevance, from what speaks most for the class to what speaks most against it."""
        return np.argsort(-self.relevance, kind="stable")


def curve(case: Case, head: Head, order: NDArray[np.int64], insert: bool = False) -> Reals:
    """Probability of the class after 0, 1, 2, ... channels were set to their mean, or, from all at their mean, put back.

    Of several looks a channel is taken from each, and their mean logits answer, as they do for the cell as it is.

    Parameters
    ----------
    order : (..., channels), permutations

    Returns
    -------
    (..., channels + 1)
    """
    channels = order.shape[-1]
    place = np.argsort(order, axis=-1)
    taken = (place[..., None, :] < np.arange(channels + 1)[:, None]) != insert
    features = np.concatenate([taken] * (case.pooled.shape[1] // channels), axis=-1)
    features = features.reshape(-1, features.shape[-1])
    logits = np.mean([head.logits(np.where(features, head.means, look)) for look in case.pooled], axis=0)
    return head.probabilities(logits)[:, case.target].reshape(taken.shape[:-1])


def area(values: Reals) -> float:
    """Area under a curve over the share of channels, 0..1, by trapezia."""
    return float((values[1:] + values[:-1]).mean() / 2)


def curves(case: Case, head: Head, rng: np.random.Generator) -> Reals:
    """(8, channels + 1): deletion in the orders ``ORDERS``, then insertion in the same."""
    at_random = [rng.permutation(len(case.relevance)) for _ in range(RANDOM_ORDERS)]
    orders = np.stack([case.strongest_first(), case.relevance_first(), case.speaking_first(), *at_random])
    rows = [curve(case, head, orders, insert) for insert in (False, True)]
    return np.concatenate([[*one[:3], one[3:].mean(0)] for one in rows])


def overlap(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Share of the channels of one list that stand in the other."""
    return len(set(one.tolist()) & set(other.tolist())) / len(one)
