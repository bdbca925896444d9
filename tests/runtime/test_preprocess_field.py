"""The background surface of a field."""

from __future__ import annotations

import fields
import numpy as np
import pytest

from nca_edge.preprocess import correct, field_background


@pytest.mark.parametrize("vignette", [0.0, 0.4])
def test_surface_is_the_light_without_the_cells(vignette: float) -> None:
    tint = (200, 160, 180)
    surface = field_background(fields.photograph(fields.smear(), tint, vignette))
    light = fields.photograph(fields.blank(), tint, vignette)
    assert surface.dtype == np.float32
    assert surface.shape == (480, 640, 3)
    assert np.median(np.abs(surface / light - 1)) < 0.01
    assert np.percentile(np.abs(surface / light - 1), 99) < 0.05


def test_crowded_field_keeps_its_gaps_white() -> None:
    field = fields.blank()
    field += np.array(fields.RED)
    for x in range(40, 640, 110):
        for y in range(40, 480, 110):
            fields.disc(field, x, y, 50, (0.0, 0.0, 0.0))
    rgb = fields.photograph(field)
    corrected = correct(rgb, field_background(rgb))
    assert np.median(corrected[field.sum(axis=2) == 0]) > 0.95
    assert np.median(corrected[field.sum(axis=2) > 0.7]) < 0.85


def test_black_image_stays_finite() -> None:
    assert np.isfinite(field_background(np.zeros((70, 90, 3), np.uint8))).all()
