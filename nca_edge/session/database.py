"""Opening and creating ``session.db``."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import uuid
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

from nca_edge import __version__
from nca_edge.errors import StorageError, UsageError
from nca_edge.records import RunFacts
from nca_edge.session import audit
from nca_edge.session.audit import now
from nca_edge.session.migration import migrate
from nca_edge.session.people import SlideFacts

DATABASE = "session.db"
"""File name inside the session folder."""
APPLICATION_ID = 0x4E434145
"""As in schema.sql."""
USER_VERSION = 2
"""As in schema.sql: the version this code reads and writes."""
BUSY_S = 5.0
"""How long to wait for another writer, seconds."""


def open_database(folder: Path) -> sqlite3.Connection:
    """Connect to the session in ``folder`` for writing, after checking that it is one; an older version is brought to ours."""
    with ExitStack() as undo:
        connection, version = _open_checked(folder, folder, undo)
        _harden(connection)
        if version < USER_VERSION:
            _migrate(connection, folder, version)
        undo.pop_all()
    return connection


def read_database(folder: Path, undo: ExitStack) -> sqlite3.Connection:
    """Connect for reading alone; ``undo`` closes it and removes what was made for it.

    Beside a process that writes this sees every committed state. Where nothing can be written (a stick behind a switch), or
    where an older version has to be brought to ours first, the database is read from a copy: SQLite cannot open a log beside
    a database in a folder that it cannot write, and the copy takes the log's acknowledged rows with it.
    """
    require_database(folder)
    place = folder
    if not (os.access(folder, os.W_OK) and os.access(folder / DATABASE, os.W_OK)):
        place = _copied(folder, undo)
    connection, version = _open_checked(place, folder, undo)
    if version < USER_VERSION:
        if place is folder:
            place = _copied(folder, undo)
            connection, version = _open_checked(place, folder, undo)
        _migrate(connection, folder, version)
    connection.execute("PRAGMA query_only = ON")
    return connection


def create_database(folder: Path, facts: RunFacts, slide: SlideFacts) -> sqlite3.Connection:
    """Make the database of a new session; UsageError where there is one already."""
    with ExitStack() as undo:
        connection = _connect(folder, "rwc")
        undo.callback(connection.close)
        # A database without tables is a creation that the power cut short: nothing is lost by starting again.
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise UsageError(
                f"{folder} already holds a session: resume it with --session {folder}, or give another folder to --out."
            )
        _harden(connection)
        schema = (files("nca_edge") / "schema.sql").read_text("utf-8")
        try:
            # executescript leaves the transaction open: tables and facts are there together or not at all.
            connection.executescript("BEGIN IMMEDIATE;\n" + schema)
            _insert_facts(connection, facts, slide)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.rollback()
        undo.pop_all()
    return connection


def require_database(folder: Path) -> None:
    """UsageError where there is no database."""
    if not (folder / DATABASE).is_file():
        raise UsageError(
            f"{folder} is not a session (it holds no {DATABASE}): give the folder of a session, or start one with --out."
        )


def _open_checked(place: Path, folder: Path, undo: ExitStack) -> tuple[sqlite3.Connection, int]:
    """Connection to the database in ``place`` and its version; messages speak of ``folder``."""
    require_database(place)
    connection = _connect(place, "rw")
    undo.callback(connection.close)
    # Before anything is set: a file that is not ours must not be touched.
    version = _version(connection)
    if version is None:
        raise UsageError(
            f"{folder / DATABASE} does not hold a session of nca-edge: give another folder, or start one with --out."
        )
    if version > USER_VERSION:
        raise StorageError(
            f"The session {folder} was written by a newer nca-edge (format {version}, this one reads {USER_VERSION}): "
            "update nca-edge."
        )
    return connection, version


def _migrate(connection: sqlite3.Connection, folder: Path, version: int) -> None:
    """Bring an older database to ours, whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while we waited for the lock.
        if _version(connection) == version:
            migrate(connection, folder, version)
            connection.execute(f"PRAGMA user_version = {USER_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def _copied(folder: Path, undo: ExitStack) -> Path:
    place = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="nca-edge-")))
    for name in (DATABASE, f"{DATABASE}-wal"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, place / name)
    return place


def _connect(folder: Path, mode: str) -> sqlite3.Connection:
    # mode=rw does not create what is not there. isolation_level=None: transactions are begun and ended by name.
    uri = f"{(folder / DATABASE).absolute().as_uri()}?mode={mode}"
    # Threads take turns (store.Session has a lock): a camera commits while a page reads.
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.text_factory = decode
    return connection


def encode(text: str) -> bytes:
    """UTF-8 that also carries file names which are not valid Unicode (lone surrogates); bind it as CAST(? AS TEXT)."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """The inverse of ``encode``."""
    return data.decode("utf-8", "surrogatepass")


def _harden(connection: sqlite3.Connection) -> None:
    # notes/clinical.md: synchronous=NORMAL lost acknowledged rows in 1,047 of 1,200 simulated power cuts, FULL in none.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _version(connection: sqlite3.Connection) -> int | None:
    """Schema version of a session, None for a database that is no session."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return None
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _insert_facts(connection: sqlite3.Connection, facts: RunFacts, slide: SlideFacts) -> None:
    columns: dict[str, object] = {
        "one": 1,
        "id": uuid.uuid4().hex,
        "created_at": now(),
        "software": __version__,
        "bundle": facts.bundle,
        "bundle_sha256": facts.bundle_sha256,
        "backend": facts.backend,
        "precision": facts.precision,
        "threads": int(facts.threads),
        "um_per_px": None if facts.um_per_px is None else float(facts.um_per_px),
        "classes_json": json.dumps(facts.classes),
        "groups_json": json.dumps(facts.groups),
        "model_json": json.dumps(facts.model_facts),
    } | slide_columns(slide)
    insert(connection, "session", columns)
    # What was fixed at the beginning is bound to the log by its first row.
    kept = {name: value for name, value in columns.items() if name not in ("one", "created_at", "model_json")}
    audit.append(connection, slide.operator or audit.SOFTWARE, "created", kept)


def slide_columns(slide: SlideFacts) -> dict[str, object]:
    """Columns of ``session`` that hold what a person said of the slide."""
    return {
        "specimen": slide.specimen,
        "slide": slide.slide,
        "operator": slide.operator,
        "target": slide.target,
        "calibration_json": json.dumps(dict(slide.calibration), sort_keys=True),
    }


def insert(connection: sqlite3.Connection, table: str, columns: dict[str, object]) -> None:
    """INSERT one row; bytes given for a column named ``name`` become text (see ``encode``)."""
    places = ", ".join("CAST(? AS TEXT)" if column == "name" else "?" for column in columns)
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", tuple(columns.values()))
