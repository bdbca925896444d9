"""Regions of a mask: the one in the middle, without holes, specks and thin arms. A base module: anybody may import it.

All of it works in the box around what is set, which is a quarter of a crop and less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.records import Image32

Mask = NDArray[np.bool_]
Box = tuple[slice, slice]
"""Rows and columns."""
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
"""Neighbours of a pixel; scipy takes longer to make it than to label a crop."""


def box_of(mask: Mask, margin: int = 0) -> Box:
    """The smallest box around all that is set, ``margin`` px wider, within the mask; the mask must not be empty."""
    found = []
    for axis in (1, 0):
        at = np.flatnonzero(mask.any(axis))
        found.append(slice(max(int(at[0]) - margin, 0), int(at[-1]) + 1 + margin))
    return found[0], found[1]


def central(mask: Mask) -> Mask:
    """The patch (4-connected) that lies nearest to the centre, its holes filled; nothing where nothing is set."""
    from scipy import ndimage

    whole = np.zeros_like(mask)
    if not mask.any():
        return whole
    box = box_of(mask)
    part = mask[box]
    if _plain(part):
        whole[box] = part
        return whole
    labels, n = ndimage.label(part, _CROSS)
    nearest = part if n == 1 else labels == _nearest(part, labels, mask.shape, box)
    if not _holes(nearest):
        whole[box] = nearest
        return whole
    beyond = np.ones((part.shape[0] + 2, part.shape[1] + 2), np.bool_)
    np.logical_not(nearest, out=beyond[1:-1, 1:-1])
    outside, _ = ndimage.label(beyond, _CROSS)
    whole[box] = (outside != outside[0, 0])[1:-1, 1:-1]
    return whole


def _nearest(part: Mask, labels: NDArray[np.int32], shape: tuple[int, ...], box: Box) -> int:
    """The label of the pixel nearest to the centre of what ``part`` is the ``box`` of."""
    lines = [((np.arange(n) - (n - 1) / 2) ** 2)[one] for n, one in zip(shape, box, strict=True)]
    distance = np.where(part, lines[0][:, None] + lines[1][None, :], np.inf)
    return int(labels.ravel()[np.argmin(distance)])


def _plain(part: Mask) -> bool:
    """Whether what is set, which fills its box, can be told to be one patch without holes at a glance: one run in every row, or
    in every column, each beside the next. Most cells and nuclei are so, and labels take ten times as long."""
    for lines in (part, part.T):
        runs = np.count_nonzero(lines[:, 1:] > lines[:, :-1], axis=1) + lines[:, 0]
        if (runs == 1).all() and (lines[1:] & lines[:-1]).any(1).all():
            return True
    return False


def _holes(patch: Mask) -> int:
    """How many holes a patch (4-connected) has, by its Euler number (Gray 1971): pixels, less pairs, and squares of four, less
    squares of which only two opposite ones are set."""
    down, across = patch[1:] & patch[:-1], patch[:, 1:] & patch[:, :-1]
    below, beside = patch[1:] ^ patch[:-1], patch[:, 1:] ^ patch[:, :-1]
    crossed = beside[1:] & beside[:-1] & below[:, 1:]
    crossed &= below[:, :-1]
    counts = [np.count_nonzero(one) for one in (patch, across[1:] & across[:-1], down, across, crossed)]
    return 1 - int(counts[0] + counts[1] - counts[2] - counts[3] - counts[4])


def without_specks(mask: Mask, least: float) -> Mask:
    """The patches of at least so many pixels."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask, _CROSS)
    large = np.bincount(labels.ravel()) >= least
    large[0] = False
    return np.asarray(large[labels])


def opened(values: Image32, radius: int) -> Image32:
    """Morphological opening: at each place the most that all of some disc of ``radius`` px around it exceeds.

    What is positive then is what was, without what no disc fits into. A disc is a union of rectangles, and the least of a
    rectangle is that of rows, then of columns (scipy's takes three times as long).
    """
    height, width = values.shape
    padded = np.full((height + 4 * radius, width + 4 * radius), values.min(), values.dtype)
    padded[2 * radius : -2 * radius, 2 * radius : -2 * radius] = values
    eroded = _extreme(np.minimum, padded, radius)
    return _extreme(np.maximum, eroded, radius)


def _extreme(pick: np.ufunc, values: Image32, radius: int) -> Image32:
    """The least or most in a disc around each place; as much smaller as the disc needs."""
    height, width = (n - 2 * radius for n in values.shape)
    best = None
    for h, w in _rectangles(radius):
        lines = values[radius - h : radius + h + height, radius - w : radius + w + width]
        for axis, n in ((0, 2 * h + 1), (1, 2 * w + 1)):
            lines = _run(pick, lines, n, axis)
        best = lines if best is None else pick(best, lines, out=best)
    return np.asarray(best)


def _run(pick: np.ufunc, values: Image32, n: int, axis: int) -> Image32:
    """Of ``n`` neighbours along an axis, from runs of a half of them: log2 steps."""
    lines, have = values if axis == 0 else values.T, 1
    while have < n:
        more = min(have, n - have)
        lines = pick(lines[:-more], lines[more:])
        have += more
    return lines if axis == 0 else lines.T


def _rectangles(radius: int) -> list[tuple[int, int]]:
    """(half height, half width) of the rectangles whose union is the disc."""
    widths = [int((radius**2 - row**2) ** 0.5) for row in range(radius + 1)]
    return [(row, width) for row, width in enumerate(widths) if row == radius or widths[row + 1] < width]
