"""Where the cell is: a component of the automaton's state begins, the colours of the crop finish.

NCA-WSS (2025) takes the first principal component of the state and Otsu's threshold. The state is a few grid cells coarse and
red cells crowd into its components; two mixtures of colours, one for the cell and one for what is around it, follow the outline
that the eye sees. No mask label takes part in any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nca_edge.component import cell_component, exact_otsu
from nca_edge.mixtures import MOST, SIDE, blurring, ink_of, log_odds
from nca_edge.neighbours import Neighbour
from nca_edge.preprocess import absorbance, resize
from nca_edge.records import Image8, Image32
from nca_edge.regions import box_of, central, opened, without_specks

BACKGROUND, CELL, NUCLEUS = 0, 128, 255
FINE = 160
"""Pixels a side, at most, to which outline and nucleus are enlarged by straight lines; beyond, pixels are repeated."""
CHROMATIN, SPECK = 128, 0.04
"""A nucleus is looked for under a blur of the crop's side over so much, and patches and holes of less than that share of it are
chromatin and granules."""
LEAST_INK = 0.5
"""Absorbance, the three colours together, that the darkest twentieth of a view's middle must reach: 303 cells reach 1.1, empty
patches of eight fields at most 0.07, noise 0.3. Where nothing does, two mixtures would still part it somewhere. By as much the
darkest must exceed the palest: a black picture is no cell."""
ARM = 3
"""Pixels of ``SIDE``, 1.2 um: what no disc of so large a radius fits into is cut off. Edges of red cells stuck out of white
cells without it; overlap 0.944 instead of 0.940 on segwbc1, 0.877 instead of 0.879 on segwbc2."""
BARE, MOST_BARE = 0.08, 0.1
"""Absorbance, the three colours together, below which nothing is there, and how much of an outline that may be: of 800 white
cells at most 0.02, of a platelet three quarters in the median, whose paler part learns the gap around it. Such an outline is
made again without what is bare. Never to allow it takes half a point of overlap among red cells."""


def cell_mask(state: Image32, crop: Image32, neighbours: Sequence[Neighbour] = ()) -> Image8:
    """Mask of the centred cell at the crop's resolution.

    A state that is the same everywhere, or not finite, and a crop of one colour have no component to take: nothing is outlined.

    Parameters
    ----------
    state : (grid, grid, channels) that spans the same square as the crop
    crop : (n, n, 3) float32, corrected, background 1
    neighbours : cells that are told of their own: what is nearer to one of them, by its size, is not this cell's

    Returns
    -------
    (n, n) uint8: 0 background, 128 cell, 255 nucleus where it is told apart; all 0 where there is nothing to outline
    """
    n = crop.shape[0]
    m = min(n, FINE)
    mask = np.zeros((m, m), np.uint8)
    component = cell_component(state).astype(np.float32)
    start = central(component > exact_otsu(component)) if component.any() else component > 0
    colours = absorbance(_thinned(crop))
    ink = ink_of(colours)
    middle = ink[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    if start.any() and np.count_nonzero(middle >= LEAST_INK) >= middle.size / 20 and _contrast(crop) >= LEAST_INK:
        odds, within = _outline(start, colours, ink, _beyond(neighbours))
        cell = _enlarged(odds, m)
        mask[cell] = CELL
        nucleus = _nucleus(ink, within)
        if nucleus is not None:
            mask[cell & _enlarged(nucleus, m)] = NUCLEUS
    if m == n:
        return mask
    rows = np.arange(n) * m // n
    return np.ascontiguousarray(mask[rows][:, rows])


def _outline(
    start: NDArray[np.bool_], colours: Image32, ink: Image32, beyond: NDArray[np.bool_]
) -> tuple[Image32, NDArray[np.bool_]]:
    """Log-odds of the cell, (SIDE, SIDE), positive in one patch without arms and holes, and that patch.

    Arms are cut off before the patch in the middle is taken, so that what hangs on one goes with it.
    """
    bare = ink < BARE
    for never in (None, bare):
        odds = log_odds(start, colours, never)
        odds[beyond] = -MOST
        odds = opened(odds, ARM)
        cell = central(odds > 0)
        if np.count_nonzero(cell & bare) <= MOST_BARE * np.count_nonzero(cell):
            break
    return _only(odds, cell), cell


def _only(values: Image32, kept: NDArray[np.bool_]) -> Image32:
    """Positive where ``kept``, negative elsewhere: enlarged, an outline runs between two pixels by how far both are from 0."""
    size = np.abs(values)
    return np.where(kept, size, -size)


def _beyond(neighbours: Sequence[Neighbour]) -> NDArray[np.bool_]:
    """(SIDE, SIDE) what is nearer to a neighbour than to the middle, both measured by their own width."""
    beyond = np.zeros((SIDE, SIDE), np.bool_)
    line = (np.arange(SIDE) + 0.5) / SIDE
    for x, y, width in neighbours:
        beyond |= np.hypot(line - x, line[:, None] - y) < width * np.hypot(line - 0.5, line[:, None] - 0.5)
    return beyond


def _thinned(crop: Image32) -> Image32:
    """(n, n, 3) -> (3, SIDE, SIDE): the mean of four pixels around each place. The mean of all brought nothing: overlap 0.883
    instead of 0.881 on segwbc2, a disc of 480 px under noise of 0.15 as well outlined."""
    step = crop.shape[0] / SIDE
    first, second = (((np.arange(SIDE) + at) * step).astype(np.intp) for at in (0.25, 0.75))
    rows = (crop.take(first, 0) + crop.take(second, 0)).reshape(SIDE, -1)
    colours = np.arange(3)[:, None]
    squares = rows.take(first * 3 + colours, 1) + rows.take(second * 3 + colours, 1)
    return np.ascontiguousarray(squares.transpose(1, 0, 2)) * np.float32(0.25)


def _enlarged(values: Image32, side: int) -> NDArray[np.bool_]:
    """(SIDE, SIDE) -> (side, side): where ``resize`` makes them positive. As products in a third of its time, in blocks (see
    ``component._leading``)."""
    down, across = _stretching(side)
    out = np.empty((side, side), np.bool_)
    rows = 2**18 // (SIDE * max(side, SIDE))
    for start in range(0, side, rows):
        np.greater(down[start : start + rows] @ values @ across, 0, out=out[start : start + rows])
    return out


@cache
def _stretching(side: int) -> tuple[Image32, Image32]:
    """(side, SIDE) what ``resize`` takes of each line, and the same turned: contiguous, it is read faster."""
    down = resize(np.eye(SIDE, dtype=np.float32), side, SIDE)
    return down, np.ascontiguousarray(down.T)


def _contrast(crop: Image32) -> float:
    """Absorbance, the three colours together, by which the darkest of what is shown exceeds the palest. The white beyond the
    image's edge is not shown: around a black image it would be the outline of a cell."""
    step = -(-len(crop) // SIDE)  # thinned, not reduced, which would blur that edge
    planes = np.ascontiguousarray(crop[::step, ::step].transpose(2, 0, 1))
    shown = planes.min(0) < 1
    if not shown.any():
        return 0.0
    rows, columns = box_of(shown)
    part = planes[:, rows, columns].reshape(3, -1)
    darkest, palest = absorbance(np.stack([part.min(1), part.max(1)])).sum(1)
    return float(darkest - palest)


def _nucleus(ink: Image32, cell: NDArray[np.bool_]) -> Image32 | None:
    """(SIDE, SIDE) positive where it is dark in the cell; None unless that is between a tenth and nine tenths of it and at
    least half again as dark.

    Parameters
    ----------
    ink : (SIDE, SIDE) absorbance, the three colours together
    cell : (SIDE, SIDE) where it is
    """
    if np.count_nonzero(cell) < 2:
        return None
    blur = blurring(SIDE, SIDE / CHROMATIN)
    smooth = np.asarray(blur @ ink @ blur.T, np.float32)
    inside = smooth[cell]
    over = smooth - np.float32(exact_otsu(inside))
    box = box_of(cell, 1)
    within, dark = cell[box], cell[box] & (over[box] > 0)
    speck = SPECK * dark.sum()
    dark = ~without_specks(~without_specks(dark, speck), speck) & within
    if 0.1 < dark.sum() / inside.size < 0.9 and smooth[box][dark].mean() > 1.5 * smooth[box][within & ~dark].mean():
        whole = np.full_like(ink, -1)
        whole[box] = _only(over[box], dark)
        return whole
    return None
