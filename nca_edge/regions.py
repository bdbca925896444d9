"""Regions of a mask: the one in the middle, without holes, specks and thin arms. A base module: anybody may import it.

All of it works in the box around what is set, which is a quarter of a crop and less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
    labels, _ = ndimage.label(part, _CROSS)
    lines = [((np.arange(n) - (n - 1) / 2) ** 2)[one] for n, one in zip(mask.shape, box, strict=True)]
    distance = np.where(part, lines[0][:, None] + lines[1][None, :], np.inf)
    nearest = labels == labels.ravel()[np.argmin(distance)]
    if _plain(nearest[box_of(nearest)]):
        whole[box] = nearest
        return whole
    beyond = np.ones((part.shape[0] + 2, part.shape[1] + 2), np.bool_)
    np.logical_not(nearest, out=beyond[1:-1, 1:-1])
    outside, _ = ndimage.label(beyond, _CROSS)
    whole[box] = (outside != outside[0, 0])[1:-1, 1:-1]
    return whole


def _plain(part: Mask) -> bool:
    """Whether what is set, which fills its box, can be told to be one patch without holes at a glance: one run in every row, or
    in every column, each beside the next. Most cells and nuclei are so, and labels take ten times as long."""
    for lines in (part, part.T):
        runs = np.count_nonzero(lines[:, 1:] > lines[:, :-1], axis=1) + lines[:, 0]
        if (runs == 1).all() and (lines[1:] & lines[:-1]).any(1).all():
            return True
    return False


def without_specks(mask: Mask, least: float) -> Mask:
    """The patches of at least so many pixels."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask, _CROSS)
    large = np.bincount(labels.ravel()) >= least
    large[0] = False
    return np.asarray(large[labels])


def opened(mask: Mask, radius: int) -> Mask:
    """Without what no disc of ``radius`` px fits into: morphological opening (scipy's takes three times as long).

    A disc is a union of rectangles, and how much of a rectangle is set is told by four values of a summed table.
    """
    whole = np.zeros_like(mask)
    if not mask.any():
        return whole
    box = box_of(mask)
    height, width = mask[box].shape
    part = np.zeros((height + 4 * radius, width + 4 * radius), np.bool_)
    part[2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width] = mask[box]
    rectangles = _rectangles(radius)
    eroded = _windows(part, rectangles, full=True)
    whole[box] = _windows(eroded, rectangles, full=False)
    return whole


def _rectangles(radius: int) -> list[tuple[int, int]]:
    """(half height, half width) of the rectangles whose union is the disc."""
    widths = [int((radius**2 - row**2) ** 0.5) for row in range(radius + 1)]
    return [(row, width) for row, width in enumerate(widths) if row == radius or widths[row + 1] < width]


def _windows(mask: Mask, rectangles: list[tuple[int, int]], full: bool) -> Mask:
    """Where every rectangle is all set (``full``), or where any is set in part; as much smaller as the largest needs."""
    radius = rectangles[-1][0]
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, 0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], 1, out=table[1:, 1:])
    height, width = mask.shape[0] - 2 * radius, mask.shape[1] - 2 * radius
    answer = np.full((height, width), full)
    for h, w in rectangles:
        low, high, left, right = radius - h, radius + h + 1, radius - w, radius + w + 1
        upper, lower = table[low : low + height], table[high : high + height]
        strip = lower - upper
        count = strip[:, right : right + width] - strip[:, left : left + width]
        if full:
            answer &= count == (2 * h + 1) * (2 * w + 1)
        else:
            answer |= count > 0
    return answer
