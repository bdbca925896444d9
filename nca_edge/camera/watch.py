"""``watch:FOLDER``: each image that another program writes there is a field of its own (Octopi, PlanktoScope, any vendor's)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from nca_edge.camera.files import IMAGE_SUFFIXES, read_image
from nca_edge.camera.protocol import NoFrame, TornFrame
from nca_edge.errors import CameraError, InputError
from nca_edge.records import Image8

QUIET_S = 0.5
"""An image is read when it has not grown for so long."""
GIVE_UP_S = 10.0
"""One that still cannot be read by then is passed over."""


class WatchedFolder:
    """Images in the order in which they were written; those that lay there at the start are left alone."""

    every, live = True, True

    def __init__(self, folder: Path) -> None:
        self.name = f"watch:{folder}"
        self._folder = folder
        self._done: set[str] | None = None
        self._growing: dict[str, tuple[int, float, float]] = {}

    def open(self) -> dict[str, Any]:
        found = self._list()
        if self._done is None:
            self._done = set(found)
        return {"locked": []}

    def read(self, wait_s: float) -> Image8:
        until = time.monotonic() + wait_s
        while True:
            for name in self._ready():
                self._done = (self._done or set()) | {name}
                first_s = self._growing.pop(name)[2]
                try:
                    return read_image(self._folder / name)
                except InputError as error:
                    if time.monotonic() - first_s < GIVE_UP_S:
                        self._done.discard(name)  # it may still be written, in leaps
                        self._growing[name] = (-1, time.monotonic(), first_s)
                        continue
                    raise TornFrame(str(error)) from error
            if time.monotonic() >= until:
                raise NoFrame("no new image")
            time.sleep(min(0.05, wait_s))

    def close(self) -> None:
        """Nothing is open."""

    def _ready(self) -> list[str]:
        """New images that no longer grow, oldest first."""
        now, ready = time.monotonic(), []
        for name, size in self._list().items():
            if name in (self._done or ()):
                continue
            before, since_s, first_s = self._growing.get(name, (-1, now, now))
            if size != before:
                self._growing[name] = (size, now, first_s)
            elif size > 0 and now - since_s >= QUIET_S:
                ready.append(name)
        return ready

    def _list(self) -> dict[str, int]:
        """Name -> bytes of each image, oldest first."""
        try:
            with os.scandir(self._folder) as entries:
                images = [e for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES) and not e.name.startswith(".")]
                found = [(e.stat().st_mtime_ns, e.name, e.stat().st_size) for e in images if e.is_file()]
        except FileNotFoundError as error:
            raise CameraError(f"{self._folder}: no such folder; make it, or check the path.") from error
        except OSError as error:
            raise CameraError(f"{self._folder} cannot be listed ({error.strerror}): check its permissions.") from error
        return {name: size for _, name, size in sorted(found)}
