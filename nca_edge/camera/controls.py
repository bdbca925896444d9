"""Exposure, gain and white balance of a V4L2 camera, held where they are (Linux UAPI, videodev2.h).

A few ioctls and two structures of fixed layout; ``linuxpy`` has them too, but under the GPL-3.0.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Any

_CONTROL = struct.Struct("=Ii")
_QUERY = struct.Struct("=II32siiiiI8x")
QUERYCAP, GET, SET, QUERY = 0x80685600, 0xC008561B, 0xC008561C, 0xC0445624
DISABLED = 0x0001
CAPTURE = 0x0000_0001
"""Capability: video capture."""

_HOLD: tuple[tuple[str, int, int, str, int], ...] = (
    ("exposure", 0x009A0901, 1, "exposure_absolute", 0x009A0902),
    ("gain", 0x00980912, 0, "gain", 0x00980913),
    ("white_balance", 0x0098090C, 0, "white_balance_temperature", 0x0098091A),
    ("focus", 0x009A090C, 0, "focus_absolute", 0x009A090A),
)
"""Name, its automatic control, the value that turns the automatic off, and the control that then holds."""


def is_capture(file: int) -> bool:
    """Whether an open device gives pictures: most cameras have a second node that only gives metadata."""
    raw = bytearray(104)
    try:
        fcntl.ioctl(file, QUERYCAP, raw)
    except OSError:
        return False
    (capabilities, of_node) = struct.unpack_from("=II", raw, 84)
    return bool((of_node if capabilities & 0x8000_0000 else capabilities) & CAPTURE)


def hold(path: str, fixed: dict[str, int]) -> dict[str, Any]:
    """Turn the automatics off and hold what they settled on, or ``fixed``: the values of an earlier call.

    Returns
    -------
    dict
        The held values, and under ``locked`` the names of what can no longer change by itself.
    """
    held: dict[str, Any] = {}
    locked = []
    try:
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {"locked": []}
    try:
        for name, automatic, off, control, number in _HOLD:
            value = fixed.get(control, _get(file, number))
            if _set(file, automatic, off) or not _has(file, automatic):
                if value is not None:
                    _set(file, number, value)
                    held[control] = value
                if value is not None or _has(file, automatic):
                    locked.append(name)
    finally:
        os.close(file)
    return {**held, "locked": locked}


def _has(file: int, number: int) -> bool:
    raw = bytearray(_QUERY.pack(number, 0, b"", 0, 0, 0, 0, 0))
    try:
        fcntl.ioctl(file, QUERY, raw)
    except OSError:
        return False
    return not _QUERY.unpack(raw)[7] & DISABLED


def _get(file: int, number: int) -> int | None:
    raw = bytearray(_CONTROL.pack(number, 0))
    try:
        fcntl.ioctl(file, GET, raw)
    except OSError:
        return None
    return int(_CONTROL.unpack(raw)[1])


def _set(file: int, number: int, value: int) -> bool:
    try:
        fcntl.ioctl(file, SET, bytearray(_CONTROL.pack(number, value)))
    except OSError:
        return False
    return True
