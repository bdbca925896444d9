"""What is asked of a field, in the order in which a person mends it."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from nca_edge.bands import softened
from nca_edge.planes import middle, percentile
from nca_edge.preprocess import absorbance, correct, field_background, otsu, resize
from nca_edge.quality.focus import sharpness
from nca_edge.records import Image8, Image32, Quality, RedCells
from nca_edge.threads import both, each

MIN_SIDE_PX = 64
"""Smaller images hold no whole cell at any magnification that shows a nucleus."""

WORK_SIDE = 800
"""Long side, px, at which a field is judged; a share of the field, since the scale is not known yet."""

MIN_ABSORBANCE = 0.12
"""Absorbance, summed over channels, that the darkest hundredth of a field with cells exceeds (no bccd or chula field is
rejected by it)."""

MIN_EDGES = 2.05
"""Slopes at the scale of borders over slopes at the scale of cells (``Sharpness``) that a field in focus has at least: a
twentieth below the least of the bccd and chula fields of even number. In doubt a field is accepted."""

MIN_EVEN = 0.5
"""Evenness of slopes over directions that a field has at least while the stage rests; those of even number have 0.6."""

MIN_COLOUR = 0.15
"""Difference between the channels' absorbances, as a share of their mean, that half of what is stained has at least: print,
dust and grey pictures absorb all colours alike."""

MAX_DENSE = 1.5
"""Typical absorbance, summed over channels, beyond which nothing is seen through what is stained. Red cells have 0.1 to 0.65 on
bccd and chula."""

CROWDED, MIN_SHARE, LAYERS = 0.3, 0.05, 0.6
"""Where more of the field than the first is stained, and more strongly (summed over channels) than the last, red cells cover
more of what is stained than the second; in several layers next to nothing. Of 582 bccd and chula fields five cover less, with
an absorbance of 0.51 at most."""

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
    planes = _stain(rgb, corrected)
    total = planes[0] + planes[1] + planes[2]
    sharp, wrong = both(lambda: sharpness(total), lambda: _nothing_to_see(planes, total))
    if wrong:
        return _rejected(wrong, 0.0)
    focus = max(0.0, 1.0 - 1.0 / max(sharp.edges, 1e-6))
    if sharp.edges < MIN_EDGES:
        return _rejected("out of focus: turn the fine focus", focus)
    if sharp.evenness < MIN_EVEN:
        return _rejected("out of focus in one direction: let the stage rest", focus)
    return Quality(True, (), focus)


def _nothing_to_see(planes: list[Image32], total: Image32) -> str | None:
    """Why there is no smear in view; None where there is one."""
    half = np.asarray(Image.fromarray(total).reduce(2))
    if percentile(half, 99) < MIN_ABSORBANCE:
        return "no cells in view: move to a stained part of the smear"
    if float(softened(half, 1.5).std()) < MIN_COARSE * float(half.std()):
        return "only noise in view: check the camera, its gain and the lamp"
    if colour([plane[::2, ::2] for plane in planes], half) < MIN_COLOUR:
        return "no stained smear in view: all colours are absorbed alike"
    return None


def assess_smear(quality: Quality, red: RedCells) -> Quality:
    """Judge further what was accepted, once its red cells are known.

    Parameters
    ----------
    quality : what ``assess`` said
    red : RedCells
        Of the same field.
    """
    if not quality.accepted:
        return quality
    if sum(red.absorbance) > MAX_DENSE:
        return _rejected("too dark to see through: the smear is too thick here, or this is none", quality.focus)
    if red.stained > CROWDED and red.share < MIN_SHARE and sum(red.absorbance) > LAYERS:
        return _rejected("no red cell stands out: the smear is too thick here, or this is none", quality.focus)
    return quality


def colour(planes: list[Image32], smooth: Image32) -> float:
    """Median, over what is stained, of the channels' range of absorbance as a share of their mean."""
    some = np.ascontiguousarray(smooth[::3, ::3])
    stained = some > otsu(np.minimum(some, percentile(some, 98)))
    red, green, blue = (plane[::3, ::3][stained] for plane in planes)
    if not stained.any():
        return 0.0
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return float(middle((most - least) / np.maximum((red + green + blue) / 3.0, 0.02)))


def _grey_percentile(grey: Image8, percent: float) -> float:
    """``numpy.percentile`` of grey levels by their counts, in a tenth of the time of a sort."""
    below = np.cumsum(Image.fromarray(grey).histogram())
    at = (grey.size - 1) * (percent / 100)
    low, high = (int(np.searchsorted(below, n, side="right")) for n in (math.floor(at), math.ceil(at)))
    return low + (high - low) * (at - math.floor(at))


def _stain(rgb: Image8, corrected: Image32 | None) -> list[Image32]:
    """Absorbance of each channel, (height, width) float32, at ``WORK_SIDE`` px on the long side at most."""
    height, width = rgb.shape[:2]
    shrink = min(1.0, WORK_SIDE / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    if corrected is None:  # the background of the reduced field: a large one would need 100 MB and more for a moment
        small = rgb if shrink == 1.0 else np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
        corrected = correct(small, field_background(small))
    elif shrink < 1.0:
        corrected = resize(corrected, size[1], size[0])
    return each(lambda c: absorbance(corrected[..., c]), range(3))


def _rejected(reason: str, focus: float) -> Quality:
    """A field that is not looked at, with the one thing to mend first."""
    return Quality(False, (reason,), focus)
