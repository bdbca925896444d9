"""Finds of one field that lie beside each other: pieces of one cell, or cells that touch. A base module."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nca_edge.records import Box, Detection

Neighbour = tuple[float, float, float]
"""Another cell of a field: (x, y) of its centre in sides of the crop, and how often as wide it is as the cell."""
APART_UM = 9.4
"""Centres of pieces of one cell are no further apart."""
BOXES = 0.25
"""Overlap of their boxes, share of the smaller one, at least: in the 582 fields of bccd and chula pieces of one cell have 0.29
and more, two cells that touch 0.16 at most, or centres 10.3 um apart."""


def may_be_one(a: Box, b: Box, um_per_px: float) -> bool:
    """Whether two finds may be pieces of one cell, by their boxes."""
    return math.dist(a.center, b.center) * um_per_px <= APART_UM and _overlap(a, b) >= BOXES


def _overlap(a: Box, b: Box) -> float:
    """Share of the smaller box."""
    w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    return max(0, w) * max(0, h) / min(a.w * a.h, b.w * b.h)


def neighbours(cell: Detection, found: Sequence[Detection], um_per_px: float, view_um: float) -> tuple[Neighbour, ...]:
    """Other cells of the field whose centres lie within a crop's side of the cell's.

    Pieces of one cell are none: each outlines the whole of it, and by that they are known (``nca_edge.pieces``).

    Parameters
    ----------
    found : all of the field
    view_um : side of the crop
    """
    (x, y), box, side_px = cell.box.center, cell.box, view_um / um_per_px
    out = []
    for other in found:
        dx, dy = (other.box.center[0] - x) / side_px, (other.box.center[1] - y) / side_px
        if other is not cell and max(abs(dx), abs(dy)) < 1 and not may_be_one(box, other.box, um_per_px):
            out.append((0.5 + dx, 0.5 + dy, math.sqrt(other.box.w * other.box.h / (box.w * box.h))))
    return tuple(out)
