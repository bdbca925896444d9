"""The pixel contract: background becomes white, micrometres become pixels, the nucleus takes the reference stain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nca_edge.preprocess import (
    STAIN_GAIN,
    STAIN_REFERENCE,
    absorbance,
    cell_view,
    correct,
    crop_background,
    match_stain,
    normalise,
    plain_view,
    window,
)


def drawn_cell(size: int = 64, ink: tuple[float, float, float] = (0.6, 1.0, 0.3)) -> np.ndarray:
    """A dark disc on white, float32 0..1."""
    row, column = np.indices((size, size)) - (size - 1) / 2
    view = np.ones((size, size, 3), np.float32)
    view[np.hypot(row, column) < size / 5] = np.exp(-np.array(ink))
    return view


@settings(max_examples=25)
@given(st.tuples(*[st.integers(90, 255)] * 3))
def test_a_tinted_crop_gets_a_white_background(tint: tuple[int, int, int]) -> None:
    rgb = np.round(drawn_cell() * np.array(tint)).astype(np.uint8)
    background = crop_background(rgb)
    assert background == pytest.approx(np.broadcast_to(tint, rgb.shape), abs=1)
    assert correct(rgb, background)[0, 0] == pytest.approx(np.ones(3), abs=0.02)


def test_a_lamp_that_falls_off_across_the_crop_is_flattened() -> None:
    """A plane in the logarithm: 30 % darker on the right than on the left; the cell keeps its absorbance."""
    lamp = 230 * np.exp(np.linspace(0.0, np.log(0.7), 64))[None, :, None]
    rgb = np.round(drawn_cell(ink=(0.5, 1.2, 0.3)) * lamp).astype(np.uint8)
    corrected = correct(rgb, crop_background(rgb))
    assert corrected[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx(np.ones((4, 3)), abs=0.02)
    assert absorbance(corrected)[32, 32] == pytest.approx(np.array([0.5, 1.2, 0.3]), abs=0.03)


def test_correction_divides_by_the_background() -> None:
    rgb = np.array([[[100, 50, 255]]], np.uint8)
    assert correct(rgb, np.array([200, 200, 200], np.float32))[0, 0].tolist() == pytest.approx([0.5, 0.25, 1.0])


def test_black_absorbs_the_most_and_white_nothing() -> None:
    assert absorbance(np.array([1.0, 0.0, np.exp(-1.0)], np.float32)).tolist() == pytest.approx([0.0, 4.0, 1.0], abs=1e-6)


def test_outside_the_image_is_white() -> None:
    image = np.zeros((10, 20, 3), np.float32)
    view = window(image, (0, 0), 6)
    assert view.shape == (6, 6, 3)
    assert view[:3].min() == 1 and view[:, :3].min() == 1 and view[3:, 3:].max() == 0
    assert window(image, (500, -500), 4).min() == 1  # wholly outside


@pytest.mark.parametrize("um_per_px", [0.05, 0.1, 0.2, 0.4])
def test_a_view_spans_micrometres_whatever_the_magnification(um_per_px: float) -> None:
    """A black square of 8 um in the middle covers 8 of 25.6 um, that is 20 of 64 pixels."""
    side, half = round(40 / um_per_px), round(4 / um_per_px)
    image = np.ones((side, side, 3), np.float32)
    middle = side // 2
    image[middle - half : middle + half, middle - half : middle + half] = 0
    view = plain_view(image, (middle, middle), um_per_px, 25.6, 64)
    assert view.shape == (64, 64, 3)
    assert (1 - view[..., 0]).sum() == pytest.approx(20 * 20, rel=0.06)


@settings(max_examples=25)
@given(st.floats(0.25, 1.0), st.tuples(*[st.floats(0.55, 1.0)] * 3))
def test_pale_stains_and_stray_light_look_the_same_after_matching(strength: float, per_channel: tuple[float, ...]) -> None:
    ink = -np.log(STAIN_REFERENCE) * strength * np.array(per_channel)
    matched = match_stain(drawn_cell(ink=tuple(ink)))
    assert matched[32, 32] == pytest.approx(np.array(STAIN_REFERENCE), abs=1e-4)
    assert matched[0, 0].tolist() == [1, 1, 1]


def half_stained(nucleus: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """A disc of one transmittance on another, float32."""
    return np.where(drawn_cell()[..., :1] < 1, nucleus, rest).astype(np.float32)


@settings(max_examples=25)
@given(st.floats(0.0, 1.5))
def test_stray_light_is_taken_away(glare: float) -> None:
    """(T + g) / (1 + g) of a cell of the reference stain: everything, not the nucleus alone, is as without the glare."""
    clear = half_stained(np.array(STAIN_REFERENCE), np.array([0.9, 0.8, 0.95]))
    assert match_stain((clear + np.float32(glare)) / np.float32(1 + glare)) == pytest.approx(clear, abs=1e-4)


@settings(max_examples=25)
@given(st.floats(1.0, 1.8))
def test_a_stronger_stain_is_thinned(strength: float) -> None:
    """Twice the dye is twice the absorbance of everything."""
    plain = half_stained(np.array(STAIN_REFERENCE), np.array([0.9, 0.8, 0.95]))
    assert match_stain(plain ** np.float32(strength)) == pytest.approx(plain, abs=1e-4)


def test_faint_noise_does_not_become_a_nucleus() -> None:
    faint = match_stain(drawn_cell(ink=(0.01, 0.01, 0.01)))
    assert 1 - faint.min() == pytest.approx((1 - np.exp(-0.01)) * STAIN_GAIN[1], rel=1e-4)


def test_matching_a_batch_is_matching_each() -> None:
    views = np.stack([drawn_cell(ink=(0.3, 0.2, 0.4)), drawn_cell(ink=(2.0, 3.0, 1.0))])
    assert np.array_equal(match_stain(views)[1], match_stain(views[1]))


def test_a_cell_view_is_a_plain_view_with_its_stain_matched() -> None:
    image = drawn_cell(120)
    assert np.array_equal(cell_view(image, (60, 60), 0.2, 20.0, 32), match_stain(plain_view(image, (60, 60), 0.2, 20.0, 32)))


def test_normalising_is_subtract_and_divide() -> None:
    out = normalise(
        np.full((1, 1, 3), 0.5, np.float32), np.array([0.5, 0.25, 0], np.float32), np.array([1, 0.5, 2], np.float32)
    )
    assert out.dtype == np.float32 and out[0, 0].tolist() == [0, 0.5, 0.25]
