"""The scale: red cells of known size, and what is done without them."""

from __future__ import annotations

import fields
import numpy as np
import pytest
from numpy.typing import NDArray

from nca_edge.camera import read_image
from nca_edge.detect import white_cells
from nca_edge.preprocess import correct, crop_background, field_background
from nca_edge.quality import assess, assess_smear
from nca_edge.records import Image32, RedCells
from nca_edge.samples import sample_fields
from nca_edge.scale import RED_CELL_UM, crop_scale, field, field_scale, red_cells, voting


@pytest.mark.parametrize("um", [5.0, 8.0, 11.0])
def test_diameter_and_colour(um: float) -> None:
    rgb = fields.photograph(fields.smear(um), vignette=0.3)
    red = red_cells(correct(rgb, field_background(rgb)))
    assert red.n >= 8
    assert red.diameter_px == pytest.approx(RED_CELL_UM * um, rel=0.1)
    assert red.absorbance == pytest.approx(fields.RED, abs=0.04)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with every look at red cells."""
    made: list[object] = []
    whole = field._look
    monkeypatch.setattr(field, "_look", lambda *of: made.append(of) or whole(*of))
    return made


@pytest.mark.parametrize("name", sorted(path.name for path in sample_fields().glob("*.jpg")))
def test_one_look_is_enough_where_the_scale_is_known(name: str, looks: list[object]) -> None:
    rgb = read_image(sample_fields() / name)
    corrected = correct(rgb, field_background(rgb))
    quality, compared = assess(rgb, corrected), red_cells(corrected)
    looks.clear()
    alone = red_cells(corrected, scale_known=True)
    assert len(looks) == 1
    assert white_cells(corrected, alone, 0.1) == white_cells(corrected, compared, 0.1)
    assert assess_smear(quality, alone) == assess_smear(quality, compared)


@pytest.mark.parametrize("name", sorted(path.name for path in sample_fields().glob("*.jpg")))
@pytest.mark.parametrize("times", [0.9, 1.0, 1.2])
def test_red_cells_of_about_the_expected_size_are_seen_in_one_look(name: str, times: float, looks: list[object]) -> None:
    rgb = read_image(sample_fields() / name)
    corrected = correct(rgb, field_background(rgb))
    compared = red_cells(corrected)
    scale = field.field_scale(compared)
    assert scale is not None
    looks.clear()
    red = red_cells(corrected, times * scale.um_per_px)
    assert len(looks) == 1
    assert red.diameter_px == pytest.approx(compared.diameter_px, rel=0.04)
    assert red.n == pytest.approx(compared.n, rel=0.15)
    assert red.absorbance == pytest.approx(compared.absorbance, abs=0.01)


@pytest.mark.parametrize("name", sorted(path.name for path in sample_fields().glob("*.jpg")))
@pytest.mark.parametrize("times", [1e-6, 0.4, 0.5, 1.6, 2.5, 1e6])
def test_another_lens_is_noticed(name: str, times: float) -> None:
    """An expected size that no red cell of the field has changes nothing."""
    rgb = read_image(sample_fields() / name)
    corrected = correct(rgb, field_background(rgb))
    compared = red_cells(corrected)
    scale = field.field_scale(compared)
    assert scale is not None
    assert red_cells(corrected, times * scale.um_per_px) == compared


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (2, 3), (3, 2000), (63, 64)])
@pytest.mark.parametrize("expected", [None, 0.1])
def test_images_of_any_size_are_looked_at(shape: tuple[int, int], expected: float | None) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert field.field_scale(red_cells(correct(rgb, field_background(rgb)), expected)) is None


@pytest.mark.parametrize("name", sorted(path.name for path in sample_fields().glob("*.jpg")))
def test_half_of_the_radii_first_and_all_at_once_see_the_same_cells(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = read_image(sample_fields() / name)
    corrected = correct(rgb, field_background(rgb))
    halves = red_cells(corrected)
    monkeypatch.setattr(voting, "AROUND", np.inf)  # every radius is asked
    whole = red_cells(corrected)
    assert halves.diameter_px == pytest.approx(whole.diameter_px, rel=0.04)
    assert halves.n == pytest.approx(whole.n, rel=0.15)
    assert halves.absorbance == pytest.approx(whole.absorbance, abs=0.01)


def test_few_red_cells_at_high_magnification() -> None:
    """At 14 px a um four red cells fit beside two white ones, which once were taken for red cells of 164 px."""
    field = fields.blank()
    for x, y in ((90, 70), (560, 80), (420, 90), (80, 400), (230, 420), (590, 430)):
        fields.disc(field, x, y, fields.RED_UM * 14, fields.RED)
    for x, y in ((220, 200), (420, 300)):
        fields.white_cell(field, x, y, 14.0)
    rgb = fields.photograph(field)
    red = red_cells(correct(rgb, field_background(rgb)))
    assert red.n >= 4
    assert red.diameter_px == pytest.approx(RED_CELL_UM * 14, rel=0.1)


def test_wide_field_of_small_cells() -> None:
    field = fields.blank(900, 1200)
    fields.red_grid(field, 2.4, [])
    rgb = fields.photograph(field)
    assert red_cells(correct(rgb, field_background(rgb))).diameter_px == pytest.approx(RED_CELL_UM * 2.4, rel=0.1)


def test_crop_takes_no_dirt_for_red_cells() -> None:
    field = fields.blank(120, 120)
    fields.white_cell(field, 60, 60, 5.5)
    for x, y in ((12, 15), (100, 12), (14, 104), (105, 100), (60, 8)):
        fields.disc(field, x, y, 12, fields.RED)
    scale = crop_scale(crop(field), 36.0)
    assert scale.source == "cell_size"
    assert scale.um_per_px == pytest.approx(1 / 5.5, rel=0.15)


def test_crop_sees_pale_red_cells_beside_a_dark_cell() -> None:
    """The threshold took only the dark cell, and the scale was guessed from what it took for the whole of it."""
    field = fields.blank(300, 300)
    fields.white_cell(field, 150, 150, 12)
    for x, y in ((35, 35), (265, 38), (36, 265), (262, 265), (35, 105), (265, 200)):
        fields.disc(field, x, y, 60, (0.02, 0.06, 0.07))
    scale = crop_scale(crop(field), 36.0)
    assert scale.source == "red_cells"
    assert scale.um_per_px == pytest.approx(7.5 / 60, rel=0.1)


def test_field_scale() -> None:
    red = RedCells(20, 60.0, (0.1, 0.3, 0.3), (0.0, 0.0, 0.0))
    scale = field_scale(red)
    assert scale is not None
    assert (scale.um_per_px, scale.source) == (0.125, "red_cells")
    assert field_scale(RedCells(3, 60.0, (0.1, 0.3, 0.3), (0.0, 0.0, 0.0))) is None


def test_blank_has_no_red_cells() -> None:
    red = red_cells(np.ones((100, 120, 3), np.float32))
    assert (red.n, red.diameter_px, red.absorbance) == (0, 0.0, (0.0, 0.0, 0.0))


def test_specks_of_an_almost_empty_field_are_no_red_cells() -> None:
    """Their size followed the reduction at which they were looked at, and a white cell became fourteen."""
    field = fields.blank(900, 1440)
    rng = np.random.default_rng(2)
    for x, y in rng.uniform((0, 0), (1440, 900), (700, 2)):
        fields.disc(field, x, y, 9, (0.06, 0.05, 0.02))
    fields.white_cell(field, 300, 300, 11.0)
    rgb = fields.photograph(field)
    corrected = correct(rgb, field_background(rgb))
    red = red_cells(corrected)
    assert field_scale(red) is None
    assert len(white_cells(corrected, red, None)) == 1


def crop(field: NDArray[np.float64]) -> Image32:
    rgb = fields.photograph(field)
    return correct(rgb, crop_background(rgb))


def test_crop_with_red_cells() -> None:
    field = fields.blank(160, 160)
    fields.white_cell(field, 80, 80, 4.4)
    for x, y in ((25, 25), (80, 20), (135, 25), (22, 80), (138, 80), (25, 135), (80, 140), (135, 135)):
        fields.disc(field, x, y, 7.5 * 4.4, fields.RED)
    scale = crop_scale(crop(field), 36.0)
    assert scale.um_per_px == pytest.approx(1 / 4.4, rel=0.1)
    assert scale.source == "red_cells"


def test_crop_with_one_cell_only() -> None:
    field = fields.blank(120, 120)
    fields.disc(field, 60, 60, 65, fields.NUCLEUS)
    scale = crop_scale(crop(field), 36.0)
    assert scale.um_per_px == pytest.approx(13 / 65, rel=0.08)
    assert scale.source == "cell_size"


def test_empty_crop_spans_the_view() -> None:
    scale = crop_scale(np.ones((120, 120, 3), np.float32), 36.0)
    assert (scale.um_per_px, scale.source) == (0.3, "view")
