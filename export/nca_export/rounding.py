"""Weights in 8 bits, rounded together: what one loses, those that are read along with it make up for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Weights

LEAST = np.float32(1e-6)
"""Smaller reaches count as this."""
DAMPING = 0.01
"""Added to the second moments, as a share of their mean: a channel that the cells hardly show must not carry an error."""
Second = NDArray[np.float64]
"""(n, n) second moments of n channels."""


@dataclass(frozen=True, slots=True)
class Moments:
    """What the layers read on real cells, of the 1x1 layers over all steps and grid cells; None: weights are rounded singly."""

    perceived: Second | None = None
    """(3 * channels, 3 * channels)"""
    hidden: Second | None = None
    """(hidden, hidden)"""
    pooled: Second | None = None
    """(features, features)"""

    def multiplied(self, perceived: NDArray[np.float32], hidden: NDArray[np.float32]) -> Moments:
        """After each perceived and each hidden channel was multiplied by its factor."""
        if self.perceived is None or self.hidden is None:
            return self
        return Moments(self.perceived * np.outer(perceived, perceived), self.hidden * np.outer(hidden, hidden), self.pooled)


def quantized(weight: NDArray[np.float32], moment: Second | None = None) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(rows, columns) -> int8 of the same shape, and the (rows,) scale that each row is divided by.

    A row of zeros has the largest scale of the others: with 0, or one far from theirs, LiteRT's delegate refuses the layer.

    Parameters
    ----------
    moment : (columns, columns) second moments of what the weights are multiplied by; None: all are rounded to the nearest
    """
    scales = np.abs(weight).max(1) / np.float32(127)
    scales = np.where(scales > 0, scales, scales.max() or np.float32(1)).astype(np.float32)
    return _rounded(weight / scales[:, None], moment), scales


def _rounded(shares: NDArray[np.float32], moment: Second | None) -> NDArray[np.int8]:
    """Round column by column, those that are read most first, and let the columns that are left make up for each error.

    GPTQ (Frantar et al. 2023, ICLR): the Cholesky factor of the inverse moments says by how much each of them must change so
    that the sums lose least.
    """
    if moment is None:
        return np.round(shares).astype(np.int8)
    order = np.argsort(-np.diag(moment), kind="stable")
    damped = moment[np.ix_(order, order)] + DAMPING * (np.diag(moment).mean() or 1.0) * np.eye(len(moment))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, numbers = shares[:, order].astype(np.float64), np.empty(shares.shape, np.int8)
    for n, column in enumerate(order):
        near = np.clip(np.round(left[:, n]), -127, 127)
        numbers[:, column] = near
        left[:, n:] -= np.outer((left[:, n] - near) / factor[n, n], factor[n, n:])
    return numbers


@dataclass(frozen=True, slots=True)
class NarrowHead:
    """The head with its large matrix in 8 bits: small to store, computed in float32."""

    head1: NDArray[np.int8]
    """(head, features)"""
    scale: np.float32
    """Of all of ``head1``."""
    head1_bias: NDArray[np.float32]
    head2: NDArray[np.float32]


def narrow_head(weights: Weights, moment: Second | None = None) -> NarrowHead:
    """One scale serves all rows after each was multiplied to reach equally far; a ReLU lets ``head2`` take the factor back.

    Parameters
    ----------
    moment : (features, features) as of ``quantized``
    """
    largest = np.maximum(np.abs(weights["head1"]).max(1), LEAST)
    rows = (np.exp(np.log(largest).mean()) / largest).astype(np.float32)
    equal = weights["head1"] * rows[:, None]
    scale = np.float32(np.abs(equal).max() / 127)
    return NarrowHead(
        _rounded(equal / scale, moment),
        scale,
        weights["head1_bias"] * rows,
        (weights["head2"] / rows).astype(np.float32),
    )
