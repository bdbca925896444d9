"""Places on the disk: one line a field in the session's folder, so that a count that goes on knows where it was.

Not the truth: a cell counts because ``session.db`` holds it. A line that is damaged is passed over, and then its field is not
known again. A line is on the disk before its field is committed: a field never counts while its place is unknown.
"""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge.live.glance import Kept
from nca_edge.live.place import Join, Place, Position, Spot
from nca_edge.session import replace_file
from nca_edge.session.disk import require_room
from nca_edge.session.faults import storage
from nca_edge.session.files import sync_folder

PLACES = "places.jsonl"
"""File name inside the session folder; about 17 kB a field."""
MOST_SIDE = 512
"""Longest side of a small picture that is believed, px."""


class PlaceBook:
    """The file of one session. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / PLACES

    def read(self) -> list[Place]:
        """Every place that can be read, in order of writing; StorageError where the disk fails."""
        if not self._path.exists():
            return []
        with storage(self._folder):
            return list(_places(self._path.read_bytes()))

    def rewrite(self, places: tuple[Place, ...]) -> None:
        """Begin anew with these: what a power cut left half written is gone then."""
        with storage(self._folder):
            replace_file(self._path, map(_line, places))

    def write(self, place: Place) -> None:
        """Add one; on the disk when this returns, or not at all: StorageError."""
        line = _line(place)
        with storage(self._folder):
            require_room(self._folder, len(line))
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                end = os.lseek(handle, 0, os.SEEK_END)
                try:
                    _write(handle, line)
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, end)  # else the next line would go on with half of this one
                    raise
                if end == 0:
                    sync_folder(self._folder)
            finally:
                os.close(handle)


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _line(place: Place) -> bytes:
    at, kept = place.position, place.glance
    out: dict[str, Any] = {
        "field": place.name, "sheet": at.sheet, "x": at.x, "y": at.y, "size": place.size,
        "spots": [[s.x, s.y, s.w, s.h, s.border] for s in place.spots],
        "joins": [[j.sheet, j.onto, j.dx, j.dy] for j in place.joins],
    }  # fmt: skip
    if kept is not None:
        packed = base64.b64encode(zlib.compress(np.ascontiguousarray(kept.small).tobytes(), 1)).decode()
        out["small"] = {"shape": kept.small.shape, "step": kept.step, "factor": kept.factor, "zlib": packed}
    return json.dumps(out, separators=(",", ":")).encode() + b"\n"


def _places(data: bytes) -> Iterator[Place]:
    for line in data.split(b"\n"):
        try:
            yield _place(json.loads(line))
        except (ValueError, KeyError, TypeError, OverflowError, zlib.error):
            continue  # half a line, or none


def _place(row: dict[str, Any]) -> Place:
    """ValueError, KeyError, TypeError where it is none."""
    if not re.fullmatch(r"frame-\d+", row["field"]):
        raise ValueError("no frame")
    numbers = [row["x"], row["y"], *(v for s in row["spots"] for v in s), *(v for j in row["joins"] for v in j)]
    if not np.isfinite(np.array(numbers, float)).all():
        raise ValueError("no position")
    width, height = row["size"]
    return Place(
        row["field"], Position(int(row["sheet"]), float(row["x"]), float(row["y"])), (int(width), int(height)),
        _kept(row["small"]) if "small" in row else None,
        tuple(Spot(float(x), float(y), float(w), float(h), bool(border)) for x, y, w, h, border in row["spots"]),
        tuple(Join(int(sheet), int(onto), float(dx), float(dy)) for sheet, onto, dx, dy in row["joins"]),
    )  # fmt: skip


def _kept(small: dict[str, Any]) -> Kept:
    height, width = (int(side) for side in small["shape"])
    if not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE):
        raise ValueError("no picture")
    data = zlib.decompressobj().decompress(base64.b64decode(small["zlib"], validate=True), height * width)
    step, factor = float(small["step"]), int(small["factor"])
    if not (np.isfinite(step) and step > 0 and factor > 0):
        raise ValueError("no picture")
    return Kept(np.frombuffer(data, np.int8).reshape(height, width), step, factor)
