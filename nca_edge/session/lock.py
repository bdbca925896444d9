"""One process at a time writes a session."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nca_edge.errors import StorageError

LOCK = "session.lock"
"""File name inside the session folder, there while a session is open for writing. It holds the process id."""


class FolderLock:
    """An advisory lock on a session folder; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises
        ------
        StorageError
            Somebody has it; the sentence names the process.
        OSError
            The folder cannot be written.
        """
        self._path = folder / LOCK
        while True:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._take(folder)
            except BaseException:
                os.close(self._handle)
                raise
            if self._is_current():
                break
            os.close(self._handle)  # its last owner removed the file between our open and our lock
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the folder back; a second call does nothing."""
        if self._handle < 0:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = -1

    def _take(self, folder: Path) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StorageError(
                f"The session {folder} is in use by process {owner}: end that one first, or give another folder."
            ) from error

    def _is_current(self) -> bool:
        try:
            return os.stat(self._path).st_ino == os.fstat(self._handle).st_ino
        except FileNotFoundError:
            return False
