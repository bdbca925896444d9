"""Why and where: LRP through the head, and a mask from a principal component of the state.

LRP follows the epsilon rule (Bach et al. 2015, eq. 58) with the bias in the denominator and sign(0) = +1, from the class
logit. Relevance that the biases and the stabiliser absorb is reported, so that everything adds up to the logit again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Weights
from nca_edge.preprocess import absorbance, otsu, resize
from nca_edge.records import ChannelRelevance, Image8, Image32

EPSILON = 1e-6
TOP_CHANNELS = 10
COMPONENTS = 3
"""Principal components among which the mask's is chosen."""
BACKGROUND, CELL, NUCLEUS = 0, 128, 255


class Relevance(NamedTuple):
    """The class logit, split into who spoke for it."""

    channels: NDArray[np.float64]
    """(channels,)"""
    bias_share: float
    """Absorbed by the biases of both layers."""
    epsilon_share: float
    """Absorbed by the stabiliser of both layers."""


def head_relevance(pooled: NDArray[np.floating], weights: Weights, target: int, pools: int = 1) -> Relevance:
    """Epsilon-LRP from the logit of class ``target`` back to the pooled channels, in float64.

    Parameters
    ----------
    pooled : (pools * channels,)
    target : index of the class
    pools : 2 for ``max+mean``, where a channel's relevance is the sum of its two features

    Returns
    -------
    Relevance, whose three parts sum to the logit
    """
    v = pooled.astype(np.float64)
    w1, b1 = weights["head1"].astype(np.float64), weights["head1_bias"].astype(np.float64)
    w2, b2 = weights["head2"][target].astype(np.float64), float(weights["head2_bias"][target])
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
    of_features = v * (w1.T @ ratio)
    return Relevance(of_features.reshape(pools, -1).sum(0), bias, epsilon)


def top_channels(relevance: Relevance, state: Image32, pool: str, crop_px: int) -> tuple[ChannelRelevance, ...]:
    """The channels of largest absolute relevance with their maps and peaks.

    Parameters
    ----------
    state : (grid, grid, channels)
    pool : ``mean``: the peak is the grid cell of largest magnitude; else the one that won the maximum
    crop_px : side of the crop that the peak is given in, px
    """
    grid = state.shape[0]
    chosen = np.lexsort((np.arange(len(relevance.channels)), -np.abs(relevance.channels)))[:TOP_CHANNELS]
    out = []
    for channel in chosen.tolist():
        values = np.ascontiguousarray(state[..., channel])
        row, column = divmod(int(np.argmax(np.abs(values) if pool == "mean" else values)), grid)
        peak = (int((column + 0.5) * crop_px / grid), int((row + 0.5) * crop_px / grid))
        out.append(ChannelRelevance(channel, float(relevance.channels[channel]), peak, values))
    return tuple(out)


def cell_component(state: Image32) -> NDArray[np.float64]:
    """The principal component of a state that tells the centred cell from the border, high in the cell, its least value 0.

    NCA-WSS takes the first component. Where red cells crowd a view, the first one often tells red cells from all else; of the
    first ``COMPONENTS`` the one whose middle lies farthest from the border is taken, in units of its spread.

    Parameters
    ----------
    state : (grid, grid, channels)

    Returns
    -------
    (grid, grid) float64
    """
    grid, _, channels = state.shape
    values = state.reshape(-1, channels).astype(np.float64)
    values -= values.mean(0)
    _, vectors = np.linalg.eigh(values.T @ values)
    middle = slice(3 * grid // 8, max(5 * grid // 8, 3 * grid // 8 + 1))  # always inside the cell
    best, farthest = np.zeros((grid, grid)), 0.0
    for k in range(1, min(COMPONENTS, channels) + 1):
        component = (values @ vectors[:, -k]).reshape(grid, grid)
        border = np.concatenate([component[0], component[-1], component[:, 0], component[:, -1]])
        apart = float(np.mean(component[middle, middle]) - np.mean(border)) / (float(component.std()) + 1e-12)
        if abs(apart) > farthest:
            best, farthest = np.sign(apart) * component, abs(apart)
    return np.asarray(best - best.min(), np.float64)


def cell_mask(state: Image32, crop: Image32) -> Image8:
    """Mask of the centred cell at the crop's resolution.

    Parameters
    ----------
    state : (grid, grid, channels) that spans the same square as the crop
    crop : (n, n, 3) float32, corrected, background 1

    Returns
    -------
    (n, n) uint8: 0 background, 128 cell, 255 nucleus where it is told apart
    """
    from scipy import ndimage

    n = crop.shape[0]
    component = cell_component(state).astype(np.float32)
    smooth = resize(component, n, n)
    foreground = smooth > otsu(component)
    labels, count = ndimage.label(foreground)
    mask = np.zeros((n, n), np.uint8)
    if count == 0:
        return mask
    distance = np.hypot(*(np.indices((n, n)) - (n - 1) / 2))
    nearest = labels[np.unravel_index(np.argmin(np.where(foreground, distance, np.inf)), (n, n))]
    cell = ndimage.binary_fill_holes(labels == nearest)
    mask[cell] = CELL
    ink = ndimage.gaussian_filter(absorbance(crop).sum(axis=2), n / 128)
    dark = cell & (ink > otsu(ink[cell])) if np.ptp(ink[cell]) > 0 else np.zeros_like(cell)
    # told apart: a nucleus is between a tenth and nine tenths of its cell and at least half again as dark as the rest
    share = dark.sum() / cell.sum()
    if 0.1 < share < 0.9 and ink[dark].mean() > 1.5 * ink[cell & ~dark].mean():
        mask[dark] = NUCLEUS
    return mask
