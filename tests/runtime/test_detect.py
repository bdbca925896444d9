"""White cells: what is found, how large the box is, what is left alone."""

from __future__ import annotations

import fields
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nca_edge.detect import white_cells
from nca_edge.preprocess import correct, field_background
from nca_edge.records import Detection, Image8, RedCells
from nca_edge.scale import red_cells


def find(rgb: Image8, um_per_px: float | None = None) -> list[Detection]:
    corrected = correct(rgb, field_background(rgb))
    return white_cells(corrected, red_cells(corrected), um_per_px)


def test_boxes_hold_the_whole_cell() -> None:
    cells = find(fields.photograph(fields.smear()))
    assert [c.border for c in cells] == [False, False]
    assert cells[0].box.center == pytest.approx((200, 150), abs=6)
    assert cells[1].box.center == pytest.approx((450, 320), abs=6)
    for cell in cells:
        assert cell.box.w == pytest.approx(96, abs=14)
        assert cell.box.h == pytest.approx(96, abs=14)


def test_order_is_top_to_bottom_then_left_to_right() -> None:
    cells = find(fields.photograph(fields.smear(cells=((500, 120), (150, 250), (400, 380)))))
    assert [round(c.box.center[0], -2) for c in cells] == [500, 200, 400]


@pytest.mark.parametrize("um", [2.9, 6.0, 12.0])
def test_any_magnification(um: float) -> None:
    cells = find(fields.photograph(fields.smear(um, ((200, 150), (450, 320)))))
    assert len(cells) == 2
    assert all(c.box.w == pytest.approx(12 * um, rel=0.2) for c in cells)


def test_given_scale_is_used() -> None:
    assert len(find(fields.photograph(fields.smear()), um_per_px=1 / 8)) == 2


def test_platelets_and_red_cells_are_left_alone() -> None:
    field = fields.smear(cells=())
    for x, y in ((100, 60), (300, 236), (560, 410)):
        fields.disc(field, x, y, 2.5 * 8, fields.NUCLEUS)
    assert find(fields.photograph(field)) == []


def test_cut_cell_is_marked() -> None:
    cells = find(fields.photograph(fields.smear(cells=((320, 470),))))
    assert [c.border for c in cells] == [True]
    assert cells[0].box.y + cells[0].box.h == 480


@pytest.mark.parametrize(("x", "y"), [(320, 494), (320, -14), (-14, 240), (654, 240)])
def test_a_sliver_of_a_cell_is_none(x: int, y: int) -> None:
    """A lobe 4.2 um thick and its cytoplasm are in view: less than half a white cell."""
    assert find(fields.photograph(fields.smear(cells=((x, y),)))) == []


def test_touching_lymphocytes_are_two() -> None:
    field = fields.blank()
    fields.red_grid(field, 8.0, [(280, 240), (356, 240)])
    for x in (285, 351):
        fields.disc(field, x, 240, 8.5 * 8, fields.NUCLEUS)
    assert len(find(fields.photograph(field))) == 2


@pytest.mark.parametrize("dots", [1, 4])
def test_ink_dots_hide_no_cell(dots: int) -> None:
    field = fields.smear()
    for n in range(dots):
        fields.disc(field, 60 + 150 * n, 440, 1.8 * 8, (4.0, 4.0, 4.0))
    cells = find(fields.photograph(field))
    assert [c.box.center for c in cells] == [pytest.approx((200, 150), abs=6), pytest.approx((450, 320), abs=6)]


@pytest.mark.parametrize("stain", [(1.2, 1.2, 1.2), (0.8, 1.0, 1.3)])
def test_grey_and_brown_dirt_is_no_cell(stain: tuple[float, float, float]) -> None:
    field = fields.smear()
    fields.disc(field, 560, 100, 7.0 * 8, stain)
    assert len(find(fields.photograph(field))) == 2


