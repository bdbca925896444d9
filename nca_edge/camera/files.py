"""Image files and folders of them. Every readable kind of image becomes (height, width, 3) uint8 RGB."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nca_edge.errors import InputError, UsageError
from nca_edge.records import Frame, FrameError, Image8

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, whatever a file is called. Pillow knows more, of which EPS would start another program."""
MAX_PIXELS = 64_000_000
"""Largest image that is decoded: a 64-megapixel camera; more would not fit a small board's memory."""


def read_image(path: Path) -> Image8:
    """Decode an image file to RGB.

    Grey is repeated into three channels, transparency is laid on white, 16 bits are scaled down by their full range, CMYK is
    converted, and the camera's orientation tag is obeyed. Of several frames or pages the first is taken.

    Returns
    -------
    (height, width, 3) uint8

    Raises
    ------
    InputError
        Missing, unreadable, truncated or too large; begins with the file's name.
    """
    try:
        return _decode(path)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def _decode(path: Path) -> Image8:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would keep us waiting for ever
        raise InputError("is no file; give an image file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about size (checked here) and odd but harmless metadata
            with Image.open(path, formats=FORMATS) as image:
                _check_size(*image.size)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _to_rgb(image)
    except FileNotFoundError as error:
        raise InputError("no such file; check the path.") from error
    except Image.DecompressionBombError as error:
        raise InputError("too many pixels to decode; export it smaller.") from error
    except UnidentifiedImageError as error:
        raise InputError("not an image that can be read; save it as JPEG or PNG.") from error
    except MemoryError as error:
        raise InputError("does not fit this machine's memory; export it smaller.") from error
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, struct.error) as error:
        # Pillow raises each of these for damaged files of one format or another
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "damaged or cut short"
        raise InputError(f"cannot be read ({reason}); copy it again from its source.") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise InputError(f"{width} x {height} pixels are more than {limit} megapixels; export it smaller.")


def _to_rgb(image: Image.Image) -> Image8:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, np.float32), posinf=np.inf, neginf=0.0)
        grey = np.clip(values * np.float32(255 / _full_range(image.mode, values)) + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return np.asarray(image.convert("RGB"), np.uint8)


def _full_range(mode: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """White of a deep grey image: 65535 for 16 bits; of a wider kind the smallest usual range that holds its values."""
    if mode.startswith("I;16"):
        return 65535.0
    brightest = float(values.max())
    return 1.0 if mode == "F" and brightest <= 1.0 else 255.0 if brightest <= 255.0 else 65535.0


def list_images(source: Path) -> list[Path]:
    """Image files of a folder and its sub-folders in name order, or the file itself.

    Hidden files and folders are passed over, and so are the pictures that a session keeps (``cells`` beside ``session.db``).
    Links to folders are not followed. A sub-folder that cannot be listed stands in the list itself, so that its loss is told.

    Raises
    ------
    UsageError
        The path is missing or holds no image.
    """
    if os.path.isfile(source):
        return [source]
    if not os.path.isdir(source):
        raise UsageError(f"{source}: no such file or folder; check the path.")
    unlisted: list[OSError] = []
    found = []
    for folder, names, files in os.walk(source, onerror=unlisted.append):
        session = "session.db" in files
        names[:] = [name for name in names if not name.startswith(".") and not (session and name == "cells")]
        found += [Path(folder, name) for name in files if _is_image(folder, name)]
    lost = [Path(error.filename) for error in unlisted]
    if source in lost:
        raise UsageError(f"{source}: cannot be listed ({unlisted[0].strerror}); check its permissions.")
    if not found and not lost:
        raise UsageError(f"{source}: holds no image ({', '.join(IMAGE_SUFFIXES)}); check the path.")
    return sorted(found + lost)


def _is_image(folder: str, name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(os.path.join(folder, name))


def field_name(source: Path, path: Path) -> str:
    """Name of a field: relative to the source folder, with forward slashes; of a single file its own name."""
    return path.name if path == source else path.relative_to(source).as_posix()


def file_frames(source: Path, paths: Iterable[Path]) -> Iterator[Frame | FrameError]:
    """Fields of a file or folder, one after the other; an unreadable file is yielded as a ``FrameError``.

    Parameters
    ----------
    source : a file or a folder
    paths : which of ``list_images(source)``
    """
    for path in paths:
        name = field_name(source, path)
        try:
            yield Frame(name, read_image(path))
        except InputError as error:
            yield FrameError(name, str(error).removeprefix(f"{path.name}: "))
