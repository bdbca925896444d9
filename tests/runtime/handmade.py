"""A PNG written by hand, of kinds that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def png(path: Path, width: int, height: int, bits: int, colour: int, rows: bytes) -> Path:
    """A PNG written by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))
    return path
