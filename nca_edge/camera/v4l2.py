"""USB microscopes: frames through PyAV's FFmpeg (its wheels bring V4L2), settings through the kernel's own controls.

Chosen against OpenCV, whose ``read`` may go on giving the last frame after an unplug and whose wheel weighs 61 MB against 34,
and against ``linuxpy``, which is under the GPL.
"""

from __future__ import annotations

import errno
import grp
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge.camera import controls
from nca_edge.camera.protocol import NoFrame, TornFrame
from nca_edge.camera.video import load_av
from nca_edge.errors import CameraError, UsageError
from nca_edge.records import Image8

BY_ID = Path("/dev/v4l/by-id")
SETTLE_S = 1.5
"""Time that exposure and white balance are given before they are held."""
KNOWN = ("width", "height", "fps", "format")


class UsbCamera:
    """``v4l2:0``, ``v4l2:/dev/video0`` or, best, ``v4l2:/dev/v4l/by-id/...``."""

    every, live = False, True

    def __init__(self, place: str, options: Mapping[str, str]) -> None:
        if unknown := set(options) - set(KNOWN):
            raise UsageError(f"v4l2: there is no option {sorted(unknown)[0]!r}; choose among {', '.join(KNOWN)}.")
        self.name = f"v4l2:{place}"
        self._path = f"/dev/video{place}" if place.isdigit() else place
        self._options = dict(options)
        self._av = load_av("A USB camera")
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._held: dict[str, int] = {}

    def open(self) -> dict[str, Any]:
        """The first time the name is bound to the device itself, so that it is found again whatever number it gets."""
        self.close()
        reachable(self._path)
        self._path = by_id(self._path)
        self._container = self._opened()
        stream = self._container.streams.video[0]
        self._packets = self._container.demux(stream)
        if not self._held:
            self._settle()
        held = controls.hold(self._path, self._held)
        self._held = {key: value for key, value in held.items() if isinstance(value, int)}
        return {
            "device": self._path,
            "width": stream.width,
            "height": stream.height,
            "codec": stream.codec_context.name,
            **held,
        }

    def read(self, wait_s: float) -> Image8:
        av, until = self._av, time.monotonic() + wait_s
        while True:
            try:
                frames = next(self._packets).decode()
            except (BlockingIOError, av.error.BlockingIOError):
                if time.monotonic() >= until:
                    raise NoFrame("no frame came in time") from None
                time.sleep(0.004)
                continue
            except StopIteration as error:
                raise CameraError("the camera is gone; check its plug") from error
            except av.error.InvalidDataError as error:
                raise TornFrame("a frame came damaged") from error
            except (av.error.FFmpegError, OSError) as error:
                raise CameraError(f"the camera is gone ({error.strerror}); check its plug") from error
            if frames and frames[-1].is_corrupt:
                raise TornFrame("a frame came damaged")
            if frames:
                return np.asarray(frames[-1].to_ndarray(format="rgb24"), np.uint8)

    def close(self) -> None:
        container, self._container = self._container, None
        self._packets = iter(())
        if container is not None:
            container.close()

    def _opened(self) -> Any:
        """The device in the format that was asked for, else MJPEG, else whatever it gives."""
        options = {"fflags": "nonblock"}  # a read must end, also after the plug was pulled
        if "width" in self._options and "height" in self._options:
            options["video_size"] = f"{self._options['width']}x{self._options['height']}"
        if "fps" in self._options:
            options["framerate"] = self._options["fps"]
        formats = [self._options["format"]] if "format" in self._options else ["mjpeg", None]
        for n, wanted in enumerate(formats):
            try:
                return self._av.open(
                    self._path, format="v4l2", options={**options, **({"input_format": wanted} if wanted else {})}
                )
            except (self._av.error.FFmpegError, OSError, ValueError) as error:
                if n == len(formats) - 1 or getattr(error, "errno", None) == errno.EBUSY:
                    raise CameraError(device_sentence(self._path, error)) from error
        raise CameraError(f"{self._path} cannot be opened.")

    def _settle(self) -> None:
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            try:
                self.read(0.2)
            except (NoFrame, TornFrame):
                continue


def reachable(path: str) -> None:
    """CameraError with what to do, where a device cannot be opened at all."""
    if not os.path.exists(path):
        others = ", ".join(f"v4l2:{p}" for p in sorted(str(p) for p in (BY_ID.glob("*") if BY_ID.is_dir() else [])))
        raise CameraError(f"There is no camera at {path}: plug it in{f', or use one of {others}' if others else ''}.")
    try:
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CameraError(device_sentence(path, error)) from error
    try:
        if not controls.is_capture(file):
            raise CameraError(f"{path} gives no pictures: choose another device of the camera, mostly the one before it.")
    finally:
        os.close(file)


def device_sentence(path: str, error: OSError | ValueError) -> str:
    """What an error of a device means, and what to do."""
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return f"You are not allowed to read {path}: run sudo usermod -aG {_group(path)} $USER, then log in again."
    if number == errno.EBUSY:
        return f"{path} is used by another program: close it (fuser -v {path} names it), then try again."
    if number in (errno.ENODEV, errno.ENXIO, errno.ENOENT):
        return f"There is no camera at {path} any more: plug it in again."
    if number == errno.EINVAL or isinstance(error, ValueError):
        return f"{path} gives no format that can be decoded: try another with ?format=mjpeg or ?format=yuyv422."
    return f"{path} cannot be opened ({getattr(error, 'strerror', None) or error}): unplug it, wait, and plug it in again."


def by_id(path: str) -> str:
    """The name of a device that stays the same when it is plugged in again; the path itself where there is none."""
    if path.startswith(str(BY_ID)) or not BY_ID.is_dir():
        return path
    return next((str(link) for link in sorted(BY_ID.iterdir()) if os.path.realpath(link) == os.path.realpath(path)), path)


def _group(path: str) -> str:
    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name
    except (KeyError, OSError):
        return "video"
