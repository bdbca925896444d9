"""What every part of a session stands on: its database, taken by one thread at a time, and its audit log."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from nca_edge.errors import StorageError, UsageError
from nca_edge.session import audit
from nca_edge.session.faults import storage


class State(str, Enum):
    """Where a session stands. Only the changes listed in session/__init__.py lead from one to another."""

    OPEN = "OPEN"
    """Begun; no field yet."""
    COUNTING = "COUNTING"
    """Fields are being read; cells may be reviewed meanwhile."""
    REVIEW = "REVIEW"
    """The count has ended; a person looks through the cells."""
    SIGNED = "SIGNED"
    """A person put a name to it; nothing changes any more."""
    AMENDED = "AMENDED"
    """Opened again after a signature, with a reason; to be signed anew."""
    ABANDONED = "ABANDONED"
    """Given up, with a reason; for ever."""


class Ledger:
    """The open database of one session folder. Its methods may be called from several threads."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, read_only: bool) -> None:
        self.folder = folder
        """The session folder, as given."""
        self.read_only = read_only
        """True: every change is refused."""
        self._db = connection
        self._turn = threading.RLock()

    @property
    def state(self) -> State:
        """Where the session stands now."""
        return State(self._rows("SELECT state FROM session")[0]["state"])

    @property
    def head(self) -> str:
        """Hash of the audit log's last row: whoever knows it can tell whether the log's end was cut off."""
        with self._turn, storage(self.folder):
            return audit.head(self._db)[1]

    def audit_log(self) -> tuple[audit.AuditRow, ...]:
        """Everything that was done, in its order."""
        with self._turn, storage(self.folder):
            return tuple(audit.rows(self._db))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Inside it everything that is read belongs to one moment, whatever another thread or process writes meanwhile."""
        with self._turn:
            # The one who writes has nobody to fear but its own threads, and they wait.
            begin = self.read_only and not self._db.in_transaction
            if begin:
                with storage(self.folder):
                    self._db.execute("BEGIN")
            try:
                yield
            finally:
                if begin:
                    self._db.rollback()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._turn:
            if self.read_only:
                raise StorageError(f"The session {self.folder} was opened for reading: open it for writing to change it.")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.rollback()

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        # All at once: an open cursor would keep SQLite from emptying its log while cells are still being committed.
        with self._turn, storage(self.folder):
            return self._db.execute(query, values).fetchall()

    def _log(self, by: str, action: str, payload: Mapping[str, object]) -> str:
        return audit.append(self._db, by, action, payload)

    def _enter(self, state: State) -> None:
        self._db.execute("UPDATE session SET state = ?", (state.value,))

    def _require_state(self, what: str, *allowed: State) -> State:
        """The present state; UsageError, with the way out, where ``what`` cannot be done in it."""
        state = self.state
        if state in allowed:
            return state
        way = {
            State.OPEN: "it holds no field yet: count first",
            State.COUNTING: "its count has not ended: end the count first",
            State.REVIEW: "it is in review and not signed",
            State.SIGNED: "it is signed: amend it first, with a reason, or begin a new session",
            State.AMENDED: "it was opened again after a signature: sign it again first, or begin a new session",
            State.ABANDONED: "it was abandoned: begin a new session",
        }[state]
        raise UsageError(f"The session {self.folder} cannot be {what}, because {way}.")
