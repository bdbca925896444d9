"""Where the cell is: a component of the automaton's state begins, the colours of the crop finish.

NCA-WSS (2025) takes the first principal component of the state and Otsu's threshold. The state is a few grid cells coarse and
red cells crowd into its components; two mixtures of colours, one for the cell and one for what is around it, follow the outline
that the eye sees. No mask label takes part in any of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.mixtures import SIDE, blurring, ink_of, log_odds
from nca_edge.preprocess import absorbance, resize
from nca_edge.records import Image8, Image32
from nca_edge.regions import box_of, central, opened, without_specks

COMPONENTS = 3
"""Principal components among which the mask's is chosen."""
POWERS = 4
"""Products with their matrix that find them; six leave the overlaps of both segwbc sets the same to three digits."""
BACKGROUND, CELL, NUCLEUS = 0, 128, 255
FINE = 160
"""Pixels a side, at most, to which outline and nucleus are enlarged by straight lines; beyond, pixels are repeated."""
CHROMATIN, SPECK = 128, 0.04
"""A nucleus is looked for under a blur of the crop's side over so much, and patches and holes of less than that share of it are
chromatin and granules."""
LEAST_SPREAD = 1e-12
"""Sum of squares of a state about its means below which it is the same everywhere, but for rounding."""
LEAST_INK = 0.5
"""Absorbance, the three colours together, that the darkest twentieth of a view's middle must reach: 303 cells reach 1.1, empty
patches of eight fields at most 0.07, noise 0.3. Where nothing does, two mixtures would still part it somewhere. By as much the
darkest must exceed the palest: a black picture is no cell."""
ARM = 0.04
"""Of the side, 1 um: raised the overlap by 0.3 to 0.5 points; edges of red cells stuck out of white cells without it."""


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
    mask = np.zeros((m, m), np.uint8)
    component = cell_component(state).astype(np.float32)
    start = central(component > _split(component)) if component.any() else component > 0
    colours = absorbance(_thinned(crop))
    ink = ink_of(colours)
    middle = ink[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    if start.any() and _high(middle) >= LEAST_INK and _contrast(crop) >= LEAST_INK:
        odds = log_odds(start, colours)
        cell = central(opened(_enlarged(odds, central(odds > 0), m), max(1, round(ARM * m))))
        mask[cell] = CELL
        mask[cell & _nucleus(ink, cell)] = NUCLEUS
    if m == n:
        return mask
    rows = np.arange(n) * m // n
    return np.ascontiguousarray(mask[rows][:, rows])


def _thinned(crop: Image32) -> Image32:
    """(n, n, 3) -> (3, SIDE, SIDE): the mean of four pixels around each place. The mean of all brought nothing: overlap 0.883
    instead of 0.881 on segwbc2, a disc of 480 px under noise of 0.15 as well outlined."""
    step = crop.shape[0] / SIDE
    first, second = (((np.arange(SIDE) + at) * step).astype(np.intp) for at in (0.25, 0.75))
    rows = crop.take(first, 0) + crop.take(second, 0)
    squares = (rows.take(first, 1) + rows.take(second, 1)) * np.float32(0.25)
    return np.ascontiguousarray(squares.transpose(2, 0, 1))


def _enlarged(values: Image32, kept: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """(side, side) what is ``kept``: its outline runs between two pixels by how far their ``values`` are from 0."""
    return resize(np.where(kept, np.abs(values), -np.abs(values)), side, side) > 0


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


def _split(values: Image32) -> float:
    """Otsu's threshold (Otsu 1979), of all there are: to sort so few takes less time than to count them in bins."""
    ordered = np.sort(values, axis=None)
    n = ordered.size
    below = np.cumsum(ordered, dtype=np.float64)
    counts = np.arange(1, n)
    between = (below[-1] * counts - below[:-1] * n) ** 2 / (counts * (n - counts))
    at = int(np.argmax(between))
    return float(ordered[at] + ordered[at + 1]) / 2


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
    if not np.isfinite(state).all():
        return np.zeros((grid, grid))
    step = max(1, grid // 16)
    sample = (state[::step, ::step] - state[0, 0]).reshape(-1, channels).astype(np.float64)  # exactly 0 where all is the same
    sample -= sample.mean(0)
    products = _products(sample)
    if np.trace(products) < LEAST_SPREAD:
        return np.zeros((grid, grid))
    leading = _leading(products, COMPONENTS).T.astype(np.float32)
    components = (leading @ state.reshape(-1, channels).T).astype(np.float64)  # whose squares a large state's overflow
    components -= components.mean(1, keepdims=True)
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
    for _ in range(POWERS):
        basis = matrix @ basis
    basis, _ = np.linalg.qr(basis)
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


def _nucleus(ink: Image32, cell: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is dark in the cell; empty unless it is between a tenth and nine tenths of it and at least half again as dark.

    Parameters
    ----------
    ink : (SIDE, SIDE) absorbance, the three colours together
    cell : where it is, as large as the nucleus is told
    """
    none = np.zeros_like(cell)
    at = ((np.arange(SIDE) + 0.5) * len(cell) / SIDE).astype(np.intp)
    within = cell[at][:, at]
    blur = blurring(SIDE, SIDE / CHROMATIN)
    smooth = np.asarray(blur @ ink @ blur.T, np.float32)
    inside = smooth[within]
    if not inside.size or np.ptp(inside) == 0:
        return none
    over = smooth - np.float32(_split(inside))
    dark = within & (over > 0)
    speck = SPECK * dark.sum()
    dark = ~without_specks(~without_specks(dark, speck), speck) & within
    if 0.1 < dark.sum() / inside.size < 0.9 and smooth[dark].mean() > 1.5 * smooth[within & ~dark].mean():
        return _enlarged(over, dark, len(cell))
    return none
