"""Failures of the disk and of SQLite, told apart and said in one sentence."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nca_edge.errors import StorageError


@contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Turn every OSError and sqlite3.Error of the block into a StorageError about ``folder``."""
    try:
        yield
    except OSError as error:
        raise StorageError(_os_sentence(error, folder)) from error
    except sqlite3.Error as error:
        raise StorageError(_sqlite_sentence(error, folder)) from error


def _os_sentence(error: OSError, folder: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(folder)
    if error.errno == errno.EROFS:
        return _read_only(folder)
    if error.errno in (errno.EACCES, errno.EPERM):
        return _not_allowed(folder)
    reason = error.strerror or str(error)
    return f"The session folder {folder} could not be read or written ({reason}): check the disk or choose another folder."


def _sqlite_sentence(error: sqlite3.Error, folder: Path) -> str:
    # By message, because the error codes came to Python's sqlite3 only with 3.11; the messages are SQLite's own and stable.
    text = str(error)
    if "disk is full" in text:
        return _full(folder)
    if "readonly database" in text or "unable to open" in text:
        return _read_only(folder) if _on_read_only_disk(folder) else _not_allowed(folder)
    if "locked" in text:
        return f"Another program is writing to the session {folder}: wait until it has ended, then try again."
    if "not a database" in text or "malformed" in text:
        return f"The session {folder} is damaged ({text}): keep the folder as it is and continue from a copy or a new session."
    return f"The session {folder} could not be read or written ({text}): check the disk, then try again."


def _full(folder: Path) -> str:
    return (
        f"There is no space left on the disk of {folder}: free some space, then resume with --session (what was saved is kept)."
    )


def _read_only(folder: Path) -> str:
    return f"The disk of {folder} is read-only: choose a folder on another disk or make this one writable."


def _not_allowed(folder: Path) -> str:
    return f"You are not allowed to write in {folder}: choose another folder or ask for the right to write there."


def _on_read_only_disk(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False
