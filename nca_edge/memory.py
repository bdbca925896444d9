"""Freed memory back to the system. A base module like threads: anybody may import it.

The C library keeps what was freed, in an arena for each thread, and hands back little of it: a count of hours held 100 MB that
nobody used. Boards have 1 GB for everything.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Hand freed memory back; where the C library knows no way, nothing happens. A few milliseconds, without Python's lock."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # musl, macOS
        return None
