"""Cameras in the network: an MJPEG stream, or one picture that is asked for again and again (OpenFlexure, phone cameras).

Only a host that the user names is asked, and only it: a redirection elsewhere is not followed.
"""

from __future__ import annotations

import http.client
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from nca_edge.camera.jpeg import JpegStream, decode
from nca_edge.camera.protocol import NoFrame, TornFrame
from nca_edge.errors import CameraError, UsageError
from nca_edge.records import Image8

OPEN_S = 5.0
"""Longest wait for a connection and for the beginning of an answer."""
READ_S = 2.0
"""Longest silence of a stream."""
CHUNK = 1 << 16
MOST_BYTES = 64 << 20
SNAPSHOT_S = 0.2
"""Pause between two snapshots at least."""


class HttpCamera:
    """``http://HOST/...``"""

    every, live = False, True

    def __init__(self, url: str) -> None:
        self.name = url
        self._parts = urlsplit(url)
        try:
            port = self._parts.port
        except ValueError as error:
            raise UsageError(f"{url}: {error}; write it like http://microscope.local:5000/stream.") from error
        if not self._parts.hostname:
            raise UsageError(f"{url}: names no host; write it like http://microscope.local:5000/stream.")
        self._port = port
        self._connection: http.client.HTTPConnection | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._stream: JpegStream | None = None
        self._socket: socket.socket | None = None
        self._pictures: list[bytes] = []
        self._asked_s = 0.0
        self._torn = 0

    def open(self) -> dict[str, Any]:
        self.close()
        answer = self._ask()
        kind = answer.headers.get_content_type()
        if kind.startswith("multipart/"):
            if self._socket is not None:
                self._socket.settimeout(READ_S)
            self._stream, self._pictures, self._torn = JpegStream(), [], 0
            return {"kind": "stream", "locked": []}
        if kind in ("image/jpeg", "image/png"):
            self._whole(answer)  # it can be decoded, or the user is told now
            return {"kind": "snapshot", "locked": []}
        shown = _shown(answer)
        self.close()
        raise CameraError(f"{self.name} answered with {kind}, which is no picture{shown}: check the address.")

    def read(self, wait_s: float) -> Image8:
        if self._answer is not None and self._stream is not None:
            return self._from_stream(self._answer, self._stream, wait_s)
        pause = SNAPSHOT_S - (time.monotonic() - self._asked_s)
        if pause > 0:
            time.sleep(min(pause, wait_s))
            if pause > wait_s:
                raise NoFrame("not yet")
        self._asked_s = time.monotonic()
        answer = self._ask()
        kind = answer.headers.get_content_type()
        if kind not in ("image/jpeg", "image/png"):
            shown = _shown(answer)
            self.close()
            raise CameraError(f"{self.name} answers with {kind} now, which is no picture{shown}: check the microscope.")
        return self._whole(answer)

    def close(self) -> None:
        for thing in (self._answer, self._connection):
            if thing is not None:
                thing.close()
        self._answer = self._connection = self._stream = self._socket = None

    def _from_stream(self, answer: http.client.HTTPResponse, stream: JpegStream, wait_s: float) -> Image8:
        until = time.monotonic() + wait_s
        while not self._pictures:
            if time.monotonic() > until:
                raise NoFrame("no picture came in time")
            try:
                data = answer.read1(CHUNK)
            except TimeoutError as error:  # what was read from cannot be read on after it
                what = "stopped in the middle of a picture" if len(stream.waiting) > 2 else "sends nothing"
                raise CameraError(f"{self.name} {what}: check the microscope and the network.") from error
            except (OSError, http.client.HTTPException) as error:
                raise CameraError(f"{self.name} broke off ({error}): check the microscope and the network.") from error
            if not data:
                raise CameraError(f"{self.name} ended the stream: check the microscope.")
            self._pictures = stream.feed(data)
            if not self._pictures and b'{"' in stream.waiting[:400]:
                raise CameraError(f"{self.name} sends JSON instead of pictures now: check the microscope.")
            if stream.torn > self._torn:
                self._torn = stream.torn
                if not self._pictures:
                    raise TornFrame("a picture came damaged")
        newest = self._pictures[-1]
        self._pictures = []
        return decode(newest)

    def _ask(self) -> http.client.HTTPResponse:
        """The head of the answer to one GET."""
        parts = self._parts
        if self._connection is None:
            make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = make(parts.hostname or "", self._port, timeout=OPEN_S)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            self._connection.request("GET", path, headers={"User-Agent": "nca-edge", "Accept": "image/*, multipart/*"})
            self._socket = self._connection.sock  # an answer without a length takes it from the connection
            answer = self._answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            raise CameraError(f"{self.name} cannot be reached ({reason}): check the address and the network.") from error
        if answer.status != 200:
            self.close()
            raise CameraError(f"{self.name} answered {answer.status} {answer.reason}: check the address.")
        return answer

    def _whole(self, answer: http.client.HTTPResponse) -> Image8:
        try:
            data = answer.read(MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TornFrame("a picture broke off") from error
        return decode(data)


def _shown(answer: http.client.HTTPResponse) -> str:
    """The beginning of an answer that is text."""
    try:
        text = answer.read(80).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    return f" ({' '.join(text.split())})" if text and text.isprintable() else ""
