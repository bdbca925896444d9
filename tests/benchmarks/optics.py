"""Fields as another microscope or another camera would show them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from nca_edge.preprocess import correct, field_background
from nca_edge.records import Image8

Rect = tuple[float, float, float, float]
ZOOMS = ("0.28x", "0.35x", "0.5x", "1.7x", "wide 0.4x")
TINTS = {"teal": (0.55, 0.95, 0.9), "yellow": (1.0, 0.95, 0.55), "pink": (1.0, 0.6, 0.8)}
GAINS = (0.6, 1.5)
"""Least and largest white-balance gain of a channel; what exceeds white is clipped, as a camera does."""
CORNER = 0.5
"""Light that is left in the corners of a field under the strongest vignetting."""
BLUR_PX = 2.0
"""Strongest blur, standard deviation."""
CAMERAS = ("gains", "vignette", "blur", "jpeg 40", "poor camera", "poorest camera")
"""Of the last two the first has gains, vignetting and blur drawn up to their strongest, the second has vignetting and blur at
their strongest and each gain at one end; both end as JPEG 40."""
CHANGES = ("none", *CAMERAS, *ZOOMS, "gamma 1.5", "gamma 0.65", *TINTS, "mixed colours", "flip", "noise 4")


def optics(rgb: Image8, rects: list[Rect], change: str) -> tuple[Image8, list[Rect], float]:
    """The field as another microscope might show it, its boxes there, and how much larger it became."""
    if change.endswith("x"):
        zoom = float(change[:-1].removeprefix("wide "))
        size = round(rgb.shape[1] * zoom), round(rgb.shape[0] * zoom)
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
        rects = [(x * zoom, y * zoom, w * zoom, h * zoom) for x, y, w, h in rects]
        return (*(mirrored(rgb, rects) if change.startswith("wide") else (rgb, rects)), zoom)
    if change == "flip":
        return np.ascontiguousarray(rgb[:, ::-1]), [(rgb.shape[1] - x - w, y, w, h) for x, y, w, h in rects], 1.0
    level = rgb / 255.0
    if change.startswith("gamma"):
        level = level ** float(change.split()[1])
    elif change in TINTS:
        level = level * TINTS[change]
    elif change == "mixed colours":
        level = level @ np.array([[0.8, 0.1, 0.05], [0.15, 0.8, 0.2], [0.05, 0.1, 0.75]])
    return as_grey(255.0 * level), rects, 1.0


def mirrored(rgb: Image8, rects: list[Rect]) -> tuple[Image8, list[Rect]]:
    """Three by three copies, each mirrored at the seams: what a low magnification or a large sensor shows at once."""
    height, width = rgb.shape[:2]
    light = field_background(rgb)  # a lamp's fall-off does not come nine times in one field
    rgb = np.round(correct(rgb, light) * light.mean(axis=(0, 1))).astype(np.uint8)
    both = np.concatenate([rgb, rgb[:, ::-1], rgb], axis=1)
    out = []
    for x, y, w, h in rects:
        for column in range(3):
            for row in range(3):
                left = width - x - w if column == 1 else x
                top = height - y - h if row == 1 else y
                out.append((left + column * width, top + row * height, w, h))
    return np.concatenate([both, both[::-1], both], axis=0), out


def camera(rgb: Image8, change: str, seed: int = 0) -> Image8:
    """What a poor lens, sensor, white balance or compression adds; what is drawn at random depends on ``seed``."""
    draw = np.random.default_rng(seed)
    if change == "noise 4":
        return as_grey(rgb + draw.normal(0.0, 4.0, rgb.shape))
    if change not in CAMERAS:
        return rgb
    level = rgb.astype(np.float32)
    share = draw.uniform(0.0, 1.0, 2) if change == "poor camera" else np.ones(2)
    if change in ("blur", "poor camera", "poorest camera"):
        sigma = BLUR_PX * float(share[0])
        level = ndimage.gaussian_filter(level, (sigma, sigma, 0.0))
    if change in ("vignette", "poor camera", "poorest camera"):
        level = level * (1.0 - (1.0 - CORNER) * float(share[1]) * from_middle(rgb.shape[:2]))[..., None]
    if change in ("gains", "poor camera"):
        level = level * draw.uniform(*GAINS, 3)
    elif change == "poorest camera":
        level = level * draw.choice(GAINS, 3)
    out = as_grey(level)
    return as_jpeg(out, 40) if change in ("jpeg 40", "poor camera", "poorest camera") else out


def from_middle(size: tuple[int, int]) -> np.ndarray:
    """Squared distance from the middle, 1 in the corners: (height, width) float64."""
    y, x = (np.linspace(-1.0, 1.0, n) ** 2 for n in size)
    return (y[:, None] + x[None, :]) / 2.0


def as_grey(level: np.ndarray) -> Image8:
    """Rounded to grey levels 0..255, clipped as a camera does."""
    return np.clip(np.round(level), 0.0, 255.0).astype(np.uint8)


def as_jpeg(rgb: Image8, quality: int) -> Image8:
    """Written as JPEG and read again."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))
