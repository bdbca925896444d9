"""Making room: which sessions may be deleted. What nobody signed is never among them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from nca_edge.errors import NcaEdgeError, UsageError
from nca_edge.session.database import DATABASE
from nca_edge.session.faults import storage
from nca_edge.session.ledger import State
from nca_edge.session.lock import FolderLock
from nca_edge.session.store import Session
from nca_edge.session.verify import verify


@dataclass(frozen=True, slots=True)
class Kept:
    """A session and why it stays, or that it may go."""

    folder: Path
    why: str
    """One sentence; empty: it may be deleted."""
    size_bytes: int
    """Of all files in it."""


def look(parent: Path, days: float, now: datetime | None = None) -> list[Kept]:
    """Every session in a folder, in the order of their names.

    A session may go when its signature stands, is older than ``days`` and the session is sound. A clock that was set back makes
    signatures look young, and nothing goes.

    Parameters
    ----------
    days : at least 1
    """
    if not days >= 1:
        raise UsageError(f"--older-than {days:g}: keep sessions for at least 1 day.")
    moment = now or datetime.now(timezone.utc)
    return [
        Kept(database.parent, _why(database.parent, days, moment), _size(database.parent))
        for database in sorted(parent.glob(f"*/{DATABASE}"))
        if not database.parent.is_symlink()
    ]


def delete(folder: Path, days: float) -> None:
    """Delete a session for ever.

    Raises
    ------
    UsageError
        It has to stay: says why.
    """
    with storage(folder):
        lock = FolderLock(folder)
        try:
            why = _why(folder, days, datetime.now(timezone.utc))
            if why:
                raise UsageError(f"The session {folder} is kept: {why}")
            # The database last: a deletion that is cut short leaves a session that says what it was.
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif not path.name.startswith(DATABASE) and path.name != "session.lock":
                    path.unlink()
            for path in sorted(folder.glob(f"{DATABASE}*"), reverse=True):
                path.unlink()
        finally:
            lock.release()
        folder.rmdir()


def _why(folder: Path, days: float, now: datetime) -> str:
    try:
        with Session.open(folder, read_only=True) as session:
            state, signature = session.state, session.signature
        if state is not State.SIGNED or signature is None:
            return f"it is not signed ({state.value})."
        age = now - datetime.fromisoformat(signature.at)
        if age < timedelta(days=days):
            return f"it was signed {max(age.days, 0)} days ago."
        problems = verify(folder).problems
    except NcaEdgeError as error:
        return str(error)
    return f"it is not sound: {problems[0]}" if problems else ""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
