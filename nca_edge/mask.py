"""Where the cell is: a component of the automaton's state begins, the colours of the crop finish.

NCA-WSS (2025) takes the first principal component of the state and Otsu's threshold. The state is a few grid cells coarse and
red cells crowd into its components; two mixtures of colours, one for the cell and one for what is around it, follow the outline
that the eye sees. No mask label takes part in any of it.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nca_edge.preprocess import absorbance, otsu, resize
from nca_edge.records import Image8, Image32
from nca_edge.regions import box_of, central, opened, without_specks

COMPONENTS = 3
"""Principal components among which the mask's is chosen."""
ROUNDS_OF_POWERS = 3
"""Of three products each: the masks of 706 cells are those of six rounds, which were those of an exact decomposition on 303."""
BACKGROUND, CELL, NUCLEUS = 0, 128, 255
SIDE = 64
"""Pixels a side on which colours are mixed; 96 raised the overlap by half a point and took twice the time."""
FINE = 160
"""Pixels a side, at most, on which the outline and the nucleus are found; then they are enlarged to the crop."""
ROUNDS = (1, 1, 1, 1, 5)
"""Power of the probabilities by which pixels teach the mixtures, round by round: first all a little, so that a poor start
recovers (powers of 2 and more from the beginning: overlap 0.76 instead of 0.84 among red cells), last only the sure ones, since
the paler part of a small even cell else learns the background around it (a disc of 10 um came out 1.7 times too wide)."""
CHROMATIN, SPECK = 128, 0.04
"""A nucleus is looked for under a blur of the crop's side over so much, and patches and holes of less than that share of it are
chromatin and granules."""
LEAST_SPREAD = 1e-12
"""Sum of squares of a state about its means below which it is the same everywhere, but for rounding."""
LEAST_INK = 0.5
"""Absorbance, the three colours together, that the darkest twentieth of a view's middle must reach: 303 cells reach 1.1, empty
patches of eight fields at most 0.07, noise 0.3. Where nothing does, two mixtures would still part it somewhere. By as much the
darkest must exceed the palest: a black picture is no cell."""
DOUBT = np.float32(0.02)
"""Probability at the start that a pixel is not what the state says."""
REACH, SLOPE = 0.37, 6.4
"""Prior log-odds of a pixel: SLOPE * (REACH - its distance from the centre), in sides of the view; 9.5 um of 25.6."""
ARM = 0.04
"""Of the side, 1 um: raised the overlap by 0.3 to 0.5 points; edges of red cells stuck out of white cells without it."""
SMOOTH = 0.7
"""Blur of the log-odds, in pixels of ``SIDE``."""


