"""THE pixel contract: background -> white, crop by micrometres, scale to the grid, normalise.

Training, evaluation and the device all come through here, so that a network sees at the clinic what it saw in training.
A *field* has a background surface (lamp, vignetting, tint); a *crop* of one cell is too small to know a surface and gets
one background colour. Both end with the empty background at 1.0 in every channel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nca_edge.records import Image8, Image32

ABSORBANCE_MAX = 4.0
"""Absorbance is clipped here (natural logarithm): darker than any stain, and finite for black pixels."""


def crop_background(rgb: Image8) -> Image32:
    """Background colour of a single-cell crop: the typical colour of its bright end.

    Brightness is the mean over channels after each was divided by its own high percentile; plain brightness would follow the
    strongest channel of a tinted image. Everything nearly as bright as the brightest twentieth belongs to the background: the
    twentieth alone would be glare, and a fixed larger share would be red cells where they crowd the crop.

    Parameters
    ----------
    rgb : (height, width, 3) uint8

    Returns
    -------
    (3,) float32, 1..255
    """
    pixels = rgb.reshape(-1, 3).astype(np.float32)
    top = np.maximum(np.percentile(pixels, 95, axis=0), 1.0)
    brightness = (pixels / top).mean(axis=1)
    bright = pixels[brightness >= 0.95 * np.percentile(brightness, 95)]
    return np.asarray(np.maximum(np.median(bright, axis=0), 1.0), np.float32)


def correct(rgb: Image8, background: Image32) -> Image32:
    """Divide by the background, so that empty background is 1.0 in each channel.

    Parameters
    ----------
    rgb : (height, width, 3) uint8
    background : (3,) or (height, width, 3) float32, 1..255

    Returns
    -------
    (height, width, 3) float32, 0..1
    """
    corrected = rgb.astype(np.float32)
    corrected /= background  # in place: a field of a large camera is 80 MB
    np.minimum(corrected, 1.0, out=corrected)
    return corrected


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
    return np.stack([resize(np.ascontiguousarray(image[..., c]), height, width) for c in range(image.shape[2])], axis=-1)


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


SURFACE_SIDE = 160
"""Long side, px, of the reduced field on which the background surface is fitted: it is smooth, and blocks average the noise."""

SURFACE_DEGREE = 4
"""Degree of the polynomial in x and y: chosen by eye; others were not tried."""

LEANS = ((0.04, 3.0), (0.02, 1.5))
"""Attempts at a surface: weight of a pixel under it, and how far (in typical distances of those above it) it may lie under it
and still belong to it. The second leans to the brightest pixels; it is only for fields that red cells all but cover, since
elsewhere it follows glare (seen as a cast on some of the seven fields compared by eye)."""


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
    height, width = rgb.shape[:2]
    shrink = min(1.0, SURFACE_SIDE / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX), np.float64)
    level = np.log(np.maximum(small, 1.0)).reshape(-1, 3)
    terms = _surface_terms(size[1], size[0])
    for lean, below in LEANS:
        surface = np.stack([_expectile_fit(terms, level[:, c], lean) for c in range(3)], axis=-1)
        for _ in range(4):
            surface = terms @ _refit(terms, level, surface, below)
        if not _gaps_above((level - surface).min(axis=1).reshape(size[1], size[0])):
            break
    out = np.empty(rgb.shape, np.float32)
    for c in range(3):
        plane = np.exp(surface[:, c]).reshape(size[1], size[0]).astype(np.float32)
        out[..., c] = resize(np.clip(plane, 1.0, 255.0), height, width)
    return out


def otsu(values: Image32) -> float:
    """Otsu's threshold over 256 bins (Otsu 1979); scikit-image has it, at 0.3 s of import."""
    counts, edges = np.histogram(np.maximum(values, 0.0), 256)
    centers = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(counts).astype(float), np.cumsum(counts * centers)
    between = (moment[-1] * below - moment * below[-1]) ** 2 / np.maximum(below * (below[-1] - below), 1e-9)
    return float(edges[1:][np.argmax(between[:-1])])


