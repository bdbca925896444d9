"""Recordings, and pictures that FFmpeg makes, through PyAV (extra ``camera``)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge.camera.protocol import SourceEnded, TornFrame
from nca_edge.errors import CameraError, MissingExtraError
from nca_edge.records import Image8


def load_av(what: str) -> Any:
    """PyAV, or the extra that brings it."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("camera", what) from error
    av.logging.set_level(av.logging.PANIC)  # FFmpeg writes to stderr by itself; what matters is told by us
    return av


class Recording:
    """A video file: every frame of it, as fast as it is looked at. ``lavfi:`` makes frames at its own rate and never ends."""

    every = False

    def __init__(self, source: str, kind: str | None) -> None:
        """``kind``: FFmpeg's name of the format; None: it finds out."""
        self.name = source if kind is None else f"{kind}:{source}"
        self.live = kind is not None
        self._source, self._kind = source, kind
        self._av = load_av("A recording" if kind is None else kind)
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._began_s = 0.0
        self.recorded_s: float | None = None
        """When the last frame was taken, s of the recording; None: not known."""

    def open(self) -> dict[str, Any]:
        av = self._av
        self.close()
        try:
            self._container = av.open(self._source, format=self._kind)
            stream = self._container.streams.video[0]
        except (av.error.FFmpegError, IndexError, OSError) as error:
            self.close()
            what = Path(self._source).name if self._kind is None else self.name
            reason = getattr(error, "strerror", None) or "no picture in it"
            raise CameraError(f"{what} cannot be shown ({reason}): export it as MP4 or AVI.") from error
        stream.thread_type = "AUTO"
        self._frames = self._container.decode(stream)
        self._began_s = time.monotonic()
        return {"width": stream.width, "height": stream.height, "codec": stream.codec_context.name, "locked": []}

    def read(self, wait_s: float) -> Image8:
        av = self._av
        try:
            frame = next(self._frames)
        except StopIteration as error:
            raise SourceEnded("the recording is over") from error
        except av.error.InvalidDataError as error:
            raise TornFrame("a frame of the recording is damaged") from error
        except (av.error.FFmpegError, OSError) as error:
            raise CameraError(f"{self.name} cannot be read on ({error.strerror}).") from error
        if frame.is_corrupt:
            raise TornFrame("a frame of the recording is damaged")
        self.recorded_s = None if self.live else frame.time
        if self.live and frame.time is not None:
            late_s = self._began_s + frame.time - time.monotonic()
            if late_s > 0:
                time.sleep(min(late_s, 1.0))
        return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)

    def close(self) -> None:
        container, self._container = self._container, None
        self._frames = iter(())
        if container is not None:
            container.close()
