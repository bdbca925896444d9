"""Bringing a session of an older version to the present one, inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from pathlib import Path

from nca_edge.session import audit
from nca_edge.session.digests import field_digest, pictures_digest

_FROM_1 = (
    "ALTER TABLE session ADD COLUMN state TEXT NOT NULL DEFAULT 'OPEN'",
    "ALTER TABLE session ADD COLUMN specimen TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE session ADD COLUMN slide TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE session ADD COLUMN operator TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE session ADD COLUMN target INTEGER",
    "ALTER TABLE session ADD COLUMN calibration_json TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE field ADD COLUMN voided INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE cell ADD COLUMN measures_json TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE cell ADD COLUMN pictures_sha256 TEXT",
    "UPDATE session SET state = CASE WHEN EXISTS (SELECT 1 FROM field) THEN 'COUNTING' ELSE 'OPEN' END",
)


def migrate(connection: sqlite3.Connection, folder: Path, version: int) -> None:
    """Change tables from ``version`` to the present one and begin the audit log with what is there.

    Parameters
    ----------
    folder : where the pictures lie; their hashes are taken as they are found
    """
    if version != 1:
        raise sqlite3.DatabaseError(f"format {version} was never released")
    for statement in (*_FROM_1, *_tables("verdict", "audit"), *_triggers()):
        connection.execute(statement)
    for field, cell in connection.execute("SELECT field, cell FROM cell").fetchall():
        digest = pictures_digest(folder, field, cell)
        connection.execute("UPDATE cell SET pictures_sha256 = ? WHERE field = ? AND cell = ?", (digest, field, cell))
    session = connection.execute("SELECT id, state, bundle, bundle_sha256 FROM session").fetchone()
    numbers = [row[0] for row in connection.execute("SELECT number FROM field ORDER BY number").fetchall()]
    payload = {
        "from": version,
        **{name: session[name] for name in ("id", "state", "bundle", "bundle_sha256")},
        "fields": {str(number): field_digest(connection, number) for number in numbers},
    }
    audit.append(connection, audit.SOFTWARE, "migrated", payload)


def _tables(*names: str) -> list[str]:
    return [statement for statement in _statements() if any(statement.startswith(f"CREATE TABLE {name} ") for name in names)]


def _triggers() -> list[str]:
    return [f"{statement}; END" for statement in _statements() if statement.startswith("CREATE TRIGGER")]


def _statements() -> list[str]:
    """The schema's statements: new tables are written down once."""
    text = (files("nca_edge") / "schema.sql").read_text("utf-8")
    plain = "\n".join(line.split("--")[0].rstrip() for line in text.splitlines())
    return [statement.strip() for statement in plain.split(";")]
