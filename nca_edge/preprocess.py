"""THE pixel contract: background -> white, crop by micrometres, scale to the grid, normalise.

Training, evaluation and the device all come through here, so that a network sees at the clinic what it saw in training.
A *field* has a background surface (lamp, vignetting, tint); a *crop* of one cell is too small to know more of it than a plane.
Both end with the empty background at 1.0 in every channel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nca_edge.planes import counted, middle, percentile
from nca_edge.records import Image8, Image32
from nca_edge.surface import Surfaces
from nca_edge.threads import each

ABSORBANCE_MAX = 4.0
"""Absorbance is clipped here (natural logarithm): darker than any stain, and finite for black pixels."""


def correct(rgb: Image8, background: Image32) -> Image32:
    """Divide by the background, so that empty background is 1.0 in each channel.

    Parameters
    ----------
    rgb : (height, width, 3) uint8
    background : (3,) or (height, width, 3) float32, 1..255

    Returns
    -------
    (height, width, 3) float32, 0..1, each channel's pixels side by side in memory: what is asked of it is asked by channel
    """
    planes = rgb.transpose(2, 0, 1).astype(np.float32, order="C")
    planes /= np.broadcast_to(background, rgb.shape).transpose(2, 0, 1)  # in place: a field of a large camera is 80 MB
    np.minimum(planes, 1.0, out=planes)
    return planes.transpose(1, 2, 0)


def absorbance(corrected: Image32) -> Image32:
    """Beer-Lambert absorbance of a corrected image, natural logarithm, 0 (background) .. ``ABSORBANCE_MAX``.

    Parameters
    ----------
    corrected : (..., 3) float32, 0..1
    """
    return -np.log(np.maximum(corrected, np.exp(-ABSORBANCE_MAX, dtype=np.float32)))


def resize(image: Image32, height: int, width: int) -> Image32:
    """Antialiased bilinear resize of a float image.

    Parameters
    ----------
    image : (h, w, channels) or (h, w) float32

    Returns
    -------
    (height, width, channels) or (height, width) float32
    """
    if image.ndim == 2:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    planes = each(lambda c: resize(np.ascontiguousarray(image[..., c]), height, width), range(image.shape[2]))
    return np.stack(planes).transpose(1, 2, 0)


def window(corrected: Image32, center: tuple[float, float], side_px: float) -> Image32:
    """Square of ``side_px`` around ``center`` at the image's own resolution; white outside the image.

    Parameters
    ----------
    corrected : (height, width, 3) float32
    center : (x, y) px
    side_px : side of the square, px of the image, at least 1

    Returns
    -------
    (n, n, 3) float32 with n = round(side_px)
    """
    n = max(1, round(side_px))
    height, width = corrected.shape[:2]
    x0, y0 = round(center[0] - n / 2), round(center[1] - n / 2)
    out = np.ones((n, n, corrected.shape[2]), np.float32)
    xa, ya, xb, yb = max(x0, 0), max(y0, 0), min(x0 + n, width), min(y0 + n, height)
    if xa < xb and ya < yb:
        out[ya - y0 : yb - y0, xa - x0 : xb - x0] = corrected[ya:yb, xa:xb]
    return out


def normalise(views: Image32, mean: NDArray[np.float32], std: NDArray[np.float32]) -> Image32:
    """(views - mean) / std per channel, float32.

    Parameters
    ----------
    views : (..., 3) float32, 0..1
    mean, std : (3,) float32, from the bundle
    """
    return ((views - mean) / std).astype(np.float32)


SURFACE_SIDE = 112
"""Long side, px, of the reduced field on which the background surface is fitted: it is smooth, and blocks average the noise."""

SURFACE_DEGREE = 4
"""Degree of a field's polynomial in x and y: chosen by eye; others were not tried."""

PLANE_SIDE, PLANE_DEGREE = 64, 1
"""The same of a crop. One colour for the whole crop left a cheap camera's vignetting in it, 11 % from the middle to the edge
(median of 58 chula cells); matching the stain then amplified that to green and purple corners."""

SETTLED = 1e-4
"""A surface that moves by less, in its logarithm, has found its place."""
LEANS = ((0.04, 3.0), (0.02, 1.5))
"""Attempts at a surface: weight of a pixel under it, and how far (in typical distances of those above it) it may lie under it
and still belong to it. The second leans to the brightest pixels; it is only for fields that red cells all but cover, since
elsewhere it follows glare (seen as a cast on some of the seven fields compared by eye)."""


def crop_background(rgb: Image8) -> Image32:
    """Background of a single-cell crop: a plane per channel, fitted as a field's surface is.

    Parameters
    ----------
    rgb : (height, width, 3) uint8

    Returns
    -------
    (height, width, 3) float32, 1..255
    """
    return _background(rgb, PLANE_SIDE, PLANE_DEGREE)


def field_background(rgb: Image8) -> Image32:
    """Background surface of a whole field: lamp, vignetting and tint, without the cells.

    A low polynomial per channel in the logarithm of the image, fitted from above: first an expectile fit, in which a pixel
    under the surface (a cell) counts little and one over it (glare) counts a bounded amount, then plain least squares over
    the pixels that lie on the surface in every channel. A block percentile followed by smoothing was tried first (the
    prototype): where a clump of red cells is larger than a block, it takes the clump for background.

    Parameters
    ----------
    rgb : (height, width, 3) uint8

    Returns
    -------
    (height, width, 3) float32, 1..255
    """
    return _background(rgb, SURFACE_SIDE, SURFACE_DEGREE)


