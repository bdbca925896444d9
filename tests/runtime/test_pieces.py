"""Pieces of one cell are one cell; cells that touch stay two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sessions import cell

from nca_edge.pieces import whole_cells
from nca_edge.records import Box, CellReading, Image8

UM_PER_PX = 0.1
SIDE = 260
"""Of a crop, px."""


def field(discs: list[tuple[int, int, int]]) -> Image8:
    """A mask of a whole field: nuclei at (x, y) of so large a radius, each in a cell of its own or of others."""
    y, x = np.mgrid[:600, :800]
    out = np.zeros((600, 800), np.uint8)
    for cx, cy, r in discs:
        out[((x - cx) ** 2 + (y - cy) ** 2 < (r + 30) ** 2) & (out == 0)] = 128
    for cx, cy, r in discs:
        out[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = 255
    return out


def find(n: int, box: Box, mask: Image8, label: str = "lymphocyte", border: bool = False) -> CellReading:
    """A find whose crop shows this mask of the field."""
    x, y = round(box.center[0] - SIDE / 2), round(box.center[1] - SIDE / 2)
    shown = np.pad(mask, SIDE)[y + SIDE : y + 2 * SIDE, x + SIDE : x + 2 * SIDE]
    one = cell(n)
    return replace(
        one, detection=replace(one.detection, box=box, border=border), counted=not border,
        prediction=replace(one.prediction, label=label), explanation=replace(one.explanation, mask=shown),
    )  # fmt: skip


def whole(*cells: CellReading) -> tuple[CellReading, ...]:
    return whole_cells(cells, UM_PER_PX)


LOBES = field([(370, 280, 28), (430, 300, 26), (390, 340, 27)])
BOXES = Box(330, 240, 90, 80), Box(380, 250, 95, 100), Box(340, 290, 100, 95)


def test_the_lobes_of_one_nucleus_are_one_cell() -> None:
    (one,) = whole(*(find(n, box, LOBES) for n, box in enumerate(BOXES, start=1)))
    assert one.detection.box == Box(330, 240, 145, 145) and one.cell == 1 and one.counted


def test_a_cell_of_which_one_piece_is_cut_is_cut() -> None:
    (one,) = whole(find(1, BOXES[0], LOBES), find(2, BOXES[1], LOBES, border=True))
    assert one.detection.border and not one.counted


def test_cells_that_touch_stay_two() -> None:
    pair = field([(350, 300, 36), (430, 300, 36)])  # each crop shows both nuclei
    boxes = Box(305, 255, 90, 90), Box(385, 255, 90, 90)
    found = whole(find(1, boxes[0], pair), find(2, boxes[1], pair))
    assert [c.detection.box for c in found] == list(boxes) and [c.cell for c in found] == [1, 2]


def test_finds_that_outline_two_nuclei_stay_two() -> None:
    one, two = field([(370, 300, 30)]), field([(430, 300, 30)])
    assert len(whole(find(1, Box(320, 250, 100, 100), one), find(2, Box(380, 250, 100, 100), two))) == 2


@given(st.permutations(range(3)))
def test_the_order_of_the_finds_changes_nothing(order: list[int]) -> None:
    (one,) = whole(*(find(n + 1, BOXES[n], LOBES) for n in order))
    assert one.detection.box == Box(330, 240, 145, 145)


def test_an_artefact_is_never_counted_and_nothing_is_nothing() -> None:
    (one,) = whole(find(1, BOXES[0], LOBES, label="artefact"))
    assert not one.counted
    assert whole() == ()
