"""Finds of one field that are pieces of one cell: the lobes of a large or a multilobed nucleus, each taken for a cell.

A piece's mask shows the nucleus of the whole cell, whichever lobe it is centred on; so pieces of one cell outline the same
nucleus, and their boxes overlap (``nca_edge.neighbours``). In the 582 fields of bccd and chula, nuclei of pairs that are one
cell (bar a blurred smudge) overlap by 0.74 and more. A base module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nca_edge.differential import ARTEFACT
from nca_edge.mask import NUCLEUS
from nca_edge.neighbours import may_be_one
from nca_edge.records import Box, CellReading

NUCLEI = 0.7
"""Overlap (IoU) of the nuclei that their masks outline, at least."""


@dataclass(frozen=True, slots=True)
class _Piece:
    cell: CellReading
    """The find whose mask stands for all of them."""
    box: Box
    """Around all of them."""
    border: bool


def whole_cells(cells: Sequence[CellReading], um_per_px: float) -> tuple[CellReading, ...]:
    """The cells with pieces of one cell made one, numbered from 1: its box is around all, its reading that of the piece
    nearest to its centre.

    Parameters
    ----------
    um_per_px : of the field that boxes and crops belong to
    """
    pieces = [_Piece(cell, cell.detection.box, cell.detection.border) for cell in cells]
    while (pair := _one_cell(pieces, um_per_px)) is not None:
        first, second = pair
        pieces[pieces.index(first)] = _joined(first, second)
        pieces.remove(second)
    return tuple(_reading(piece, n) for n, piece in enumerate(pieces, start=1))


def _one_cell(pieces: list[_Piece], um_per_px: float) -> tuple[_Piece, _Piece] | None:
    """The two that are surest to be one; None where none are."""
    best, found = 0.0, None
    for first, second in combinations(pieces, 2):
        if not may_be_one(first.box, second.box, um_per_px):
            continue
        alike = _nuclei(first.cell, second.cell)
        if alike >= NUCLEI and alike > best:
            best, found = alike, (first, second)
    return found


def _joined(first: _Piece, second: _Piece) -> _Piece:
    a, b = first.box, second.box
    x, y = min(a.x, b.x), min(a.y, b.y)
    box = Box(x, y, max(a.x + a.w, b.x + b.w) - x, max(a.y + a.h, b.y + b.h) - y)
    middle = min((first.cell, second.cell), key=lambda cell: _distance(cell.detection.box, box))
    return _Piece(middle, box, first.border or second.border)


def _reading(piece: _Piece, number: int) -> CellReading:
    detection = replace(piece.cell.detection, box=piece.box, border=piece.border)
    counted = piece.cell.prediction.label != ARTEFACT and not piece.border
    return replace(piece.cell, cell=number, detection=detection, counted=counted)


def _distance(a: Box, b: Box) -> float:
    return float(np.hypot(a.center[0] - b.center[0], a.center[1] - b.center[1]))


def _nuclei(a: CellReading, b: CellReading) -> float:
    """Overlap (IoU) of the nuclei of two crops of one field; 0 where none is told apart."""
    one, two = a.explanation.mask == NUCLEUS, b.explanation.mask == NUCLEUS
    dx, dy = (round(q - p) for p, q in zip(a.detection.box.center, b.detection.box.center, strict=True))
    both = int((_part(one, dx, dy) & _part(two, -dx, -dy)).sum())
    return both / max(1, int(one.sum()) + int(two.sum()) - both)


def _part(mask: NDArray[np.bool_], dx: int, dy: int) -> NDArray[np.bool_]:
    """What a crop whose centre lies (dx, dy) further shows too."""
    h, w = mask.shape
    return mask[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
