"""One name for every camera: the only place that knows which source a name means.

====================================  =================================================================================
``camera``                            this board's default: the Pi's or Jetson's own camera if there is one, else USB
``v4l2:0``, ``v4l2:/dev/v4l/by-id/X``  a USB microscope (extra ``camera``)
``rpicam:0``                          Raspberry Pi camera through ``rpicam-vid``
``picamera2:0``                       the same through picamera2, which only the system's packages bring
``csi:0``                             Jetson camera through ``gst-launch-1.0``
``http://HOST/...``, ``https://...``  MJPEG stream, or one picture that is asked for again and again
``watch:FOLDER``                      each image that another program writes there
``pipe:FILE``                         MJPEG from a pipe (FIFO) that another program writes
``lavfi:GRAPH``                       what FFmpeg makes, such as ``lavfi:testsrc=size=640x480:rate=10`` (extra ``camera``)
``test:``, ``test:FOLDER``            a simulated microscope
a video file                          a recording (extra ``camera``)
====================================  =================================================================================

A folder or an image is no camera: its fields are read one after the other by ``nca-edge run``.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from nca_edge.camera.protocol import Source
from nca_edge.errors import UsageError

SCHEMES = ("v4l2", "rpicam", "picamera2", "csi", "http", "https", "watch", "pipe", "lavfi", "test")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm")


def is_live(source: str) -> bool:
    """Whether a source is a camera or a recording, not a folder or file of still fields."""
    scheme, colon, _ = source.partition(":")
    if source == "camera" and not Path(source).exists():
        return True
    return bool(colon and scheme in SCHEMES and not Path(source).exists()) or source.lower().endswith(VIDEO_SUFFIXES)


def open_uri(source: str) -> Source:
    """The source that a name means, not opened yet.

    Raises
    ------
    UsageError
        The name means none.
    MissingExtraError
        It needs an optional part.
    """
    if source == "camera":
        from nca_edge.camera.default import default_uri

        source = default_uri()
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in SCHEMES:
        return _recording(source)
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if scheme == "test":
        from nca_edge.camera.simulated import SimulatedCamera, TestOptions

        return SimulatedCamera(Path(place) if place else None, TestOptions.parse(options))
    if scheme in ("http", "https"):
        from nca_edge.camera.http import HttpCamera

        return HttpCamera(source)
    if scheme == "watch":
        from nca_edge.camera.watch import WatchedFolder

        return WatchedFolder(Path(rest))
    if scheme == "pipe":
        from nca_edge.camera.process import PipeCamera

        return PipeCamera(Path(rest))
    if scheme in ("rpicam", "csi"):
        from nca_edge.camera.process import board_camera

        return board_camera(scheme, place, options)
    if scheme == "picamera2":
        from nca_edge.camera.picamera import PiCamera

        return PiCamera(_index(place))
    if scheme == "lavfi":
        from nca_edge.camera.video import Recording

        return Recording(rest, "lavfi")
    from nca_edge.camera.v4l2 import UsbCamera

    return UsbCamera(place, options)


def _recording(source: str) -> Source:
    from nca_edge.camera.video import Recording

    if not Path(source).is_file():
        known = ", ".join(f"{s}:" for s in SCHEMES if s != "https")
        raise UsageError(f"{source}: no such file, folder or camera; a camera is called camera, or begins with {known}.")
    return Recording(source, None)


def _index(place: str) -> int:
    if not place.isdigit():
        raise UsageError(f"{place!r} is no camera number; write it like picamera2:0.")
    return int(place)
