"""Is a field worth looking at? Rejected fields are results: each comes with a sentence that says what to do at the
microscope."""

from __future__ import annotations

import numpy as np

from nca_edge.preprocess import absorbance, correct, field_background, otsu, resize
from nca_edge.records import Image8, Image32, Quality

MIN_SIDE_PX = 64
"""Smaller images hold no whole cell at any magnification that shows a nucleus."""

WORK_SIDE = 800
"""Long side, px, at which a field is judged; a share of the field, since the scale is not known yet."""

MIN_ABSORBANCE = 0.12
"""Absorbance, summed over channels, that the darkest hundredth of a field with cells exceeds (no bccd or chula field is
rejected by it)."""

REBLUR = 0.006
"""Width of the test blur, share of the field's long side: 0.3 um (bccd) to 0.9 um (chula)."""

MAX_KEPT = 0.62
"""Share of slope energy that a test blur leaves in a field in focus at most: measured up to 0.55 (bccd) and 0.24 (chula) as
they are, from
0.86 and 0.67 after a blur of 2-3 um."""

MAX_KEPT_BY_SIZE = 0.2
"""The same for a blur of a tenth of the cells' size: a field only a few cells wide keeps much of the first and little of
this."""

MIN_COARSE = 0.45
"""Share of its deviation that a field keeps under a blur of 3 px; uniform noise keeps less (one image tried)."""


def assess(rgb: Image8, corrected: Image32 | None = None) -> Quality:
    """Judge one field before anything is searched in it.

    Parameters
    ----------
    rgb : (height, width, 3) uint8
    corrected : (height, width, 3) float32, optional
        The same field with background = 1.0, where the caller has it already.

    Returns
    -------
    Quality
    """
    from scipy import ndimage

    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        return _rejected(f"image too small ({width} x {height} px): use a field of at least {MIN_SIDE_PX} px a side", 0.0)
    bright = rgb.max(axis=2)
    if float(np.percentile(bright, 99)) < 40:
        return _rejected("under-exposed: raise the lamp or the exposure time", 0.0)
    dim = rgb.min(axis=2)
    if float(np.mean(dim >= 253)) > 0.5 and float(np.percentile(dim, 2)) > 180:
        return _rejected("over-exposed: lower the lamp or the exposure time", 0.0)
    shrink = min(1.0, WORK_SIDE / max(height, width))
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    if corrected is None:
        corrected = correct(rgb, field_background(rgb))
    image = corrected if shrink == 1.0 else resize(corrected, *size)
    total = ndimage.gaussian_filter(absorbance(image).sum(axis=-1), max(size) / WORK_SIDE)
    if float(np.percentile(total, 99)) < MIN_ABSORBANCE:
        return _rejected("no cells in view: move to a stained part of the smear", 0.0)
    if float(ndimage.gaussian_filter(total, 3.0).std()) < MIN_COARSE * float(total.std()):
        return _rejected("only noise in view: check the camera, its gain and the lamp", 0.0)
    kept, kept_by_size = _kept(total)
    if kept > MAX_KEPT and kept_by_size > MAX_KEPT_BY_SIZE:
        return _rejected("out of focus: turn the fine focus", 1.0 - kept)
    return Quality(True, (), 1.0 - kept)


def _rejected(reason: str, focus: float) -> Quality:
    """A field that is not looked at, with the one thing to mend first."""
    return Quality(False, (reason,), focus)


def _kept(total: Image32) -> tuple[float, float]:
    """How little a test blur changes a field: what is blurred already loses nothing (after Crete et al. 2007, SPIE 6492).

    Tried and rejected, since blur by 3 um lowers them by less than fields differ: size of the stained patches over the width
    of their
    edges (bccd 7.0 to 4.1, chula 7.1 to 4.5: patches run together and grow), std(f) * rms(laplace f) / rms(grad f)**2 (2.5 to
    1.5,
    2.2 to 1.7).

    Parameters
    ----------
    total : (height, width) float32, absorbance summed over channels

    Returns
    -------
    tuple of float
        Share of the slope energy left by a blur of ``REBLUR`` of the field, and of a tenth of the stained patches' size.
    """
    from scipy import ndimage

    clipped = np.minimum(total, np.percentile(total, 90))
    mask = clipped > otsu(clipped)
    outline = mask & ~ndimage.binary_erosion(mask, border_value=1)
    size_px = 4.0 * float(mask.sum()) / max(float(outline.sum()), 1.0)
    energy = max(_slope_energy(total), 1e-12)
    sigma = max(1.0, min(REBLUR * max(total.shape), size_px / 4.0))
    return (
        _slope_energy(ndimage.gaussian_filter(total, sigma)) / energy,
        _slope_energy(ndimage.gaussian_filter(total, size_px / 10.0)) / energy,
    )


def _slope_energy(total: Image32) -> float:
    """Mean squared gradient."""
    grad_y, grad_x = np.gradient(total)
    return float(np.mean(grad_x**2 + grad_y**2))
