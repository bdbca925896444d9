"""Fields spoilt until nobody would read them: out of focus, moved, badly lit, hidden, too thick, empty, or no smear at all.

Light is added, blurred and lost in proportion to what the sensor counts, so grey levels are made linear first (``GAMMA``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optics import as_grey
from PIL import Image, ImageDraw
from scipy import ndimage, signal

from nca_edge.preprocess import field_background
from nca_edge.records import Image8

GAMMA = 2.2
NOISE = 2.0
"""Noise added to what blur or haze made smooth, grey levels: a camera has noise in a blurred field, too."""
Light = NDArray[np.floating]


def spoilt(rgb: Image8, degradation: str, strength: float, seed: int) -> Image8:
    """One field, spoilt.

    Parameters
    ----------
    rgb : (height, width, 3) uint8
    degradation : one of ``WAYS``
    strength : its unit stands in the docstring of each
    seed : of noise and of what is drawn at random
    """
    draw = np.random.default_rng(seed)
    if degradation in FLAT:
        return FLAT[degradation](rgb, strength, draw)
    light = (rgb / np.float32(255.0)) ** np.float32(GAMMA)
    level = 255.0 * np.clip(WAYS[degradation](light, strength, draw), 0.0, 1.0) ** (1.0 / GAMMA)
    return as_grey(level + NOISE * draw.standard_normal(rgb.shape, np.float32))


def defocus(light: Light, radius_px: float, draw: np.random.Generator) -> Light:
    """Every point becomes a disc of ``radius_px``, as with a lens of that aperture away from its focus."""
    r = int(np.ceil(radius_px))
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    return _convolved(light, np.clip(radius_px + 0.5 - np.hypot(x, y), 0.0, 1.0))


def gaussian(light: Light, sigma_px: float, draw: np.random.Generator) -> Light:
    """Soft blur of standard deviation ``sigma_px``: oil on a dry lens, a thick cover slip."""
    return np.asarray(ndimage.gaussian_filter(light, (sigma_px, sigma_px, 0.0)))


def motion(light: Light, length_px: float, draw: np.random.Generator) -> Light:
    """The stage moves ``length_px`` during the exposure, in a direction drawn at random."""
    angle = draw.uniform(0.0, np.pi)
    r = int(np.ceil(length_px / 2)) + 1
    kernel = np.zeros((2 * r + 1, 2 * r + 1))
    for t in np.linspace(-0.5, 0.5, 8 * r):
        y, x = r + length_px * t * np.sin(angle), r + length_px * t * np.cos(angle)
        i, j = int(y), int(x)
        for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
            kernel[i + di, j + dj] += (1 - abs(y - i - di)) * (1 - abs(x - j - dj))
    return _convolved(light, kernel)


def _convolved(light: Light, kernel: Light) -> Light:
    """With edges mirrored."""
    r = kernel.shape[0] // 2
    kernel = kernel.astype(np.float32)
    padded = np.pad(light, ((r, r), (r, r), (0, 0)), mode="symmetric")
    return np.stack([signal.fftconvolve(padded[..., c], kernel / kernel.sum(), "valid") for c in range(3)], axis=-1)


def exposed(light: Light, factor: float, draw: np.random.Generator) -> Light:
    """``factor`` times the light; what is brighter than white is lost."""
    return light * factor


def haze(light: Light, veil: float, draw: np.random.Generator) -> Light:
    """A share ``veil`` of the background's light is spread over all: fingerprint, dried oil, condenser wide open."""
    clear = (field_background(as_grey(255.0 * light ** (1.0 / GAMMA))) / 255.0) ** GAMMA
    return (1.0 - veil) * light + veil * clear


def thick(light: Light, layers: float, draw: np.random.Generator) -> Light:
    """So many layers of the smear over each other, mirrored and shifted: absorbance adds up."""
    clear = (field_background(as_grey(255.0 * light ** (1.0 / GAMMA))) / 255.0) ** GAMMA
    passed = np.minimum(light / clear, 1.0)
    height, width = passed.shape[:2]
    endless = np.concatenate([passed, passed[:, ::-1]], axis=1)  # mirrored at the seams: no edges that no cell has
    endless = np.concatenate([endless, endless[::-1]], axis=0)
    out = passed
    for _ in range(1, round(layers)):
        y, x = int(draw.integers(0, height)), int(draw.integers(0, width))
        out = out * endless[y : y + height, x : x + width]
    return out * clear


def blank(rgb: Image8, specks: float, draw: np.random.Generator) -> Image8:
    """The empty slide of this microscope, with so many specks of dust."""
    level = field_background(rgb).copy()
    for _ in range(round(specks)):
        y, x = (int(draw.integers(0, n)) for n in rgb.shape[:2])
        level[y - 1 : y + 2, x - 1 : x + 2] *= 0.6
    return as_grey(level + draw.normal(0.0, NOISE, rgb.shape))


def capped(rgb: Image8, level: float, draw: np.random.Generator) -> Image8:
    """A covered lens: black but for noise of so many grey levels."""
    return as_grey(np.abs(draw.normal(0.0, level, rgb.shape)))


def text(rgb: Image8, size_px: float, draw: np.random.Generator) -> Image8:
    """A printed page under this microscope's light, in letters of ``size_px``."""
    from PIL import ImageFont

    page = Image.new("L", (rgb.shape[1], rgb.shape[0]), 255)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size_px)
    letters = np.array(list("abcdefghijklmnoprstuvwy   "))
    for y in range(0, rgb.shape[0], round(1.3 * size_px)):
        pen.text((draw.integers(-20, 20), y), "".join(draw.choice(letters, round(3 * rgb.shape[1] / size_px))), 25, font)
    ink = ndimage.gaussian_filter(np.asarray(page, np.float32) / 255.0, 0.8)
    return as_grey(field_background(rgb) * ink[..., None] + draw.normal(0.0, NOISE, rgb.shape))


FLAT: dict[str, Callable[[Image8, float, np.random.Generator], Image8]] = {"blank": blank, "capped": capped, "text": text}
WAYS: dict[str, Callable[[Light, float, np.random.Generator], Light]] = {
    "defocus": defocus, "gaussian": gaussian, "motion": motion, "over": exposed, "under": exposed, "haze": haze, "thick": thick,
}  # fmt: skip


def other(folder: Path, name: str) -> Image8:
    """A picture that is no smear, as it is."""
    return np.asarray(Image.open(folder / name).convert("RGB"))
