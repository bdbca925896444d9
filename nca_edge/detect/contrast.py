"""How much each pixel differs from the red cells of its field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nca_edge.detect.shapes import opened
from nca_edge.planes import blurred, percentile
from nca_edge.preprocess import absorbance, resize
from nca_edge.records import Image32, RedCells
from nca_edge.threads import each

RED_CELL_UM = 7.5
"""As in scale.py (leaves do not import leaves); only sizes depend on it here."""

MIN_RED_CELLS = 4
"""Fewer red cells than this are no reference of colour or size."""

SEED_CONTRAST = 0.6
"""A nucleus exceeds the red cells by this much, in units of half their absorbance plus twice its spread."""


DARKEST = 0.001
"""Share of a field that is darker than what counts as its darkest, at least."""

OF_DARKEST = 0.4
"""A nucleus has this share of the contrast of the darkest of its field."""


@dataclass(frozen=True, slots=True)
class Maps:
    """One field at working resolution."""

    contrast: Image32
    """(height, width) float32, how much darker and differently coloured than the red cells; 0 on background and red cells."""
    hue: Image32
    """(height, width) float32, absorbance that no amount of red cell explains."""
    planes: tuple[Image32, Image32, Image32]
    """Absorbance in R, G, B, (height, width) float32 each."""
    red_total: float
    """Absorbance of a typical red cell, summed over channels."""

    @property
    def total(self) -> Image32:
        """Absorbance summed over channels, (height, width) float32."""
        return self.planes[0] + self.planes[1] + self.planes[2]


@dataclass(frozen=True, slots=True)
class Reference:
    """What white cells are compared with."""

    absorbance: Image32
    """(3,) float32, typical absorbance of a red cell."""
    spread: float
    """Its median absolute deviation, summed over channels."""


def red_reference(corrected: Image32, red: RedCells) -> Reference:
    """The red cells' colour; where hardly any were found, that of the paler quarter of what is stained (red cells or
    cytoplasm)."""
    from scipy import ndimage

    if red.n >= MIN_RED_CELLS:
        return Reference(np.array(red.absorbance, np.float32), sum(red.spread))
    stained = ndimage.gaussian_filter(absorbance(_thumbnail(corrected)), (1.0, 1.0, 0)).reshape(-1, 3)
    total = stained.sum(axis=1)
    kept = total > max(0.1, 0.25 * float(np.percentile(total, 99)))
    if not kept.any():
        return Reference(np.zeros(3, np.float32), 0.1)
    pale = stained[kept & (total <= np.percentile(total[kept], 25))]
    middle = np.median(pale, axis=0)
    return Reference(middle, float(np.median(np.abs(pale - middle), axis=0).sum()))


def estimated_um_per_px(corrected: Image32, red: RedCells, reference: Reference) -> float:
    """Scale from the red cells, else so that the largest nucleus is 8.4 um across."""
    from scipy import ndimage

    if red.n >= MIN_RED_CELLS and red.diameter_px > 0.0:
        return RED_CELL_UM / red.diameter_px
    small = _thumbnail(corrected)
    contrast = contrast_maps(small, reference, 1.0).contrast
    dark = contrast > seed_level(contrast, 0)
    if not dark.any():
        return RED_CELL_UM / 30.0
    thickest = float(ndimage.distance_transform_edt(np.pad(dark, 1)).max())
    radius = min(0.7 * thickest, 8.0)
    labels, _ = ndimage.label(~opened(~np.pad(dark, 20), radius))
    largest = float(np.bincount(labels.ravel())[1:].max())
    return float(8.4 / max(2.0 * np.sqrt(largest / np.pi), 6.0) * small.shape[1] / corrected.shape[1])


def _thumbnail(corrected: Image32) -> Image32:
    """The field at 400 px on its long side at most."""
    shrink = min(1.0, 400 / max(corrected.shape[:2]))
    return resize(corrected, max(1, round(corrected.shape[0] * shrink)), max(1, round(corrected.shape[1] * shrink)))


def contrast_maps(image: Image32, reference: Reference, sigma: float) -> Maps:
    """Contrast with the red cells, smoothed by ``sigma`` px.

    Compared on 70 fields a set, as the share whose every true cell is 1.3 times stronger than anything else in the field
    (bccd, chula):
    summed absorbance 0.65, 0.81; red channel 0.96, 0.81; excess over the red cells 0.99, 0.89; what no amount of red cell
    explains 0.97, 0.91. Half the excess plus the latter keeps both: the first finds grey nuclei, the second ignores red cells
    that lie on each other.
    """
    # Plane by plane: sums over a last axis of three cost numpy ten times as much, and full-size fields would not fit.
    red, green, blue = (blurred(plane, sigma) for plane in each(lambda c: absorbance(image[..., c]), range(3)))
    planes = red, green, blue
    direction = reference.absorbance / max(float(np.linalg.norm(reference.absorbance)), 1e-6)
    along = np.zeros_like(planes[0])
    for plane, share in zip(planes, direction, strict=True):
        along += share * plane
    np.maximum(along, 0.0, out=along)
    hue, contrast = np.zeros_like(along), np.zeros_like(along)
    for plane, share, level in zip(planes, direction, reference.absorbance, strict=True):
        hue += np.maximum(plane - share * along, 0.0)
        contrast += np.maximum(plane - level, 0.0)
    unit = 0.5 * float(reference.absorbance.sum()) + 2.0 * reference.spread + 0.02
    contrast *= 0.5
    contrast += hue
    contrast /= unit
    return Maps(contrast, hue, planes, float(reference.absorbance.sum()))


def seed_level(contrast: Image32, least_px: float) -> float:
    """Contrast above which a pixel may be nucleus: fixed from below, relative to the darkest of the field where stain is
    strong.

    Parameters
    ----------
    least_px : pixels of the smallest nucleus. As many and more are darker than what counts as the darkest: a dot of ink of
        1.8 um was the darkest thousandth of a field, and no nucleus came near it.
    """
    share = max(DARKEST, least_px / contrast.size)
    return max(SEED_CONTRAST, OF_DARKEST * float(percentile(contrast, 100.0 * max(0.0, 1.0 - share))))