def _background(rgb: Image8, side: int, degree: int) -> Image32:
    height, width = rgb.shape[:2]
    shrink = min(1.0, side / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX), np.float32)
    level = np.ascontiguousarray(np.log(np.maximum(small, np.float32(1))).transpose(2, 0, 1))
    fit = Surfaces(size[1], size[0], degree)
    for lean, below in LEANS:
        surface = np.stack([_expectile_fit(fit, plane, lean) for plane in level])
        for _ in range(4):
            coefficients = _refit(fit, level, surface, below)
            surface = np.stack([fit.drawn(c) for c in coefficients])
        if not _gaps_above((level - surface).min(axis=0)):
            break
    whole = Surfaces(height, width, degree, (size[1], size[0]))
    drawn = np.stack([whole.drawn(c) for c in coefficients])
    return np.clip(np.exp(drawn, out=drawn), 1.0, 255.0, out=drawn).transpose(1, 2, 0)


def otsu(values: Image32) -> float:
    """Otsu's threshold over 256 bins (Otsu 1979); scikit-image has it, at 0.3 s of import."""
    counts, edges = counted(np.maximum(values, 0.0))
    centers = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(counts).astype(float), np.cumsum(counts * centers)
    between = (moment[-1] * below - moment * below[-1]) ** 2 / np.maximum(below * (below[-1] - below), 1e-9)
    return float(edges[1:][np.argmax(between[:-1])])


def _expectile_fit(fit: Surfaces, level: Image32, lean: float) -> Image32:
    """Surface that lies near the top of one channel: (height, width) float32, logarithm of the level."""
    surface = np.full(level.shape, percentile(level, 90), np.float32)
    for _ in range(15):
        residual = level - surface
        distance = np.abs(residual)
        scale = middle(distance) + np.float32(1e-3)
        weight = np.where(residual > 0, np.float32(1), np.float32(lean)) / np.maximum(1, distance / (np.float32(1.5) * scale))
        before, surface = surface, fit.drawn(fit.fitted(weight, level))
        if float(np.abs(surface - before).max()) < SETTLED:
            break
    return surface


def _refit(fit: Surfaces, level: Image32, surface: Image32, below: float) -> list[Image32]:
    """Coefficients of each channel, fitted to the pixels that lie on the surface in all channels.

    Parameters
    ----------
    level, surface : (3, height, width) float32
    """
    residual = level - surface
    above = np.array([middle(r[r > 0]) if np.any(r > 0) else 0.0 for r in residual])
    low, high = -below * above - 0.01, 3.0 * above + 0.01
    on = np.logical_and.reduce([(r > low[c]) & (r < high[c]) for c, r in enumerate(residual)])
    weight = on.astype(np.float32) + np.float32(1e-6)
    return [fit.fitted(weight, plane) for plane in level]


def _gaps_above(residual: Image32) -> bool:
    """True where patches of the field are clearly brighter than the surface: it then runs through the red cells.

    Measured as the share of pixels in patches of 3x3 and more that lie 4 % above: 5.1 % on the chula field that red cells
    cover, at most 0.1 % on 120 others of both sets.
    """
    from scipy import ndimage

    return bool(ndimage.binary_opening(residual > 0.04, np.ones((3, 3))).mean() > 0.01)


STAIN_REFERENCE = (0.27, 0.12, 0.61)
"""Transmittance of a nucleus in R, G, B that every view is brought to: the typical one of Acevedo-20 (150 cells, rounded)."""
STAIN_GAIN = (0.5, 8.0)
"""Least and largest factor: where there is no nucleus, noise and red cells must not become one."""


def match_stain(views: Image32) -> Image32:
    """Bring the darkest part of each view's centre to a reference, channel by channel.

    White background is the first colour reference of a view, its nucleus the second. A nucleus that is too pale has stray light
    before it, which adds to the transmittance: 1 - T is multiplied. One that is too dark took up more dye: its absorbance is
    divided. One rule for both turned the red cells and the cytoplasm of one clinic purple (absorbance alone), or made
    eosinophils of the neutrophils of another (transmittance alone: 153 of 176 against 98, after six epochs).

    Parameters
    ----------
    views : (..., size, size, 3) float32, corrected, the cell in the middle

    Returns
    -------
    (..., size, size, 3) float32, 0..1
    """
    q = views.shape[-2] // 4
    reference = np.array(STAIN_REFERENCE, np.float32)
    dark = np.clip(np.percentile(views[..., q:-q, q:-q, :], 5, axis=(-3, -2)), np.exp(-ABSORBANCE_MAX), 0.999)
    dark = dark.astype(np.float32)
    power = np.maximum(np.log(reference) / np.log(dark), np.float32(STAIN_GAIN[0]))[..., None, None, :]
    gain = np.minimum((1 - reference) / (1 - dark), np.float32(STAIN_GAIN[1]))[..., None, None, :]
    strong = (dark < reference)[..., None, None, :]
    thinned = np.exp(np.log(np.maximum(views, np.float32(1e-6))) * power)
    return np.asarray(np.clip(np.where(strong, thinned, 1 - gain * (1 - views)), 0, 1), np.float32)


def plain_view(corrected: Image32, center: tuple[float, float], um_per_px: float, view_um: float, size: int) -> Image32:
    """``view_um`` around ``center``, scaled to ``size`` pixels a side, in the image's own stain (as training stores cells).

    Parameters
    ----------
    corrected : (height, width, 3) float32 field or crop, background 1
    center : (x, y) px
    um_per_px : scale of ``corrected``

    Returns
    -------
    (size, size, 3) float32, 0..1
    """
    return np.clip(resize(window(corrected, center, view_um / um_per_px), size, size), 0.0, 1.0)


def cell_view(corrected: Image32, center: tuple[float, float], um_per_px: float, view_um: float, size: int) -> Image32:
    """What the network sees of one cell: ``plain_view`` with its stain matched; same parameters and shape."""
    return match_stain(plain_view(corrected, center, um_per_px, view_um, size))
