"""The quality gate: what passes, and the reason given for what does not."""

from __future__ import annotations

import fields
import numpy as np
import pytest
from scipy import ndimage

from nca_edge.preprocess import correct, field_background
from nca_edge.quality import assess, assess_smear, sharpness
from nca_edge.records import Image8, Quality, RedCells
from nca_edge.scale import red_cells


def test_a_sharp_field_passes() -> None:
    rgb = fields.photograph(fields.smear(), vignette=0.3)
    quality = assess(rgb)
    assert (quality.accepted, quality.reasons) == (True, ())
    given = assess(rgb, correct(rgb, field_background(rgb)))
    assert given.accepted
    assert given.focus == pytest.approx(quality.focus, abs=0.02)


@pytest.mark.parametrize("um", [3.0, 14.0])
def test_magnification_and_noise_do_not_matter(um: float) -> None:
    rgb = fields.photograph(fields.smear(um, cells=((100, 90),)))
    noise = np.random.default_rng(3).normal(0.0, 4.0, rgb.shape)
    blurred = ndimage.gaussian_filter(rgb, (3 * um, 3 * um, 0))
    assert assess(rgb).accepted
    assert assess(np.clip(rgb + noise, 0, 255).astype(np.uint8)).accepted
    assert not assess(blurred).accepted
    assert not assess(np.clip(blurred + noise, 0, 255).astype(np.uint8)).accepted


def test_blur_is_rejected_and_lowers_focus() -> None:
    rgb = fields.photograph(fields.smear())
    quality = assess(ndimage.gaussian_filter(rgb, (24, 24, 0)))
    assert quality.reasons == ("out of focus: turn the fine focus",)
    assert quality.focus < assess(ndimage.gaussian_filter(rgb, (3, 3, 0))).focus < assess(rgb).focus


@pytest.mark.parametrize(
    ("level", "word"),
    [(0, "under-exposed"), (20, "under-exposed"), (128, "no cells"), (220, "no cells"), (255, "over-exposed")],
)
def test_uniform(level: int, word: str) -> None:
    quality = assess(np.full((200, 300, 3), level, np.uint8))
    assert not quality.accepted
    assert quality.reasons[0].startswith(word)


def test_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    assert assess(noise).reasons == ("only noise in view: check the camera, its gain and the lamp",)


def test_tiny() -> None:
    assert assess(np.full((63, 400, 3), 200, np.uint8)).reasons == (
        "image too small (400 x 63 px): use a field of at least 64 px a side",
    )


def test_a_moving_stage() -> None:
    moved = ndimage.uniform_filter1d(fields.photograph(fields.smear()).astype(float), 56, axis=1)
    quality = assess(np.round(moved).astype(np.uint8))
    assert not quality.accepted
    assert quality.reasons[0].startswith("out of focus")


def test_sharpness_knows_no_size_level_or_gain() -> None:
    total = fields.smear().sum(axis=2).astype(np.float32)
    sharp = sharpness(total)
    assert sharpness(0.1 * total).edges == pytest.approx(sharp.edges, rel=1e-3)
    assert sharpness(total.T.copy()).evenness == pytest.approx(sharp.evenness, rel=0.02)
    assert sharpness(fields.smear(6.0, ((150, 112), (337, 240))).sum(axis=2).astype(np.float32)).edges > 2.45


def test_a_printed_page_is_no_smear() -> None:
    page = fields.blank()
    for y in range(20, 470, 24):
        for x in range(20, 630, 18):
            fields.disc(page, x, y, 4 + (x * y) % 9, (1.5, 1.5, 1.5))
    quality = assess(fields.photograph(page))
    assert quality.reasons == ("no stained smear in view: all colours are absorbed alike",)


def judged(rgb: Image8) -> Quality:
    corrected = correct(rgb, field_background(rgb))
    return assess_smear(assess(rgb, corrected), red_cells(corrected))


def test_a_smear_too_thick() -> None:
    one = fields.smear(cells=((200, 150),))
    layers = sum(np.roll(one[:, :: (-1) ** n], (29 * n, 67 * n), (0, 1)) for n in range(8))
    assert judged(fields.photograph(one)).accepted
    quality = judged(fields.photograph(layers))
    assert not quality.accepted
    assert "too thick" in quality.reasons[0]


def test_what_was_rejected_stays_so() -> None:
    quality = Quality(False, ("over-exposed: lower the lamp or the exposure time",), 0.0)
    assert assess_smear(quality, RedCells(40, 60.0, (0.1, 0.3, 0.3), (0.0, 0.0, 0.0))) is quality
    dense = assess_smear(Quality(True, (), 0.7), RedCells(40, 60.0, (0.6, 0.6, 0.6), (0.0, 0.0, 0.0)))
    assert (dense.accepted, dense.focus) == (False, 0.7)
