"""A smear made of real fields, laid side by side: the ground that the simulated microscope moves over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nca_edge.camera.files import list_images, read_image
from nca_edge.errors import UsageError
from nca_edge.preprocess import correct, field_background
from nca_edge.records import Image8, Image32
from nca_edge.samples import sample_fields

LAMP = (236.0, 232.0, 226.0)
"""Colour of the empty slide on the sheet, R, G, B."""
MOST_TILES = 64
"""Tiles of a sheet: 59 MB of 640 x 480."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One field on the sheet."""

    file: str
    """Its file's name."""
    x: int
    """Left edge on the sheet, px."""
    y: int
    """Upper edge on the sheet, px."""
    flip: tuple[bool, bool]
    """Whether it is mirrored left to right, and top to bottom."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The whole sheet."""

    rgb: Image8
    """(height, width, 3) uint8, evenly lit."""
    tiles: tuple[Tile, ...]
    size: tuple[int, int]
    """(width, height) of every tile, px."""


def sample_mosaic() -> Mosaic:
    """The four evenly lit sample fields, each in four orientations."""
    files = [path for path in list_images(sample_fields()) if path.name.startswith("bccd")]
    flips = [(False, False), (True, False), (False, True), (True, True)]
    # Each field once in each orientation: two places that look alike would be one place to whoever finds the way by looks.
    order = [(files[(row + column) % len(files)], flips[row]) for row in range(4) for column in range(len(files))]
    return _laid(order, len(files))


def folder_mosaic(folder: Path) -> Mosaic:
    """The fields of a folder that share the commonest size, in order of name, in rows about as many as columns.

    Raises
    ------
    UsageError
        There is no image.
    """
    files = list_images(folder)
    sizes = {path: _size(path) for path in files}
    common = Counter(size for size in sizes.values() if size).most_common(1)
    if not common:
        raise UsageError(f"{folder}: none of its images can be read; give a folder of fields.")
    chosen = [path for path in files if sizes[path] == common[0][0]][:MOST_TILES]
    return laid_fields(chosen)


def laid_fields(files: list[Path]) -> Mosaic:
    """These fields, all of one size, in rows about as many as columns; what is left over at the end is left out."""
    columns = max(1, int(np.ceil(np.sqrt(len(files)))))
    while columns > 1 and len(files) // columns * columns < 0.8 * len(files):
        columns -= 1
    return _laid([(path, (False, False)) for path in files[: len(files) // columns * columns]], columns)


def _laid(order: list[tuple[Path, tuple[bool, bool]]], columns: int) -> Mosaic:
    tiles, sheet = [], np.empty((0, 0, 3), np.uint8)
    for number, (path, flip) in enumerate(order):
        rgb = read_image(path)
        height, width = rgb.shape[:2]
        if number == 0:
            sheet = np.empty((len(order) // columns * height, columns * width, 3), np.uint8)
        x, y = number % columns * width, number // columns * height
        sheet[y : y + height, x : x + width] = _even(rgb)[:: -1 if flip[1] else 1, :: -1 if flip[0] else 1]
        tiles.append(Tile(path.name, x, y, flip))
    return Mosaic(sheet, tuple(tiles), (width, height))


def _even(rgb: Image8) -> Image8:
    """A field under the sheet's own, even light."""
    level: Image32 = correct(rgb, field_background(rgb)) * np.array(LAMP, np.float32)
    return np.rint(level).astype(np.uint8)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError):
        return None