def _surface_terms(height: int, width: int) -> NDArray[np.float64]:
    """Chebyshev products up to ``SURFACE_DEGREE`` on the pixel grid: (height * width, terms) float64."""
    y = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, height), SURFACE_DEGREE)
    x = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, width), SURFACE_DEGREE)
    pairs = [(i, j) for i in range(SURFACE_DEGREE + 1) for j in range(SURFACE_DEGREE + 1 - i)]
    return np.stack([np.multiply.outer(y[:, i], x[:, j]).ravel() for i, j in pairs], axis=-1)


def _solve(terms: NDArray[np.float64], weight: NDArray[np.float64], level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted least squares with a light pull of all but the constant towards 0: corners without background stay flat."""
    weighted = terms * weight[:, None]
    normal = weighted.T @ terms
    pull = np.full(normal.shape[0], 2e-3 * weight.sum())
    pull[0] = 1e-9
    return np.asarray(np.linalg.solve(normal + np.diag(pull), weighted.T @ level))


def _expectile_fit(terms: NDArray[np.float64], level: NDArray[np.float64], lean: float) -> NDArray[np.float64]:
    """Surface that lies near the top of one channel: (pixels,) float64, logarithm of the level."""
    surface = np.full(level.shape, np.percentile(level, 90))
    for _ in range(15):
        residual = level - surface
        scale = np.median(np.abs(residual)) + 1e-3
        weight = np.where(residual > 0, 1.0, lean) / np.maximum(1.0, np.abs(residual) / (1.5 * scale))
        surface = terms @ _solve(terms, weight, level)
    return surface


def _refit(
    terms: NDArray[np.float64], level: NDArray[np.float64], surface: NDArray[np.float64], below: float
) -> NDArray[np.float64]:
    """Coefficients (terms, 3) float64 fitted to the pixels that lie on the surface in all channels."""
    residual = level - surface
    above = np.array([np.median(np.abs(r[r > 0])) if np.any(r > 0) else 0.0 for r in residual.T])
    on = np.all((residual > -below * above - 0.01) & (residual < 3.0 * above + 0.01), axis=1)
    return _solve(terms, on + 1e-6, level)


def _gaps_above(residual: NDArray[np.float64]) -> bool:
    """True where patches of the field are clearly brighter than the surface: it then runs through the red cells.

    Measured as the share of pixels in patches of 3x3 and more that lie 4 % above: 5.1 % on the chula field that red cells
    cover, at most 0.1 % on 120 others of both sets.
    """
    from scipy import ndimage

    return bool(ndimage.binary_opening(residual > 0.04, np.ones((3, 3))).mean() > 0.01)


STAIN_REFERENCE = (1.3, 2.1, 0.5)
"""Absorbance of a nucleus in R, G, B that every view is brought to: the typical one of Acevedo-20 (150 cells, rounded)."""
STAIN_GAIN = (0.5, 8.0)
"""Least and largest factor: where there is no nucleus, noise and red cells must not become one."""


def match_stain(views: Image32) -> Image32:
    """Bring the darkest part of each view's centre to a reference absorbance, channel by channel.

    White background is the first colour reference of a view, its nucleus the second. Nuclei of a cheap camera with stray light
    absorbed a fifth of what those of the training data do; three of four such cells were called artefacts without this.

    Parameters
    ----------
    views : (..., size, size, 3) float32, corrected, the cell in the middle

    Returns
    -------
    (..., size, size, 3) float32, 0..1
    """
    ink = absorbance(views)
    q = views.shape[-2] // 4
    dark = np.percentile(ink[..., q:-q, q:-q, :], 95, axis=(-3, -2))
    gain = np.clip(np.array(STAIN_REFERENCE) / np.maximum(dark, 1e-3), *STAIN_GAIN).astype(np.float32)
    return np.asarray(np.exp(-np.minimum(ink * gain[..., None, None, :], ABSORBANCE_MAX)), np.float32)


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
