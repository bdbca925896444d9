"""What every camera can do, and what is known of it at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from nca_edge.errors import CameraError
from nca_edge.records import Image8

State = Literal["open", "stale", "lost", "retry", "ended"]
"""``open``: fresh frames come. ``stale``: none came for a while, or the same one again and again. ``lost``: it is gone.
``retry``: it is being opened. ``ended``: the source has no more."""


class Source(Protocol):
    """One camera. It may be opened again after it was closed or lost, and is then the same camera with the same settings.

    One that must keep something while it is given up and tried again has ``lose``, which is then called in place of ``close``.
    """

    name: str
    """What the user calls it, such as ``v4l2:0``."""
    every: bool
    """True: each frame is a field of its own and none may be passed over (a watched folder)."""
    live: bool
    """True: it goes on whether it is read or not, so that only the newest frame matters; False: a recording that waits."""

    def open(self) -> dict[str, Any]:
        """Connect; returns the settings that hold from now on (``locked`` tells which of them cannot change).

        Raises
        ------
        CameraError
            One sentence that says what to do.
        """

    def read(self, wait_s: float) -> Image8:
        """The next frame, (height, width, 3) uint8 RGB.

        Raises
        ------
        NoFrame
            None came within ``wait_s``.
        TornFrame
            One came and was damaged; the next may be whole.
        SourceEnded
            There are no more.
        CameraError
            The camera is gone.
        """

    def close(self) -> None:
        """Give everything back: descriptors, processes. Harmless where nothing is open."""


class NoFrame(CameraError):
    """Nothing came in time."""


class TornFrame(CameraError):
    """A frame that is not whole."""


class SourceEnded(CameraError):
    """A recording is over."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame that is fresh, whole and not the one before."""

    number: int
    """Running number from 1 within this session of the camera; numbers of frames that nobody took are missing."""
    at_s: float
    """Monotonic clock when it came, s."""
    rgb: Image8
    """(height, width, 3) uint8 RGB."""


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """How the camera is, and how it has been."""

    name: str
    """As ``Source.name``."""
    state: State
    text: str
    """One sentence for a person; empty while all is well."""
    fps: float
    """Fresh frames a second, of the last seconds."""
    frames: int
    """Fresh frames so far."""
    torn: int
    """Frames that were damaged, all told."""
    repeated: int
    """Frames that were the one before once more, all told."""
    losses: int
    """How often it was lost."""
    settings: dict[str, Any]
    """What ``Source.open`` returned."""
