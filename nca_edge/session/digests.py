"""Hashes of what a commit wrote, so that a later change of rows or pictures can be found."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from nca_edge.session.files import KINDS, picture_path

_FIELD = "number, name, committed_at, accepted, failed, reasons_json, focus, um_per_px, scale_source"
_CELL = (
    "cell, x, y, w, h, border, score, model_label, confidence, unsure, counted, probabilities_json, explained_label, logit, "
    "bias_share, epsilon_share, top_channels_json, measures_json, pictures_sha256, maps_png"
)
"""Columns that are written once and never change."""


def field_digest(connection: sqlite3.Connection, number: int) -> str:
    """SHA-256 of a field's row and the rows of its cells, as they stand in the database."""
    digest = hashlib.sha256()
    for row in connection.execute(f"SELECT {_FIELD} FROM field WHERE number = ?", (number,)).fetchall():
        digest.update(_line(row))
    for row in connection.execute(f"SELECT {_CELL} FROM cell WHERE field = ? ORDER BY cell", (number,)).fetchall():
        digest.update(_line(row))
    return digest.hexdigest()


def bytes_digest(chunks: Iterable[bytes]) -> str:
    """SHA-256 of some bytes, one after the other."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def pictures_digest(folder: Path, field_number: int, cell: int) -> str | None:
    """SHA-256 of a cell's pictures as they lie in the session folder; None where one is missing."""
    try:
        return bytes_digest((folder / picture_path(field_number, cell, kind)).read_bytes() for kind in KINDS)
    except FileNotFoundError:
        return None


def _line(row: Iterable[object]) -> bytes:
    values = [hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value for value in row]
    return (json.dumps(values) + "\n").encode("ascii")
