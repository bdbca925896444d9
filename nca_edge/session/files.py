"""Files that are whole or not there at all, and the pictures of a cell."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nca_edge.drawing import overlay, stretch
from nca_edge.records import CellReading, ChannelRelevance, Image8
from nca_edge.threads import each

CELLS = "cells"
"""Folder of the pictures inside a session."""
KINDS = ("crop", "mask", "overlay")
"""Pictures kept of every cell."""
MAPS_KEPT = 5
"""Channel maps kept of every cell: what the report draws."""

PNG_STRATEGY = 3
"""Z_RLE of zlib: photographs hold hardly any repeats that a search finds, only the runs that PNG's filters leave. A crop of
316 px takes 6 ms and 82 kB, one of 220 px 3 ms and 53 kB; with the usual strategy 30 ms and 86 kB, 14 ms and 49 kB."""


def picture_path(field_number: int, cell: int, kind: str) -> str:
    """Path of a picture relative to the session folder, the same at every try and safe whatever the field is called."""
    return f"{CELLS}/{field_number:06d}-{cell:03d}.{kind}.png"


def pictures(field_number: int, cells: Sequence[CellReading]) -> dict[str, bytes]:
    """Crop, mask and overlay of each cell as PNG: path -> bytes."""
    jobs = [(cell, kind) for cell in cells for kind in KINDS]
    names = [picture_path(field_number, cell.cell, kind) for cell, kind in jobs]
    return dict(zip(names, each(lambda job: _picture(*job), jobs), strict=True))


def _picture(cell: CellReading, kind: str) -> bytes:
    if kind == "crop":
        return _png(cell.crop)
    return _png(cell.explanation.mask if kind == "mask" else overlay(cell.crop, cell.explanation.mask))


def pack_maps(channels: Iterable[ChannelRelevance]) -> bytes | None:
    """Grey PNG of the first ``MAPS_KEPT`` maps, one under the other, each stretched from its least to its largest value."""
    maps = [stretch(np.asarray(channel.map)) for channel in channels][:MAPS_KEPT]
    return _png(np.concatenate(maps)) if maps else None


def unpack_maps(png: bytes | None) -> Image8:
    """The inverse of ``pack_maps``: (n, grid, grid) uint8, n = 0 where nothing was kept."""
    if png is None:
        return np.zeros((0, 1, 1), np.uint8)
    with Image.open(io.BytesIO(png)) as image:
        grey = np.asarray(image.convert("L"))
    grid = grey.shape[1]
    return grey.reshape(-1, grid, grid)


def write_pictures(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files that survive a power cut once this returns.

    All are written and synced under temporary names, then renamed; the folder is synced once at the end, which makes the names
    as durable as the data.

    Parameters
    ----------
    folder : the session folder
    contents : path relative to it -> bytes; all in the same sub-folder ``cells``
    """
    paths = {folder / name: data for name, data in contents.items()}
    (folder / CELLS).mkdir(exist_ok=True)
    try:
        each(lambda item: _write_synced(_temporary(item[0]), [item[1]]), paths.items())
        for path in paths:
            os.replace(_temporary(path), path)
    finally:
        for path in paths:
            _temporary(path).unlink(missing_ok=True)
    if paths:
        sync_folder(folder / CELLS)


def replace_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace ``path`` in one step: a reader sees the old file or the new one, never a part."""
    # a name of its own: two runs on one session finish at the same time, and one would rename the other's file away
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        _write_synced(temporary, chunks)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _write_synced(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _png(pixels: Image8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(buffer, "PNG", compress_type=PNG_STRATEGY)
    return buffer.getvalue()