def test_lobes_over_granules_as_red_as_red_cells_are_one_cell() -> None:
    field = fields.smear(cells=())
    fields.disc(field, 320, 240, 16 * 8, (0.0, 0.0, 0.0))
    fields.disc(field, 320, 240, 13 * 8, fields.RED)
    for x in (285, 355):
        fields.disc(field, x, 240, 5.4 * 8, fields.NUCLEUS)
    cells = find(fields.photograph(field))
    assert len(cells) == 1
    assert cells[0].box.center == pytest.approx((320, 240), abs=6)


def beside(field: np.ndarray, left: tuple[float, float], right: tuple[float, float]) -> None:
    """Two cells that touch at x = 320: cell and nucleus diameter of each, um."""
    for side, (cell, nucleus) in ((-1, left), (1, right)):
        x = 320 + side * (cell * 8 / 2 - 1)
        fields.disc(field, x, 240, cell * 8, fields.CYTOPLASM)
        fields.disc(field, x, 240, nucleus * 8, fields.NUCLEUS)


@pytest.mark.parametrize("sizes", [((7.5, 6.8), (12.0, 9.0)), ((9.0, 6.2), (11.0, 6.4))], ids=["dense", "pale"])
def test_two_unequal_cells_that_touch_are_two(sizes: tuple[tuple[float, float], tuple[float, float]]) -> None:
    field = fields.smear(cells=())
    fields.disc(field, 320, 240, 26 * 8, (0.0, 0.0, 0.0))
    beside(field, *sizes)
    cells = find(fields.photograph(field))
    assert [c.box.center for c in sorted(cells, key=lambda c: c.box.x)] == [
        pytest.approx((320 + side * 4 * size[0], 240), abs=8) for side, size in zip((-1, 1), sizes, strict=True)
    ]


def test_two_lobes_in_one_long_cell_are_one() -> None:
    field = fields.smear(cells=())
    fields.disc(field, 320, 240, 26 * 8, (0.0, 0.0, 0.0))
    for x in range(296, 345, 4):  # 18.5 um long, 12.5 um wide all along: no waist
        fields.disc(field, x, 240, 12.5 * 8, fields.CYTOPLASM)
    for x in (287, 353):
        fields.disc(field, x, 240, 6.4 * 8, fields.NUCLEUS)
    cells = find(fields.photograph(field))
    assert len(cells) == 1
    assert cells[0].box.center == pytest.approx((320, 240), abs=8)


def test_neighbours_with_background_between_stay_two() -> None:
    field = fields.blank()
    fields.red_grid(field, 8.0, [(280, 240), (356, 240)])
    for x in (285, 355):
        fields.disc(field, x, 240, 5.4 * 8, fields.NUCLEUS)
    assert len(find(fields.photograph(field))) == 2


def test_without_red_cells() -> None:
    field = fields.blank()
    fields.white_cell(field, 320, 240, 8.0)
    cells = find(fields.photograph(field))
    assert len(cells) == 1
    assert cells[0].box.center == pytest.approx((320, 240), abs=12)


def test_empty_field_holds_nothing() -> None:
    nothing = RedCells(0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    assert white_cells(np.ones((200, 300, 3), np.float32), nothing, None) == []


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.tuples(*[st.integers(110, 245)] * 3), st.floats(0.0, 0.4))
def test_tint_and_vignette_do_not_matter(tint: tuple[int, int, int], vignette: float) -> None:
    cells = find(fields.photograph(fields.smear(), tint, vignette))
    assert [c.box.center for c in cells] == [pytest.approx((200, 150), abs=6), pytest.approx((450, 320), abs=6)]


@pytest.mark.parametrize("axis", [0, 1])
def test_flip(axis: int) -> None:
    rgb = fields.photograph(fields.smear())
    expected = find(rgb)
    flipped = find(np.ascontiguousarray(np.flip(rgb, axis)))
    size = (640, 480)[1 - axis]
    back = sorted(size - c.box.center[1 - axis] for c in flipped)
    assert back == pytest.approx(sorted(c.box.center[1 - axis] for c in expected), abs=6)
    assert find(rgb) == expected
