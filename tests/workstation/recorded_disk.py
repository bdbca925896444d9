"""A disk that writes down every write and sync of a session, and can refuse one (``crashed_disk.py`` cuts it off).

SQLite goes through a VFS of apsw, pictures through ``os.fsync`` and ``os.replace``; the session's own code is the real one.
"""

from __future__ import annotations

import errno
import itertools
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

Event = tuple[Any, ...]
"""("open", path) · ("write", path, offset, bytes) · ("truncate", path, size) · ("sync", path) · ("folder", path) ·
("rename", from, to) · ("delete", path) · ("ack", anything)."""


@dataclass(slots=True)
class Disk:
    """The record, and what is to go wrong."""

    log: list[Event] = field(default_factory=list)
    synchronous: str = "FULL"
    """Stands in for FULL in the negative controls."""
    picture_syncs: bool = True
    """False: a sync of a picture does nothing, another negative control."""
    fail_at: int = -1
    """Refuse the write or sync of this number, from 0; -1: none."""
    error: int = errno.ENOSPC
    """ENOSPC or EIO."""
    writes: int = 0
    """Writes and syncs so far."""

    def step(self) -> bool:
        """Count a write; True where it has to fail."""
        self.writes += 1
        return self.writes - 1 == self.fail_at

    def refuse(self) -> None:
        """OSError where this write has to fail."""
        if self.step():
            raise OSError(self.error, os.strerror(self.error))

    def refuse_sqlite(self) -> None:
        """The same in SQLite's words."""
        if self.step():
            raise (apsw.FullError if self.error == errno.ENOSPC else apsw.IOError)("refused")


class _File(apsw.VFSFile):
    """A file of SQLite that is written down."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self.disk, self.path = disk, name.filename() if isinstance(name, apsw.URIFilename) else name
        if not os.path.exists(self.path):
            disk.log.append(("open", self.path))
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.disk.refuse_sqlite()
        self.disk.log.append(("write", self.path, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self.disk.log.append(("truncate", self.path, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        self.disk.refuse_sqlite()
        self.disk.log.append(("sync", self.path))
        if self.path.endswith(("-wal", "-journal")):
            self.disk.log.append(("folder", os.path.dirname(self.path)))  # SQLite's own VFS does so after it made one
        super().xSync(flags)


class _Vfs(apsw.VFS):
    """Files of SQLite, written down."""

    names = itertools.count()

    def __init__(self, disk: Disk) -> None:
        self.disk, self.name = disk, f"recorded-{next(self.names)}"
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self.disk, name, flags)

    def xDelete(self, path: str, sync_folder: bool) -> None:
        super().xDelete(path, sync_folder)
        self.disk.log.append(("delete", path))
        if sync_folder:
            self.disk.log.append(("folder", os.path.dirname(path)))


class Row(tuple[Any, ...]):
    """As sqlite3.Row: by place and by name."""

    names: dict[str, int]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names[key] if isinstance(key, str) else key)


class Connection:
    """As much of sqlite3.Connection as a session uses, over apsw."""

    def __init__(self, disk: Disk, uri: str) -> None:
        flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE
        flags |= apsw.SQLITE_OPEN_CREATE if uri.endswith("mode=rwc") else 0
        self.disk, self.vfs = disk, _Vfs(disk)
        self.row_factory = self.text_factory = None
        with _as_sqlite3():
            self.real = apsw.Connection(uri, flags, self.vfs.name)
            self.real.execute("PRAGMA wal_autocheckpoint = 12")  # short sessions, and yet checkpoints

    def execute(self, sql: str, values: tuple[Any, ...] = ()) -> Cursor:
        if sql == "PRAGMA synchronous = FULL":
            sql = f"PRAGMA synchronous = {self.disk.synchronous}"
        with _as_sqlite3():
            cursor = self.real.cursor()
            cursor.row_trace = _row
            return Cursor(list(cursor.execute(sql, values)))

    def executescript(self, sql: str) -> None:
        with _as_sqlite3():
            self.real.execute(sql)

    @property
    def in_transaction(self) -> bool:
        return self.real.in_transaction

    def rollback(self) -> None:
        with _as_sqlite3():
            self.real.execute("ROLLBACK")

    def close(self) -> None:
        with _as_sqlite3():
            self.real.close()


@dataclass(slots=True)
class Cursor:
    """Rows that were read."""

    rows: list[Row]

    def fetchone(self) -> Row | None:
        return self.rows[0] if self.rows else None

    def fetchall(self) -> list[Row]:
        return self.rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def _row(cursor: apsw.Cursor, values: tuple[Any, ...]) -> Row:
    row = Row(values)
    row.names = {column[0]: place for place, column in enumerate(cursor.get_description())}
    return row


@contextmanager
def _as_sqlite3() -> Iterator[None]:
    words = {apsw.FullError: "database or disk is full", apsw.IOError: "disk I/O error", apsw.BusyError: "database is locked"}
    try:
        yield
    except apsw.Error as error:
        raise sqlite3.OperationalError(words.get(type(error), str(error))) from error


@contextmanager
def recorded(disk: Disk) -> Iterator[None]:
    """Let sessions that are opened in the block work on ``disk``."""
    real_sync, real_replace, real_connect = os.fsync, os.replace, sqlite3.connect

    def fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        disk.refuse()
        real_sync(handle)
        if os.path.isdir(path):
            disk.log.append(("folder", path))
            return
        _note_content(disk, path)
        if disk.picture_syncs or not path.endswith(".png.part"):
            disk.log.append(("sync", path))

    def replace(source: Any, target: Any) -> None:
        disk.refuse()
        _note_content(disk, str(source))
        real_replace(source, target)
        disk.log.append(("rename", str(source), str(target)))

    os.fsync, os.replace = fsync, replace  # type: ignore[assignment]
    sqlite3.connect = lambda name, **_: Connection(disk, name)  # type: ignore[assignment, misc, return-value]
    try:
        yield
    finally:
        os.fsync, os.replace, sqlite3.connect = real_sync, real_replace, real_connect


def _note_content(disk: Disk, path: str) -> None:
    """What was written to a picture since it was last noted."""
    content = Path(path).read_bytes()
    noted = next(
        (event for event in reversed(disk.log) if event[1] == path and event[0] in ("write", "rename", "delete")), None
    )
    if noted is None or noted[0] != "write" or noted[3] != content:
        disk.log += [("open", path), ("write", path, 0, content)]
