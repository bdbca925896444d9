"""Pictures for people: the outline of a mask and the maps of channels. A base module like records: anybody may import it.

Colours are Okabe and Ito's, which the colour-blind tell apart; maps use cividis (Nunez et al. 2018, PLOS ONE 13:e0199239),
whose lightness rises evenly, so that it also survives a grey print.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nca_edge.records import Image8, Image32

CELL_COLOUR = (240, 228, 66)
"""Yellow: the one that stands off pink, purple and blue stain alike."""
NUCLEUS_COLOUR = (86, 180, 233)
"""Sky blue."""
CASING = (0, 0, 0)
"""Around the cell's outline, so that it is seen on a white background too."""
_LINE_COLOURS = (CASING, CELL_COLOUR, NUCLEUS_COLOUR)
PX_PER_LINE_PX = 80
"""An outline is one px wide for every so many px of the crop's side, at least one."""

_CIVIDIS = (
    (0, 34, 78), (0, 45, 104), (22, 55, 112), (46, 65, 109), (63, 76, 108), (78, 86, 108), (92, 97, 110), (105, 107, 113),
    (118, 118, 118), (131, 129, 121), (146, 140, 120), (160, 152, 117), (175, 164, 113), (191, 176, 107), (207, 189, 98),
    (223, 202, 87), (240, 216, 70), (254, 232, 56),
)  # fmt: skip
_LEVELS = 32
"""Colours of a map: more could not be told apart at its size, and would double the file."""
_WHITE, _BLACK = _LEVELS, _LEVELS + 1
"""Two more entries of the palette, for gap and marker."""


def overlay(crop: Image8, mask: Image8) -> Image8:
    """The crop with the outline of cell and nucleus drawn on it.

    Parameters
    ----------
    crop : (height, width, 3) uint8
    mask : (height, width) uint8
        0 background, 128 cell, 255 nucleus.

    Returns
    -------
    (height, width, 3) uint8, a new array
    """
    drawn: Image8 = crop.copy()
    lines = _lines(mask)
    for index, colour in enumerate(_LINE_COLOURS, start=1):
        drawn[lines == index] = colour
    return drawn


def outline(mask: Image8) -> Image.Image:
    """The same outline alone, as a palette image to lay over the crop; everything else is transparent."""
    image = Image.fromarray(_lines(mask)).convert("L")
    image.putpalette(bytes(3) + bytes(value for colour in _LINE_COLOURS for value in colour))
    image.info["transparency"] = 0
    return image


def shrink(pixels: Image8, side: int, smooth: bool = True) -> Image8:
    """Fit into ``side`` x ``side`` px, never enlarged; ``smooth`` False keeps the values of a mask as they are.

    Parameters
    ----------
    pixels : (height, width, 3) or (height, width) uint8

    Returns
    -------
    the same kind of array, both sides at most ``side``
    """
    image = Image.fromarray(pixels)
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST))


def stretch(values: Image32) -> Image8:
    """Values of one channel from its least (0) to its largest (255); what is not finite counts as 0."""
    finite = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    scaled = (finite - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.round(scaled).astype(np.uint8)


def map_strip(maps: Image8, peaks: Sequence[tuple[float, float]], tile: int = 64, gap: int = 6) -> Image.Image:
    """Channel maps side by side, each with a ring where the channel had its say.

    Parameters
    ----------
    maps : (n, grid, grid) uint8, n >= 1
    peaks : n pairs (x, y), each 0..1 of the map's width and height
    tile, gap : px of the drawing

    Returns
    -------
    palette image, n * tile + (n - 1) * gap px wide and ``tile`` px high
    """
    drawn = np.full((tile, len(maps) * (tile + gap) - gap), _WHITE, np.uint8)
    for index, (values, peak) in enumerate(zip(maps, peaks, strict=True)):
        # Nearest neighbour: the reader sees the automaton's own grid, and the picture stays small.
        enlarged = np.asarray(Image.fromarray(values).resize((tile, tile), Image.Resampling.NEAREST))
        square = drawn[:, index * (tile + gap) : index * (tile + gap) + tile]
        square[:] = np.round(enlarged * ((_LEVELS - 1) / 255.0)).astype(np.uint8)
        _ring(square, (peak[0] * tile, peak[1] * tile), tile / 64)
    image = Image.fromarray(drawn).convert("L")
    image.putpalette(_palette())
    return image


@cache
def _palette() -> bytes:
    anchors = np.array(_CIVIDIS, np.float64)
    at = np.linspace(0, len(anchors) - 1, _LEVELS)
    colours = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)], axis=1)
    return np.round(colours).astype(np.uint8).tobytes() + bytes([255, 255, 255, 0, 0, 0])


def _ring(square: Image8, center: tuple[float, float], size: float) -> None:
    """Draw a white ring with a black rim, seen on every colour of the map; of size 1 its radius is 6 px."""
    y, x = np.ogrid[: square.shape[0], : square.shape[1]]
    distance = np.hypot(x + 0.5 - center[0], y + 0.5 - center[1]) / size
    square[np.abs(distance - 6.0) <= 2.5] = _BLACK
    square[np.abs(distance - 6.0) <= 1.2] = _WHITE


def _lines(mask: Image8) -> Image8:
    """0 nothing, else 1 + index into ``_LINE_COLOURS``; lines lie inside their region, the casing outside the cell."""
    lines = np.zeros(mask.shape, np.uint8)
    width = max(1, round(max(mask.shape) / PX_PER_LINE_PX))
    cell, nucleus = mask >= 128, mask == 255
    lines[_grow(cell, width) & ~cell] = 1
    lines[cell & _grow(~cell, width)] = 2
    lines[nucleus & _grow(~nucleus, width)] = 3
    return lines


def _grow(region: NDArray[np.bool_], px: int) -> NDArray[np.bool_]:
    """Grow by ``px`` in the four directions, without wrapping round the edge."""
    grown = region
    for _ in range(px):
        wide = np.pad(grown, 1)
        grown = wide[1:-1, 1:-1] | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return grown
