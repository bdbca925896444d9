"""Stand-ins for cameras: real programs, pipes and servers that give stamped pictures, and that can be pulled and plugged in.

Each picture carries the moment at which it was made (monotonic clock, ms) as 32 black and white blocks, so that whoever reads
it knows how old it is. As a program: ``python cameras.py stdout|fifo|http PATH|PORT STATE``; STATE is a file whose text is
``on``, ``off`` (pulled: the program ends), ``hang`` (it lives and sends nothing) or ``freeze`` (one picture again and again).
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BLOCK, BITS = 8, 32
SIZE = (320, 240)
FPS = 25.0


def stamped(ms: int, noise: int = 0) -> NDArray[np.uint8]:
    """A grey picture of uneven noise that carries ``ms``: (240, 320, 3) uint8."""
    rgb = np.random.default_rng(noise).integers(90, 160, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    for bit in range(BITS):
        rgb[0:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (ms >> bit & 1)
    return rgb


def stamp_of(rgb: NDArray[np.uint8]) -> int:
    """The moment that a picture carries, ms."""
    means = [rgb[2 : BLOCK - 2, bit * BLOCK + 2 : (bit + 1) * BLOCK - 2].mean() > 128 for bit in range(BITS)]
    return sum(1 << bit for bit, one in enumerate(means) if one)


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def now_ms() -> int:
    return int(time.monotonic() * 1000) & 0xFFFFFFFF


def ready(state: Path) -> None:
    """Leave the moment from which pictures could be had, beside the state."""
    state.with_suffix(".ready").write_text(str(now_ms()))


def pictures(state: Path) -> Iterator[bytes]:
    """JPEG pictures at the camera's rate for as long as it is plugged in; empty while it hangs."""
    number, last = 0, b""
    while True:
        mode = read_state(state)
        if mode == "off":
            return
        if mode == "on":
            number += 1
            last = jpeg(stamped(now_ms(), number))
        yield b"" if mode == "hang" else last
        time.sleep(1 / FPS)


def read_state(state: Path) -> str:
    try:
        return state.read_text("ascii").strip() or "on"
    except FileNotFoundError:
        return "off"


def to_stdout(state: Path) -> int:
    """As rpicam-vid: pictures on standard output, an error and exit code 255 without a camera."""
    for data in pictures(state):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    print("ERROR: *** no cameras available ***", file=sys.stderr)
    return 255


def to_fifo(path: Path, state: Path) -> int:
    ready(state)
    with path.open("wb", buffering=0) as pipe:  # waits for a reader
        for data in pictures(state):
            pipe.write(data)
    return 0


def to_http(port: int, state: Path) -> int:
    """As an MJPEG server: /stream, /snapshot, and ends by itself when pulled."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if self.path.startswith("/snapshot"):
                data = next(pictures(state), b"")
                self.send_header("Content-Type", "image/jpeg")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for data in pictures(state):
                if data:
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n")
            os._exit(0)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    ready(state)
    server.serve_forever()
    return 0


def stub_rpicam(folder: Path, state: Path) -> Path:
    """An executable ``rpicam-vid`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rpicam-vid"
    # by the shell: a `#!` line cannot name a Python whose path holds a space
    command = shlex.join([sys.executable, str(Path(__file__).resolve()), "stdout", "-", str(state)])
    path.write_text(f"#!/bin/sh\nexec {command}\n", "utf-8")
    path.chmod(0o755)
    return path


def main() -> int:
    kind, place, state = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    ways: dict[str, Callable[[], int]] = {
        "stdout": lambda: to_stdout(state),
        "fifo": lambda: to_fifo(Path(place), state),
        "http": lambda: to_http(int(place), state),
    }
    try:
        return ways[kind]()
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
