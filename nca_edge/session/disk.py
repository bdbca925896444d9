"""Room on the disk: watched before it is needed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

RESERVE_BYTES = 16_000_000
"""A commit leaves so much free, so that what was counted can still be reviewed, signed and reported: a log of SQLite grows to
4 MB before it is emptied, and a report of 500 cells takes a few megabytes."""
LOW_BYTES = 200_000_000
"""Below this a person is told: some 400 cells of 160 KB each still fit, two slides."""


def free_bytes(folder: Path) -> int:
    """What the disk of ``folder`` still takes from an ordinary user, bytes."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def require_room(folder: Path, needed_bytes: int) -> None:
    """OSError (no space left) where ``needed_bytes`` would eat into the reserve."""
    if free_bytes(folder) < needed_bytes + RESERVE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
