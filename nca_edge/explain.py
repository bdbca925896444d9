"""Why: LRP through the head.

LRP follows the epsilon rule (Bach et al. 2015, eq. 58) with the bias in the denominator and sign(0) = +1, from the class
logit. Relevance that the biases and the stabiliser absorb is reported, so that everything adds up to the logit again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Weights
from nca_edge.records import ChannelRelevance, Image32

EPSILON = 1e-6
TOP_CHANNELS = 10
SWAY = 0.2
"""Standard deviation of a hidden unit's sum from look to look, as a share of the spread of all units' sums in one look: 0.21 in
the median of 708 cells of half 3a. No value from 0.1 to 0.4 has top channels that are more often those of all eight looks
(``tests/benchmarks/looks.py``)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a cell: why this class, and not that one."""

    label: str | None = None
    """The class to be explained; None: the one that the model named."""
    against: str | None = None
    """The class that it is compared with; None: none."""
    looks: int = 0
    """Looks whose mean relevance is told, 1 to 8; 0: those that gave the answer."""

    def of(self, named: str) -> Question:
        """The question about a cell that the model named so; a class is never compared with itself."""
        label = self.label or named
        return Question(label, None if self.against == label else self.against, self.looks)


class Relevance(NamedTuple):
    """The class logit, or the difference of two, split into who spoke for it."""

    channels: NDArray[np.float64]
    """(channels,)"""
    bias_share: float
    """Absorbed by the biases of both layers."""
    epsilon_share: float
    """Absorbed by the stabiliser of both layers."""
    expected: NDArray[np.float64]
    """(channels,) the relevance where every hidden unit counts by the chance that it is on: see ``strongest``."""


def head_relevance(
    pooled: NDArray[np.floating], weights: Weights, target: int, pools: int = 1, against: int | None = None
) -> Relevance:
    """Epsilon-LRP from the logit of class ``target`` back to the pooled channels, in float64.

    With ``against`` it starts from the logit of ``target`` less that of ``against``, which the same rule splits: why the one
    and not the other. What both classes share cancels.

    Parameters
    ----------
    pooled : (pools * channels,)
    target, against : index of the class
    pools : 2 for ``max+mean``, where a channel's relevance is the sum of its two features

    Returns
    -------
    Relevance, whose three parts sum to the logit (or the difference); each is summed from its own terms
    """
    v = pooled.astype(np.float64)
    w1, b1 = weights["head1"].astype(np.float64), weights["head1_bias"].astype(np.float64)
    w2, b2 = weights["head2"][target].astype(np.float64), float(weights["head2_bias"][target])
    if against is not None:
        w2, b2 = w2 - weights["head2"][against], b2 - float(weights["head2_bias"][against])
    z1 = w1 @ v + b1
    h = np.maximum(z1, 0)
    logit = float(w2 @ h) + b2
    out_stabiliser = EPSILON if logit >= 0 else -EPSILON
    out_ratio = logit / (logit + out_stabiliser)
    of_hidden = w2 * h * out_ratio
    stabiliser = np.where(z1 >= 0, EPSILON, -EPSILON)
    ratio = of_hidden / (z1 + stabiliser)
    bias = b2 * out_ratio + float(ratio @ b1)
    epsilon = out_stabiliser * out_ratio + float(ratio @ stabiliser)
    of_features, expected = v * (w1.T @ ratio), v * (w1.T @ (w2 * _chance(z1)))
    return Relevance(of_features.reshape(pools, -1).sum(0), bias, epsilon, expected.reshape(pools, -1).sum(0))


def _chance(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) chance that each hidden unit of the head would be on in another look, by a normal distribution around its sum."""
    sway = math.sqrt(2) * max(SWAY * float(sums.std()), 1e-12)
    return np.array([0.5 + 0.5 * math.erf(one) for one in (sums / sway).tolist()])


def mean_relevance(passes: Sequence[Relevance]) -> Relevance:
    """Of the mean logit of several passes; a mean of three parts each that sum to the logit sums to the mean logit."""
    if len(passes) == 1:
        return passes[0]
    bias, epsilon = (float(np.mean(shares)) for shares in zip(*((r.bias_share, r.epsilon_share) for r in passes), strict=True))
    channels, expected = (np.mean(values, axis=0) for values in zip(*((r.channels, r.expected) for r in passes), strict=True))
    return Relevance(channels, bias, epsilon, expected)


def strongest(mean: Relevance) -> NDArray[np.int64]:
    """Channels by absolute expected relevance, from the strongest: the first ten are the top channels.

    A hidden unit of the head that is only just on adds next to nothing to the logit, yet hands much relevance of both signs to
    all channels; one that is only just off hands none. On which side it falls hangs on how the cell lies, and decided about a
    third of the ten when the order was that of the relevance itself.
    """
    return np.argsort(-np.abs(mean.expected), kind="stable")


def top_channels(each: Sequence[Relevance], states: Sequence[Image32], pool: str, crop_px: int) -> tuple[ChannelRelevance, ...]:
    """The strongest channels, by absolute relevance, with their maps and peaks.

    The peak is the grid cell whose value won the maximum, which with the pooling of the MICCAI paper (2024) alone hands the
    channel's relevance on; places between grid cells lie in the mask no more often (0.838 against 0.840). Of several looks it
    is taken, with its map, from the one in which the channel said most of what it says on the mean.

    Parameters
    ----------
    each : relevance in each look
    states : (grid, grid, channels) of each look, the cell upright in all of them
    pool : ``mean``: the peak is the grid cell of largest magnitude; else the one that won the maximum
    crop_px : side of the crop that the peak is given in, px
    """
    grid, said = states[0].shape[0], np.stack([r.channels for r in each])
    overall = mean_relevance(each)
    mean, chosen = overall.channels, strongest(overall)[:TOP_CHANNELS]
    chosen = chosen[np.argsort(-np.abs(mean[chosen]), kind="stable")]
    out = []
    loudest = np.argmax(said[:, chosen] * np.sign(mean[chosen]), axis=0)
    shown = np.stack([states[look][..., channel] for look, channel in zip(loudest.tolist(), chosen.tolist(), strict=True)])
    flat = shown.reshape(len(chosen), -1)
    peaks = np.argmax(np.abs(flat) if pool == "mean" else flat, axis=1).tolist()
    for channel, values, at, relevance in zip(chosen.tolist(), shown, peaks, mean[chosen].tolist(), strict=True):
        row, column = divmod(at, grid)
        peak = (int((column + 0.5) * crop_px / grid), int((row + 0.5) * crop_px / grid))
        out.append(ChannelRelevance(channel, relevance, peak, values))
    return tuple(out)
