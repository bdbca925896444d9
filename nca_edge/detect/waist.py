"""Two cells that touch, told from one by the waist between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.detect.shapes import Labels, Mask

WAIST_SPAN_UM, WAIST_ROUND = 16.0, 0.68
"""Bodies that meet at a waist, on less than the thickness of the thinner, are two where both together are longer and less round
than this: two discs that touch, of which the larger makes the whole rounder than 0.5. Among 128 pairs on bccd, chula and
acevedo20 whose nuclei have 13 um2 each, five such were two cells; those that were one were shorter than 15 um, rounder than 0.7
or met on 1.18 times that thickness."""

SIDES = 4.0 / np.pi
"""Sides of pixels along a border over its length, mean over directions."""


def side_by_side(cells: Labels, pair: tuple[int, int], px_per_um: float) -> bool:
    """Whether two bodies are two cells beside each other.

    Parameters
    ----------
    cells : (height, width) int32
    pair : labels of both
    """
    from scipy import ndimage

    places = ndimage.find_objects(cells, max(pair))
    rows, cols = zip(*(places[i - 1] for i in pair), strict=True)
    window = cells[
        min(r.start for r in rows) : max(r.stop for r in rows), min(c.start for c in cols) : max(c.stop for c in cols)
    ]
    one, two = window == pair[0], window == pair[1]
    low, high = widths((one | two).astype(np.int32), 1, (slice(0, None), slice(0, None)))
    if not is_elongated(high - low, px_per_um):
        return False
    sides = sum(int((a & b).sum()) for p, q in ((one, two), (two, one)) for a, b in ((p[1:], q[:-1]), (p[:, 1:], q[:, :-1])))
    return bool(sides / SIDES < min(_thickness(one), _thickness(two)))


def is_elongated(width: NDArray[np.float64], px_per_um: float) -> bool:
    """By its extents in px: longer than most cells, and not round."""
    return bool(width.max() > WAIST_SPAN_UM * px_per_um and width.min() < WAIST_ROUND * width.max())


def widths(labels: Labels, index: int, slices: tuple[slice, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Extent of one label along 12 directions: lowest and highest projection, (12,) float64 each, px."""
    y, x = np.nonzero(labels[slices] == index)
    angle = np.arange(12) * np.pi / 12
    along = np.multiply.outer(np.cos(angle), x + slices[1].start) + np.multiply.outer(np.sin(angle), y + slices[0].start)
    return along.min(axis=1), along.max(axis=1)


def _thickness(body: Mask) -> float:
    """Of its thickest place, px."""
    from scipy import ndimage

    return 2.0 * float(ndimage.distance_transform_edt(np.pad(body, 1)).max())
