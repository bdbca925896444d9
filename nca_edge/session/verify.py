"""Whether a session still is what was done: the chain of its log, the tables that follow from it, the pictures."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nca_edge.session import audit
from nca_edge.session.database import read_database
from nca_edge.session.derived import REPORT_HTML
from nca_edge.session.digests import field_digest, pictures_digest
from nca_edge.session.faults import storage

FIXED = (
    "id", "software", "bundle", "bundle_sha256", "backend", "precision", "threads", "um_per_px", "classes_json", "groups_json",
)  # fmt: skip
"""Columns of ``session`` that never change."""
SLIDE = ("specimen", "slide", "operator", "target", "calibration_json")
"""Columns of ``session`` that a person may mend."""
ENDS = {"review_begun": "REVIEW", "committed": "COUNTING", "signed": "SIGNED", "amended": "AMENDED", "abandoned": "ABANDONED"}
"""Action -> the state it leads to."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found."""

    problems: tuple[str, ...]
    """One sentence each; empty: the session is what was done."""
    rows: int
    """Rows of the audit log."""
    head: str
    """Hash of its last row."""
    fields: int
    cells: int


@dataclass(slots=True)
class _Replayed:
    """The tables as they follow from the log."""

    facts: dict[str, Any] = field(default_factory=dict)
    slide: dict[str, Any] = field(default_factory=dict)
    state: str = "OPEN"
    digests: dict[int, str] = field(default_factory=dict)
    voided: set[int] = field(default_factory=set)
    verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)


def verify(folder: Path, head: str | None = None) -> Verified:
    """Check a session; nothing in it is changed.

    Parameters
    ----------
    head : hash printed on a report of the session; None: that of the report.html in the folder, where there is one

    Raises
    ------
    UsageError, StorageError
        As ``Session.open``.
    """
    with storage(folder), ExitStack() as undo:
        connection = read_database(folder, undo)
        connection.execute("BEGIN")  # one state of the database, whoever writes meanwhile
        problems = [*_database_problems(connection), *audit.broken_links(audit.raw_rows(connection))]
        if not problems:
            problems += _replay_problems(connection)
        problems += _head_problems(connection, folder, head)
        problems += _picture_problems(connection, folder)
        n_fields, n_cells = (connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("field", "cell"))
        rows, last = audit.head(connection)
    return Verified(tuple(problems), rows, last, n_fields, n_cells)


def _database_problems(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute("PRAGMA integrity_check").fetchall():
        if row[0] != "ok":
            yield f"the database is damaged: {row[0]}."
    for row in connection.execute("PRAGMA foreign_key_check").fetchall():
        yield f"a row of {row[0]} names what is not there."


def _head_problems(connection: sqlite3.Connection, folder: Path, head: str | None) -> Iterator[str]:
    if head is None:
        for printed in _printed_heads(folder / REPORT_HTML):
            if not _holds(connection, printed):
                yield f"the head {printed[:16]}... on {REPORT_HTML} is not in the log: its end was cut off or replaced."
    elif not _holds(connection, head.strip().lower()):
        yield f"the head {head.strip()[:16]}... is not in the log: its end was cut off or replaced, or it is another session's."


def _printed_heads(report: Path) -> list[str]:
    try:
        found = re.search(r'<code id="head">([0-9a-f]{64})</code>', report.read_text("utf-8", "replace"))
    except FileNotFoundError:
        return []
    return [found[1]] if found else []


def _holds(connection: sqlite3.Connection, head: str) -> bool:
    return connection.execute("SELECT 1 FROM audit WHERE hash = ?", (head,)).fetchone() is not None


def _picture_problems(connection: sqlite3.Connection, folder: Path) -> Iterator[str]:
    for row in connection.execute("SELECT field, cell, pictures_sha256 FROM cell ORDER BY field, cell").fetchall():
        name = f"{row['field']:06d}-{row['cell']:03d}"
        now = pictures_digest(folder, row["field"], row["cell"])
        if now != row["pictures_sha256"]:
            yield f"a picture of cell {name} {'is missing' if now is None else 'was changed'}."


def _replay_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Where the tables are not what the log tells; the chain itself is sound."""
    log = {row.sequence: row for row in audit.rows(connection)}
    if not log or log[1].action not in ("created", "migrated"):
        yield "the audit log does not begin with the session's beginning."
        return
    models = {
        f"{row['field']:06d}-{row['cell']:03d}": row["model_label"]
        for row in connection.execute("SELECT field, cell, model_label FROM cell").fetchall()
    }
    told = _Replayed()
    for row in log.values():
        _apply(told, row, log, models)
    session = connection.execute("SELECT * FROM session").fetchone()
    for name, value in {**told.facts, **told.slide, "state": told.state}.items():
        if session[name] != value:
            yield f"{name.removesuffix('_json')} of the session is not what the log tells."
    yield from _field_problems(connection, told)
    verdicts = {
        f"{row['field']:06d}-{row['cell']:03d}": (row["label"], row["given_by"])
        for row in connection.execute("SELECT * FROM verdict").fetchall()
    }
    for cell in sorted(verdicts.keys() | told.verdicts.keys()):
        if verdicts.get(cell) != told.verdicts.get(cell):
            yield f"the verdict on cell {cell} is not what the log tells."


def _field_problems(connection: sqlite3.Connection, told: _Replayed) -> Iterator[str]:
    fields = {row["number"]: bool(row["voided"]) for row in connection.execute("SELECT number, voided FROM field").fetchall()}
    for number in sorted(fields.keys() | told.digests.keys()):
        if number not in fields:
            yield f"field {number} is missing."
        elif number not in told.digests:
            yield f"field {number} is not in the log."
        elif field_digest(connection, number) != told.digests[number]:
            yield f"field {number} or one of its cells was changed."
        elif fields[number] != (number in told.voided):
            yield f"field {number} is {'' if fields[number] else 'not '}taken back, which is not what the log tells."


def _apply(told: _Replayed, row: audit.AuditRow, log: dict[int, audit.AuditRow], models: dict[str, str]) -> None:
    """Do to ``told`` what a row of the log did to the tables."""
    payload = row.payload
    told.state = ENDS.get(row.action, told.state)
    if row.action in ("created", "migrated"):
        told.facts = {name: payload[name] for name in FIXED if name in payload}
        told.slide = {name: payload[name] for name in SLIDE if name in payload}
        told.state = payload.get("state", "OPEN")
        told.digests = {int(number): digest for number, digest in payload.get("fields", {}).items()}
    elif row.action == "committed":
        told.digests[payload["field"]] = payload["sha256"]
    elif row.action == "described":
        told.slide = payload
    elif row.action == "reclassified":
        told.verdicts[payload["cell"]] = (payload["label"], row.actor)
    elif row.action == "accepted":
        told.verdicts |= {cell: (models.get(cell, ""), row.actor) for cell in payload["cells"]}
    elif row.action == "voided":
        told.voided.add(payload["field"])
    elif row.action == "undone":
        _take_back(told, log[payload["sequence"]])


def _take_back(told: _Replayed, row: audit.AuditRow) -> None:
    before = row.payload.get("before")
    if row.action == "voided":
        told.voided.discard(row.payload["field"])
    elif before is not None:
        told.verdicts[row.payload["cell"]] = (before["label"], before["by"])
    else:
        for cell in row.payload.get("cells", [row.payload.get("cell")]):
            told.verdicts.pop(cell, None)
