"""The audit log: who did what, each row bound to the one before by its hash.

A row's hash is SHA-256 over the JSON array ``[sequence, at, actor, action, payload_json, previous]`` (ASCII, no spaces). The
first row carries the session's id and facts, so that a log cannot be moved to another session; each committed field carries the
hash of its rows and pictures. A log whose end was cut off, or that somebody wrote anew from a row on, is still a valid chain:
only the head hash printed on a report, kept elsewhere, tells.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

GENESIS = "0" * 64
"""``previous`` of the first row."""
SOFTWARE = "nca-edge"
"""Actor of what no person did."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One line of the log."""

    sequence: int
    """From 1, without a gap."""
    at: str
    """UTC, ISO 8601; as the machine's clock had it, nothing is ordered by it."""
    actor: str
    """A person's name, or ``nca-edge``."""
    action: str
    """``created``, ``committed``, ``reclassified``, ... (see session/__init__.py)."""
    payload: dict[str, Any]
    """What exactly."""
    previous: str
    """Hash of the row before."""
    hash: str
    """Hash of this row, 64 hexadecimal digits."""


def now() -> str:
    """Wall-clock time for people, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def head(connection: sqlite3.Connection) -> tuple[int, str]:
    """Sequence and hash of the last row; (0, GENESIS) for an empty log."""
    row = connection.execute("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
    return (0, GENESIS) if row is None else (int(row[0]), str(row[1]))


def append(connection: sqlite3.Connection, actor: str, action: str, payload: Mapping[str, object]) -> str:
    """Add a row inside the caller's transaction, which also makes the change that it tells of; returns its hash."""
    sequence, previous = head(connection)
    row = (sequence + 1, now(), actor, action, json.dumps(payload, allow_nan=False), previous)
    digest = row_hash(row)
    connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, digest))
    return digest


def rows(connection: sqlite3.Connection) -> Iterator[AuditRow]:
    """The whole log in its order."""
    return rows_of(connection.execute("SELECT * FROM audit ORDER BY sequence").fetchall())


def rows_of(found: Iterable[sqlite3.Row]) -> Iterator[AuditRow]:
    """AuditRow of each row of the table ``audit``."""
    for row in found:
        payload = json.loads(row["payload_json"])
        yield AuditRow(row["sequence"], row["at"], row["actor"], row["action"], payload, row["previous"], row["hash"])


def raw_rows(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """The table ``audit`` as it is."""
    return [tuple(row) for row in connection.execute("SELECT * FROM audit ORDER BY sequence").fetchall()]


def broken_links(chain: Iterable[tuple[Any, ...]]) -> list[str]:
    """One sentence for each of ``raw_rows`` that is not what it was, or not where it was; empty for a sound chain."""
    found = []
    expected, last = 1, GENESIS
    for sequence, *rest, previous, digest in chain:
        if sequence != expected:
            found.append(f"audit row {expected} is missing.")
        elif previous != last:
            found.append(f"audit row {expected} does not follow the row before it.")
        if row_hash((sequence, *rest, previous)) != digest:
            found.append(f"audit row {sequence} was changed.")
        expected, last = sequence + 1, digest
    return found


def row_hash(columns: Iterable[object]) -> str:
    """Hash of the six columns before ``hash``."""
    text = json.dumps([*columns], separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