def cell_mask(state: Image32, crop: Image32) -> Image8:
    """Mask of the centred cell at the crop's resolution.

    A state that is the same everywhere, or not finite, and a crop of one colour have no component to take: nothing is outlined.

    Parameters
    ----------
    state : (grid, grid, channels) that spans the same square as the crop
    crop : (n, n, 3) float32, corrected, background 1

    Returns
    -------
    (n, n) uint8: 0 background, 128 cell, 255 nucleus where it is told apart; all 0 where there is nothing to outline
    """
    n = crop.shape[0]
    m = min(n, FINE)
    image = crop if m == n else resize(crop, m, m)
    mask = np.zeros((m, m), np.uint8)
    component = cell_component(state).astype(np.float32)
    start = central(component > otsu(component)) if component.any() else component > 0
    planes = [np.ascontiguousarray(image[..., colour]) for colour in range(3)]
    colours = absorbance(np.stack([resize(plane, SIDE, SIDE) for plane in planes]))
    middle = _ink(colours)[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    if start.any() and _high(middle) >= LEAST_INK and _contrast(crop) >= LEAST_INK:
        cell = central(resize(_refined(start, colours), m, m) > 0)
        cell = central(opened(cell, max(1, round(ARM * m))))
        mask[cell] = CELL
        mask[_nucleus(planes, cell)] = NUCLEUS
    if m == n:
        return mask
    rows = np.arange(n) * m // n
    return np.ascontiguousarray(mask[rows][:, rows])


def _ink(absorbed: Image32) -> Image32:
    """Absorbance of the three colours together, (3, ...) -> (...,): colour by colour, steps over three values cost more."""
    return np.asarray(absorbed[0] + absorbed[1] + absorbed[2])


def _contrast(crop: Image32) -> float:
    """Absorbance, the three colours together, by which the darkest of what is shown exceeds the palest. The white beyond the
    image's edge is not shown: around a black image it would be the outline of a cell."""
    step = -(-len(crop) // SIDE)  # thinned, not reduced, which would blur that edge
    planes = [np.ascontiguousarray(crop[::step, ::step, colour]) for colour in range(3)]
    shown = (planes[0] < 1) | (planes[1] < 1) | (planes[2] < 1)
    if not shown.any():
        return 0.0
    box = box_of(shown)
    ends = np.array([[plane[box].min() for plane in planes], [plane[box].max() for plane in planes]])
    darkest, palest = absorbance(ends).sum(1)
    return float(darkest - palest)


def _high(values: Image32) -> float:
    """95th percentile, between the two values beside it as numpy.percentile has it, in a fifth of its time."""
    at = 0.95 * (values.size - 1)
    low, high = np.partition(values.ravel(), (int(at), int(at) + 1))[int(at) : int(at) + 2]
    return float(low + (high - low) * (at - int(at)))


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
    if not np.isfinite(values).all():
        return np.zeros((grid, grid))
    values -= values.mean(0)
    products = _products(values)
    if np.trace(products) < LEAST_SPREAD:
        return np.zeros((grid, grid))
    components = np.ascontiguousarray((values @ _leading(products, COMPONENTS)).T)
    squares = components.reshape(-1, grid, grid)
    middle = slice(3 * grid // 8, max(5 * grid // 8, 3 * grid // 8 + 1))  # always inside the cell
    border = np.concatenate([squares[:, 0], squares[:, -1], squares[:, :, 0], squares[:, :, -1]], axis=1)
    apart = (squares[:, middle, middle].mean((1, 2)) - border.mean(1)) / (components.std(1) + 1e-12)
    farthest = int(np.argmax(np.abs(apart)))
    best = np.sign(apart[farthest]) * squares[farthest]
    return np.asarray(best - best.min(), np.float64)


def _leading(matrix: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(n, at most ``count``) eigenvectors of a symmetric matrix, of the largest eigenvalues, largest first.

    By subspace iteration (Rutishauser 1969): numpy.linalg.eigh finds all of them on all cores, and waiting for a busy core took
    100 ms. Five vectors more than asked for make the error shrink by the ratio of eigenvalues that lie far apart.
    """
    width = min(len(matrix), count + 5)
    matrix = matrix / (np.trace(matrix) or 1.0)
    basis = np.eye(len(matrix))[:, np.argsort(-np.diag(matrix), kind="stable")[:width]]
    for _ in range(ROUNDS_OF_POWERS):
        basis, _ = np.linalg.qr(matrix @ (matrix @ (matrix @ basis)))
    _, turned = np.linalg.eigh(basis.T @ (matrix @ basis))
    return np.asarray(basis @ turned[:, ::-1][:, :count])


def _products(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """values.T @ values, in blocks that OpenBLAS (from 2^18 products on) does not share between threads: waking them took
    60 ms where other programs kept the cores busy, the product itself takes 0.2."""
    rows = max(1, 2**18 // values.shape[1] ** 2)
    total = np.zeros((values.shape[1],) * 2)
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        total += block.T @ block
    return total


def _refined(start: NDArray[np.bool_], absorbed: Image32) -> Image32:
    """Log-odds of cell against surroundings, (SIDE, SIDE) float32, by expectation and maximization (Dempster et al. 1977).

    Cell and surroundings are two Gaussians of absorbance each: nucleus and cytoplasm, red cells and plasma. A prior says that
    the cell lies in the middle, which is where it was cropped.

    Parameters
    ----------
    start : (grid, grid)
    absorbed : (3, SIDE, SIDE)
    """
    colours = absorbed.reshape(3, -1)
    terms = _terms(colours)
    ink = _ink(colours)
    p = DOUBT + (1 - 2 * DOUBT) * resize(start.astype(np.float32), SIDE, SIDE).ravel()
    blur, prior = _blur(SIDE, SMOOTH), _prior()
    odds = prior
    for power in ROUNDS:
        cell, around = _likelihoods(terms, ink, np.stack([p, 1 - p]) ** power if power > 1 else np.stack([p, 1 - p]))
        odds = blur @ np.clip(cell - around, -6, 6).reshape(SIDE, SIDE) @ blur.T + prior
        p = 1 / (1 + np.exp(-np.clip(odds, -8, 8).ravel()))
    return np.asarray(odds, np.float32)


@cache
def _prior() -> Image32:
    line = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) / SIDE
    return np.asarray(SLOPE * (REACH - np.hypot(line[:, None], line[None, :])), np.float32)


@cache
def _blur(side: int, sigma: float) -> Image32:
    """(side, side) matrix of a Gaussian blur along one axis: two products of matrices are quicker than scipy's filter here."""
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0), np.float32)


LEAST_VARIANCE = 2e-3
"""Added to each variance: a part of one colour has a width too."""


def _terms(colours: Image32) -> NDArray[np.float64]:
    """(10, pixels): 1, the three colours, their six products. Every Gaussian is a sum of them, and learnt from sums of them.

    Parameters
    ----------
    colours : (3, pixels)
    """
    out = np.ones((10, colours.shape[1]))
    out[1:4] = colours
    for row, (first, second) in enumerate(((1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)), start=4):
        np.multiply(out[first], out[second], out=out[row])
    return out


def _likelihoods(terms: NDArray[np.float64], ink: NDArray[np.float32], weights: Image32) -> Image32:
    """(2, pixels) log-likelihood under two mixtures, each of two Gaussians: of the darker and of the paler part of what has
    weight in it.

    Parameters
    ----------
    weights : (2, pixels)
    """
    whole = weights.sum(1)
    parts = np.empty((4, len(ink)), np.float32)
    np.multiply(weights, ink > (weights @ ink / whole)[:, None], out=parts[:2])
    np.subtract(weights, parts[:2], out=parts[2:])
    parts += np.float32(1e-6)
    sums = parts.astype(np.float64) @ terms.T
    factors = _gaussians(sums / sums[:, :1], sums[:, 0] / np.concatenate([whole, whole]))
    darker, paler = (factors @ terms).astype(np.float32).reshape(2, 2, -1)
    rest = np.abs(darker - paler)
    np.negative(rest, out=rest)
    np.exp(rest, out=rest)
    rest += 1
    np.log(rest, out=rest)
    rest += np.maximum(darker, paler)
    return np.asarray(rest)


def _gaussians(moments: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 10) factors of ``_terms`` that make the logarithm of a share times a Gaussian, for n Gaussians of these moments."""
    return np.array([_gaussian(one, share) for one, share in zip(moments.tolist(), shares.tolist(), strict=True)])


def _gaussian(moments: list[float], share: float) -> list[float]:
    """One of them, in plain numbers: NumPy takes longer to be asked than to answer here."""
    _, x, y, z, xx, xy, xz, yy, yz, zz = moments
    a, b, c = xx - x * x + LEAST_VARIANCE, xy - x * y, xz - x * z  # the covariance, row by row, upper triangle
    d, e, f = yy - y * y + LEAST_VARIANCE, yz - y * z, zz - z * z + LEAST_VARIANCE
    cofactors = d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * cofactors[0] + b * cofactors[1] + c * cofactors[2]
    a, b, c, d, e, f = (one / determinant for one in cofactors)  # now its inverse
    p, q, r = a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z
    constant = math.log(share) - 0.5 * math.log(determinant) - 0.5 * (x * p + y * q + z * r)
    return [constant, p, q, r, -0.5 * a, -b, -c, -0.5 * d, -e, -0.5 * f]


def _nucleus(planes: list[Image32], cell: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is dark in the cell; empty unless it is between a tenth and nine tenths of it and at least half again as dark.

    Parameters
    ----------
    planes : the crop, colour by colour
    cell : where it is, as large as a plane
    """
    from scipy import ndimage

    none = np.zeros_like(cell)
    if not cell.any():
        return none
    blur = len(cell) / CHROMATIN
    around = box_of(cell, margin=1 + round(4 * blur))  # as far as the blur reaches
    ink = ndimage.gaussian_filter(_ink(absorbance(np.stack([plane[around] for plane in planes]))), blur)
    within = cell[around]
    if np.ptp(ink[within]) == 0:
        return none
    dark = within & (ink > otsu(ink[within]))
    speck = SPECK * dark.sum()
    dark = ~without_specks(~without_specks(dark, speck), speck) & within
    if 0.1 < dark.sum() / within.sum() < 0.9 and ink[dark].mean() > 1.5 * ink[within & ~dark].mean():
        none[around] = dark
    return none
