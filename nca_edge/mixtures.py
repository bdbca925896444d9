"""Two mixtures of colours, one for the cell in the middle and one for what is around it: how likely each pixel is the cell's.

Learnt from the one crop, begun with where something else says that the cell is (``nca_edge.mask``). A base module: anybody may
import it.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nca_edge.preprocess import resize
from nca_edge.records import Image32

SIDE = 64
"""Pixels a side on which colours are mixed; 96 raised the overlap by half a point and took twice the time."""
ROUNDS, SURE = 4, 5
"""In so many rounds pixels teach the mixtures by their probability, so that a poor start recovers (powers of 2 and more from
the beginning: overlap 0.76 instead of 0.84 among red cells); in a last one by so high a power of it, only the sure ones, since
the paler part of a small even cell else learns the background around it (a disc of 10 um came out 1.7 times too wide)."""
DOUBT = np.float32(0.02)
"""Probability at the start that a pixel is not what the state says."""
REACH, SLOPE = 0.37, 6.4
"""Prior log-odds of a pixel: SLOPE * (REACH - its distance from the centre), in sides of the view; 9.5 um of 25.6."""
SMOOTH = 0.7
"""Blur of the log-odds, in their own pixels."""
MOST = 6
"""What the colours of one pixel may say for or against it, log-odds."""


def log_odds(start: NDArray[np.bool_], absorbed: Image32, never: NDArray[np.bool_] | None = None) -> Image32:
    """Log-odds of cell against surroundings, (SIDE, SIDE) float32, by expectation and maximization (Dempster et al. 1977).

    Cell and surroundings are two Gaussians of absorbance each: nucleus and cytoplasm, red cells and plasma. A prior says that
    the cell lies in the middle, which is where it was cropped. The mixtures are learnt from every other pixel of every other
    row.

    Parameters
    ----------
    start : (grid, grid)
    absorbed : (3, SIDE, SIDE)
    never : (SIDE, SIDE) what is hardly the cell, whatever its colours
    """
    terms = _terms(absorbed.reshape(3, -1))
    thinned = np.ascontiguousarray(terms.reshape(10, SIDE, SIDE)[:, ::2, ::2]).reshape(10, -1)
    ink = ink_of(thinned[1:4])
    blur, half = blurring(SIDE, SMOOTH), blurring(SIDE // 2, SMOOTH)
    prior = _prior() if never is None else np.where(never, _prior() - np.float32(MOST), _prior())
    against = -np.ascontiguousarray(prior[::2, ::2]).ravel()
    p = DOUBT + (1 - 2 * DOUBT) * resize(start.astype(np.float32), SIDE // 2, SIDE // 2).ravel()
    for _ in range(ROUNDS):
        rough = _odds(_mixtures(thinned, ink, p), thinned).reshape(SIDE // 2, SIDE // 2)
        p = 1 / (1 + np.exp(against - (half @ rough @ half.T).ravel()))
    odds = _odds(_mixtures(thinned, ink, p, SURE), terms)
    return np.asarray(blur @ odds.reshape(SIDE, SIDE) @ blur.T + prior, np.float32)


@cache
def _prior() -> Image32:
    line = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) / SIDE
    return np.asarray(SLOPE * (REACH - np.hypot(line[:, None], line[None, :])), np.float32)


@cache
def blurring(side: int, sigma: float) -> Image32:
    """(side, side) matrix of a Gaussian blur along one axis: two products of matrices are quicker than scipy's filter here."""
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0), np.float32)


LEAST_VARIANCE, LEAST_WEIGHT = 2e-3, np.float32(1e-6)
"""Added to each variance: a part of one colour has a width too. And to each pixel's weight: a part may be empty."""
FARTHEST = np.float32(-80)
"""Least logarithm of a likelihood, which float32 can still tell from 0."""


def _terms(colours: Image32) -> Image32:
    """(10, pixels): 1, the three colours, their six products. Every Gaussian is a sum of them, and learnt from sums of them.

    Parameters
    ----------
    colours : (3, pixels)
    """
    out = np.ones((10, colours.shape[1]), np.float32)
    out[1:4] = colours
    for row, (first, second) in enumerate(((1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)), start=4):
        np.multiply(out[first], out[second], out=out[row])
    return out


def _mixtures(terms: Image32, ink: Image32, p: Image32, power: int = 1) -> Image32:
    """(4, 10) factors of ``_terms`` for the Gaussians of the darker and of the paler part: of the cell and of what is around
    it, then the same two of the paler parts.

    Parameters
    ----------
    p : (pixels,) probability that a pixel is the cell's
    power : of the probabilities, by which pixels teach
    """
    weights = np.empty((2, len(p)), np.float32)  # of the cell, of what is around it
    weights[0] = p
    np.subtract(1, p, out=weights[1])
    if power > 1:
        weights **= power
    whole = weights.sum(1)
    parts = np.empty((4, len(p)), np.float32)
    np.multiply(weights, ink > (weights @ ink / whole)[:, None], out=parts[:2])
    np.subtract(weights, parts[:2], out=parts[2:])
    parts += LEAST_WEIGHT
    sums, shares = (parts @ terms.T).tolist(), 2 * whole.tolist()
    return np.array([_gaussian(one, of) for one, of in zip(sums, shares, strict=True)], np.float32)


def _odds(factors: Image32, terms: Image32) -> Image32:
    """(pixels,) log-likelihood of the cell's mixture less that of its surroundings, within +-6; 0 far from both."""
    likely = factors @ terms
    np.maximum(likely, FARTHEST, out=likely)
    np.exp(likely, out=likely)
    both = np.log(likely[:2] + likely[2:])
    return np.asarray(np.maximum(np.minimum(both[0] - both[1], MOST), -MOST))  # numpy.clip takes twice as long to be asked


def _gaussian(sums: list[float], whole: float) -> list[float]:
    """Factors of ``_terms`` that make the logarithm of a Gaussian times its share of the ``whole``, from the sums of its terms:
    in plain numbers, NumPy takes longer to be asked than to answer here."""
    n, x, y, z, xx, xy, xz, yy, yz, zz = sums
    x, y, z = x / n, y / n, z / n
    a, b, c = xx / n - x * x + LEAST_VARIANCE, xy / n - x * y, xz / n - x * z  # the covariance, row by row, upper triangle
    d, e, f = yy / n - y * y + LEAST_VARIANCE, yz / n - y * z, zz / n - z * z + LEAST_VARIANCE
    cofactors = d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * cofactors[0] + b * cofactors[1] + c * cofactors[2]
    a, b, c, d, e, f = (one / determinant for one in cofactors)  # now its inverse
    p, q, r = a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z
    constant = math.log(n / whole) - 0.5 * math.log(determinant) - 0.5 * (x * p + y * q + z * r)
    return [constant, p, q, r, -0.5 * a, -b, -c, -0.5 * d, -e, -0.5 * f]


def ink_of(absorbed: Image32) -> Image32:
    """Absorbance of the three colours together, (3, ...) -> (...,): colour by colour, steps over three values cost more."""
    return np.asarray(absorbed[0] + absorbed[1] + absorbed[2])
