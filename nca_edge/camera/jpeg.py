"""JPEG pictures out of a stream of bytes: whole ones only.

A stream is cut by the structure of JPEG itself (ITU-T T.81, annex B), not by the boundaries that a server announces: those are
wrong on some, and missing in a pipe. A picture inside which another one begins was torn.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from nca_edge.camera.protocol import TornFrame
from nca_edge.errors import CameraError
from nca_edge.records import Image8

MOST_BYTES = 64 << 20
"""A picture, or what comes before the first one, is never longer."""
FOREIGN_BYTES = 8 << 20
"""So much without the beginning of any picture is another format: 13 raw frames of 640 x 480."""
_START = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker inside the coded picture: neither a stuffed byte nor a restart."""
_SCAN, _END, _BEGIN = 0xDA, 0xD9, 0xD8


class JpegStream:
    """Cuts a stream into pictures."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        """How far the picture at the start of the buffer was looked through."""
        self._coded = False
        """Whether that place lies in its coded part."""
        self._foreign = 0
        """Bytes since the last beginning of a picture."""
        self.torn = 0
        """Pictures that were not whole."""

    @property
    def waiting(self) -> bytes:
        """What came and belongs to no whole picture yet."""
        return bytes(self._buffer[:4096])

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; returns the pictures that are whole now.

        Raises
        ------
        CameraError
            Too much came without one.
        """
        self._buffer += data
        found = []
        while (picture := self._next()) is not None:
            found.append(picture)
        if len(self._buffer) > MOST_BYTES or self._foreign > FOREIGN_BYTES:
            raise CameraError("The camera sends something that is no JPEG picture: choose MJPEG as its format.")
        return found

    def _next(self) -> bytes | None:
        if self._at == 0 and not self._find_start():
            return None
        while True:
            end = self._step()
            if end is None:
                return None
            if end > 0:
                picture = bytes(self._buffer[:end])
                self._drop(end)
                return picture
            if not self._find_start():
                return None

    def _find_start(self) -> bool:
        """Bring the next beginning to the start of the buffer."""
        start = self._buffer.find(_START)
        if start < 0:
            if len(self._buffer) > 4096:
                self._foreign += len(self._buffer) - 2
                del self._buffer[:-2]
            return False
        self._foreign = 0
        self._drop(start)
        self._at = 2
        return True

    def _step(self) -> int | None:
        """Look on: None where more bytes are needed, the picture's length where it is whole, 0 where it is torn."""
        buffer = self._buffer
        while True:
            if self._coded:
                marker = _MARKER.search(buffer, self._at)
                if marker is None:
                    self._at = max(self._at, len(buffer) - 1)
                    return None
                self._at, self._coded = marker.start(), False
            if len(buffer) < self._at + 2:
                return None
            kind = buffer[self._at + 1]
            if buffer[self._at] != 0xFF or kind == _BEGIN:
                return self._tear()
            if kind == _END:
                return self._at + 2
            if kind == 0xFF:
                self._at += 1
                continue
            if len(buffer) < self._at + 4:
                return None
            end = self._at + 2 + int.from_bytes(buffer[self._at + 2 : self._at + 4], "big")
            if len(buffer) < end:
                return None
            begun = buffer.find(_START, self._at, end)
            if begun >= 0 and not 0xE0 <= kind <= 0xEF:  # an application's part may hold a thumbnail, a table may not
                self._at = begun
                return self._tear()
            self._at = end
            self._coded = kind == _SCAN

    def _tear(self) -> int:
        self.torn += 1
        self._drop(self._at if self._buffer[self._at : self._at + 3] == _START else 2)
        return 0

    def _drop(self, n: int) -> None:
        del self._buffer[:n]
        self._at, self._coded = 0, False


def decode(data: bytes) -> Image8:
    """Pixels of one picture: (height, width, 3) uint8 RGB; TornFrame where it is damaged."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.load()
            return np.asarray(image.convert("RGB"), np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise TornFrame("a picture came damaged") from error
