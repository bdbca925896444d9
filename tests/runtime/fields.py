"""Fields drawn with numpy: red cells as pale discs of known size, white cells with lobed dark nuclei, lamp and tint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RED = (0.10, 0.30, 0.35)
CYTOPLASM = (0.25, 0.30, 0.08)
NUCLEUS = (1.3, 1.5, 0.5)
RED_UM = 7.0
"""A red cell of 7.5 um, measured to the outer end of its rim, is so wide where its absorbance is half."""


def blank(height: int = 480, width: int = 640) -> NDArray[np.float64]:
    """Absorbance 0: (height, width, 3)."""
    return np.zeros((height, width, 3))


def disc(field: NDArray[np.float64], x: float, y: float, diameter: float, stain: tuple[float, float, float]) -> None:
    """Set a soft-edged disc (edge 2 px) to ``stain``."""
    half = diameter / 2 + 2  # only the disc's surroundings: most of the tests' time went into drawing
    top, left = max(0, int(y - half)), max(0, int(x - half))
    part = field[top : max(0, int(y + half) + 2), left : max(0, int(x + half) + 2)]
    rows, cols = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
    share = np.clip((diameter / 2 - np.hypot(cols - x, rows - y)) / 2 + 0.5, 0, 1)[..., None]
    part += share * (np.array(stain) - part)


def white_cell(field: NDArray[np.float64], x: float, y: float, um: float) -> None:
    """A neutrophil of 12 um: three lobes of 4.4 um in a pale cytoplasm; ``um`` is px per um."""
    disc(field, x, y, 12 * um, CYTOPLASM)
    for dx, dy in ((-2.4, -1.5), (2.4, -1.5), (0.0, 2.6)):
        disc(field, x + dx * um, y + dy * um, 4.4 * um, NUCLEUS)


def red_grid(field: NDArray[np.float64], um: float, keep_off: list[tuple[float, float]]) -> int:
    """Red cells on a grid of 11 um, away from the given places; how many."""
    n = 0
    for y in np.arange(7 * um, field.shape[0] - 6 * um, 11 * um):
        for x in np.arange(7 * um, field.shape[1] - 6 * um, 11 * um):
            if all(np.hypot(x - a, y - b) > 12 * um for a, b in keep_off):
                disc(field, x, y, RED_UM * um, RED)
                n += 1
    return n


def smear(um: float = 8.0, cells: tuple[tuple[float, float], ...] = ((200, 150), (450, 320))) -> NDArray[np.float64]:
    """Absorbance of a field with red cells and white cells at ``cells``."""
    field = blank()
    red_grid(field, um, list(cells))
    for x, y in cells:
        white_cell(field, x, y, um)
    return field


def photograph(
    field: NDArray[np.float64], tint: tuple[float, float, float] = (220, 215, 205), vignette: float = 0.0
) -> NDArray[np.uint8]:
    """What a camera sees of it: (height, width, 3) uint8 with a little noise."""
    height, width = field.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    light = np.array(tint) * (1.0 - vignette * (x * x + y * y) / 2)[..., None]
    noise = np.random.default_rng(7).normal(0, 1, field.shape)
    return np.clip(np.round(light * np.exp(-field) + noise), 0, 255).astype(np.uint8)
