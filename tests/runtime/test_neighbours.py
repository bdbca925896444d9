"""Which other finds of a field bound a cell's outline."""

import pytest

from nca_edge.neighbours import may_be_one, neighbours
from nca_edge.records import Box, Detection

UM_PER_PX, VIEW_UM = 0.1, 25.6


def find(x: int, y: int, w: int, h: int) -> Detection:
    return Detection(Box(x, y, w, h), False, 1.0)


CELL = find(100, 100, 100, 100)
TOUCHING = find(190, 100, 200, 50)
LOBE = find(150, 110, 80, 80)
"""Its box and the cell's have 0.5 of it in common, the centres lie 4 um apart."""
FAR = find(600, 100, 100, 100)


def test_a_touching_cell_is_told_by_place_and_width() -> None:
    assert neighbours(CELL, [CELL, TOUCHING, FAR], UM_PER_PX, VIEW_UM) == (
        (pytest.approx(0.5 + 140 / 256), pytest.approx(0.5 - 25 / 256), pytest.approx(1.0)),
    )


def test_a_piece_of_the_same_cell_bounds_nothing() -> None:
    """Each piece outlines the whole cell: by the nucleus that they have in common they are known to be one."""
    assert may_be_one(CELL.box, LOBE.box, UM_PER_PX) and not may_be_one(CELL.box, TOUCHING.box, UM_PER_PX)
    assert neighbours(CELL, [CELL, LOBE], UM_PER_PX, VIEW_UM) == ()


def test_boxes_as_near_in_pixels_are_two_cells_where_a_pixel_is_wide() -> None:
    assert not may_be_one(CELL.box, LOBE.box, 0.4)
