"""Is a field worth looking at? Rejected fields are results: each comes with a sentence that says what to do at the
microscope."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from nca_edge.planes import blurred, rim
from nca_edge.preprocess import absorbance, correct, field_background, otsu, resize
from nca_edge.records import Image8, Image32, Quality
from nca_edge.threads import each

MIN_SIDE_PX = 64
"""Smaller images hold no whole cell at any magnification that shows a nucleus."""

WORK_SIDE = 800
"""Long side, px, at which a field is judged; a share of the field, since the scale is not known yet."""

MIN_ABSORBANCE = 0.12
"""Absorbance, summed over channels, that the darkest hundredth of a field with cells exceeds (no bccd or chula field is
rejected by it)."""

SMOOTH, REBLUR = 1 / 20, 1 / 12
"""Widths of the blur under which slopes are compared and of the further test blur, in sizes of the stained patches (a red cell
or a few): the first keeps sensor noise and JPEG blocks out, the sizes make the measure the same at any magnification."""

MAX_KEPT = 0.62
"""Share of slope energy that the test blur leaves in a field in focus at most. Measured up to 0.54 on bccd and 0.50 on chula as
they are, at 0.28 to 1.7 times the size, with noise or as poor JPEG; after a blur of 3 um from 0.65 (bccd) and, at the median of
a change, from 0.60 (chula). In doubt a field is accepted."""

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
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        return _rejected(f"image too small ({width} x {height} px): use a field of at least {MIN_SIDE_PX} px a side", 0.0)
    # By channel: steps along an axis of three cost ten times as much.
    red, green, blue = (np.ascontiguousarray(rgb[..., c]) for c in range(3))
    if _grey_percentile(np.maximum(np.maximum(red, green), blue), 99) < 40:
        return _rejected("under-exposed: raise the lamp or the exposure time", 0.0)
    dim = np.minimum(np.minimum(red, green), blue)
    if float(np.mean(dim >= 253)) > 0.5 and _grey_percentile(dim, 2) > 180:
        return _rejected("over-exposed: lower the lamp or the exposure time", 0.0)
    total = _stain(rgb, corrected)
    grain = max(total.shape) / WORK_SIDE
    smooth = blurred(total, grain)
    if float(np.percentile(smooth, 99)) < MIN_ABSORBANCE:
        return _rejected("no cells in view: move to a stained part of the smear", 0.0)
    if float(blurred(smooth, 3.0).std()) < MIN_COARSE * float(smooth.std()):
        return _rejected("only noise in view: check the camera, its gain and the lamp", 0.0)
    kept = _kept(total)
    if kept > MAX_KEPT:
        return _rejected("out of focus: turn the fine focus", 1.0 - kept)
    return Quality(True, (), 1.0 - kept)


def _grey_percentile(grey: Image8, percent: float) -> float:
    """``numpy.percentile`` of grey levels by their counts, in a tenth of the time of a sort."""
    below = np.cumsum(Image.fromarray(grey).histogram())
    at = (grey.size - 1) * (percent / 100)
    low, high = (int(np.searchsorted(below, n, side="right")) for n in (math.floor(at), math.ceil(at)))
    return low + (high - low) * (at - math.floor(at))


def _stain(rgb: Image8, corrected: Image32 | None) -> Image32:
    """Absorbance summed over channels, (height, width) float32, at ``WORK_SIDE`` px on the long side at most."""
    height, width = rgb.shape[:2]
    shrink = min(1.0, WORK_SIDE / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    if corrected is None:  # the background of the reduced field: a large one would need 100 MB and more for a moment
        small = rgb if shrink == 1.0 else np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
        corrected = correct(small, field_background(small))
    elif shrink < 1.0:
        corrected = resize(corrected, size[1], size[0])
    red, green, blue = each(lambda c: absorbance(corrected[..., c]), range(3))
    return red + green + blue


def _rejected(reason: str, focus: float) -> Quality:
    """A field that is not looked at, with the one thing to mend first."""
    return Quality(False, (reason,), focus)


def _kept(total: Image32) -> float:
    """How little a test blur changes a field: what is blurred already loses nothing (after Crete et al. 2007, SPIE 6492).

    Tried and rejected: a test blur of a fixed share of the field without smoothing first (under noise it accepted every blurred
    field, at 0.28 times the size it rejected sharp ones); and, since blur by 3 um lowers them by less than fields differ, size
    of the stained patches over the width of their edges (bccd 7.0 to 4.1, chula 7.1 to 4.5: patches run together and grow),
    std(f) * rms(laplace f) / rms(grad f)**2 (2.5 to 1.5, 2.2 to 1.7).

    Parameters
    ----------
    total : (height, width) float32, absorbance summed over channels

    Returns
    -------
    float
        Share of the slope energy left by the test blur, 0..1.
    """
    smooth = blurred(total, max(1.0, 0.003 * max(total.shape)))
    clipped = np.minimum(smooth, np.percentile(smooth, 90))
    mask = clipped > otsu(clipped)
    size_px = 4.0 * float(mask.sum()) / max(float(rim(mask).sum()), 1.0)
    first = max(0.7, SMOOTH * size_px)
    both = float(np.hypot(first, REBLUR * size_px))
    fine, coarse = each(_slope_energy, (blurred(total, first), blurred(total, both)))
    return coarse / max(fine, 1e-12)


def _slope_energy(total: Image32) -> float:
    """Mean squared gradient."""
    grad_y, grad_x = np.gradient(total)
    return float(np.mean(grad_x**2 + grad_y**2))
