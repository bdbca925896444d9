"""Sizes by hand, and a stated result where a mask cannot tell them."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nca_edge.camera import read_image
from nca_edge.classifier import ModelChoice, load
from nca_edge.measure import CUT, NO_NUCLEUS, NO_SCALE, NOTHING, circularity, kept, measure, outside_share, seen_part
from nca_edge.records import ChannelRelevance, Explanation, Image8, Measures, Scale
from nca_edge.samples import sample_fields
from nca_edge.single_cell import read_crop

GIVEN = Scale(0.5, "given")


def masked(size: int = 20) -> Image8:
    """10 x 8 px of cell, 4 x 5 of them nucleus."""
    mask = np.zeros((size, size), np.uint8)
    mask[4:14, 5:13] = 128
    mask[6:10, 6:11] = 255
    return mask


def disc(size: int, radius: float) -> np.ndarray:
    row, column = np.indices((size, size)) - (size - 1) / 2
    return np.asarray(np.hypot(row, column) < radius)


def test_measures_by_hand() -> None:
    m = measure(masked(), GIVEN)
    assert m.area_um2 == pytest.approx(80 * 0.25) and m.nucleus_area_um2 == pytest.approx(20 * 0.25)
    assert m.equivalent_diameter_um == pytest.approx(2 * (80 * 0.25 / np.pi) ** 0.5)
    assert m.nucleus_share == pytest.approx(0.25) and m.nucleus_cytoplasm_ratio == pytest.approx(20 / 60)
    assert m.reason is None


@pytest.mark.parametrize("radius", [8, 20, 50, 75])
@pytest.mark.parametrize("enlarged", [1, 2, 3])
def test_a_disc_is_round_at_any_size_and_when_it_was_enlarged(radius: int, enlarged: int) -> None:
    assert circularity(np.kron(disc(160, radius), np.ones((enlarged, enlarged), bool))) == pytest.approx(1, abs=0.01)


def test_what_is_no_disc_is_less_round() -> None:
    square = np.ones((60, 60), bool)
    assert circularity(square) == pytest.approx(0.875, abs=0.01)  # pi / 4 by a ruler: see its docstring
    assert circularity(np.ones((15, 60), bool)) == pytest.approx(0.56, abs=0.01)
    star = disc(60, 25) & ~disc(60, 12)
    assert circularity(star) < 0.5


@given(st.integers(0, 2**32), st.floats(0.01, 2))
def test_no_measure_is_ever_out_of_bounds_or_no_number(seed: int, um_per_px: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((12, 15), np.uint8)
    mask[1:-1, 1:-1] = rng.choice(np.array([0, 128, 255], np.uint8), (10, 13), p=rng.dirichlet([1, 1, 1]))
    m = measure(mask, Scale(um_per_px, "given"))
    numbers = [value for value in asdict(m).values() if isinstance(value, float)]
    assert all(np.isfinite(value) and value >= 0 for value in numbers)
    assert m.circularity is None or 0 < m.circularity <= 1
    assert (m.area_um2 is None) == (not mask.any())


def test_an_empty_mask_has_no_measures_and_says_why() -> None:
    assert measure(np.zeros((9, 9), np.uint8), GIVEN) == NOTHING
    assert NOTHING.reason and all(value is None for name, value in asdict(NOTHING).items() if name != "reason")


@pytest.mark.parametrize("edge", [np.s_[0, 7], np.s_[-1, 7], np.s_[7, 0], np.s_[7, -1]])
def test_a_mask_that_touches_the_border_has_no_measures(edge: tuple[int, int]) -> None:
    mask = masked()
    mask[edge] = 128
    assert measure(mask, GIVEN) == Measures(reason=CUT)


def test_a_cell_that_fills_the_crop_has_no_measures() -> None:
    assert measure(np.full((9, 9), 128, np.uint8), GIVEN) == Measures(reason=CUT)


def test_a_cell_cut_by_the_image_inside_the_view_has_no_measures() -> None:
    """The view is 20 px wide, the image ends at its column 13, where the mask ends too."""
    assert measure(masked(), GIVEN, (0, 0, 13, 20)) == Measures(reason=CUT)
    assert measure(masked(), GIVEN, (0, 0, 14, 20)).reason is None


def test_no_nucleus_is_said() -> None:
    mask = np.minimum(masked(), 128).astype(np.uint8)
    m = measure(mask, GIVEN)
    assert (m.nucleus_share, m.nucleus_cytoplasm_ratio, m.nucleus_area_um2, m.reason) == (None, None, None, NO_NUCLEUS)
    assert m.area_um2 is not None


def test_without_a_scale_there_are_shapes_and_no_sizes() -> None:
    m = measure(masked(), Scale(0.1, "view"))
    assert (m.area_um2, m.equivalent_diameter_um, m.nucleus_area_um2, m.reason) == (None, None, None, NO_SCALE)
    assert m.circularity is not None and m.nucleus_share == pytest.approx(0.25)


def test_nothing_but_nucleus_has_no_ratio() -> None:
    mask = np.where(masked() > 0, 255, 0).astype(np.uint8)
    assert measure(mask, GIVEN).nucleus_cytoplasm_ratio is None and measure(mask, GIVEN).nucleus_share == 1


def test_the_part_that_is_seen() -> None:
    assert seen_part((10, 10), 8, (20, 20)) == (0, 0, 8, 8)
    assert seen_part((2, 18), 8, (20, 20)) == (2, 0, 8, 6)


def channel(relevance: float, peak: tuple[int, int], grid: int = 10) -> ChannelRelevance:
    return ChannelRelevance(0, relevance, peak, np.zeros((grid, grid), np.float32))


def test_the_share_of_relevance_outside_by_hand() -> None:
    """A grid cell is 2 px wide: one that the mask touches counts as inside, and what speaks against does not count."""
    top = (channel(3.0, (8, 8)), channel(1.0, (1, 1)), channel(-9.0, (1, 1)), channel(1.0, (4, 9)))
    assert outside_share(top, masked()) == pytest.approx(1 / 5)
    assert outside_share(top, np.zeros((20, 20), np.uint8)) is None
    assert outside_share((channel(-1.0, (8, 8)),), masked()) is None


def test_what_a_session_keeps() -> None:
    why = Explanation("a", 1.0, (), 0.0, 0.0, masked(), 0.75, Measures(area_um2=1 / 3, reason="because"))
    assert kept(why) == {"area_um2": 0.333333, "reason": "because", "outside_share": 0.75, "rests_on_background": True}


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_an_image_of_one_colour_has_no_mask_and_says_so(shade: int) -> None:
    reading = read_crop(np.full((120, 120, 3), shade, np.uint8), load(ModelChoice(backend="onnx", threads=1)))
    assert reading.explanation is not None and not reading.explanation.mask.any()
    assert reading.explanation.measures == NOTHING and reading.explanation.outside_share is None
    assert all(np.isfinite(top.relevance) for top in reading.explanation.top_channels)


@pytest.mark.parametrize(("level", "spread"), [(240, 1), (240, 25), (128, 3)])
def test_an_empty_image_has_no_mask_however_it_is_noisy(level: int, spread: int) -> None:
    rgb = np.clip(np.random.default_rng(0).normal(level, spread, (120, 120, 3)), 0, 255).astype(np.uint8)
    for um_per_px in (0.1, 0.2):
        reading = read_crop(rgb, load(ModelChoice(backend="onnx", threads=1)), um_per_px)
        assert reading.explanation is not None and not reading.explanation.mask.any()
        assert reading.explanation.measures == NOTHING


def test_plasma_between_cells_has_no_mask() -> None:
    field = read_image(sample_fields() / "bccd-BloodImage_00209.jpg")
    empty = np.ascontiguousarray(field[380:450, 290:360])
    reading = read_crop(empty, load(ModelChoice(backend="onnx", threads=1)), 0.25)
    assert reading.explanation is not None and not reading.explanation.mask.any()


def test_a_cell_that_fills_the_image_is_named_and_not_measured(cells: tuple[Image8, ...]) -> None:
    """The middle of a nucleus, enlarged: there is no edge of a cell to be seen."""
    h, w = cells[0].shape[:2]
    middle = np.ascontiguousarray(cells[0][h * 2 // 5 : h * 3 // 5, w * 2 // 5 : w * 3 // 5])
    reading = read_crop(middle.repeat(5, 0).repeat(5, 1), load(ModelChoice(backend="onnx", threads=1)), 0.1)
    assert reading.explanation is not None
    measures = reading.explanation.measures
    assert measures.area_um2 is None and measures.reason in (CUT, NOTHING.reason)
