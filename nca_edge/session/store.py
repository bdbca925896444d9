"""The session: what was committed is there after the power failed, and nothing is counted twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from nca_edge.errors import UsageError
from nca_edge.measure import kept
from nca_edge.records import CellReading, Image8, Reading, RunFacts
from nca_edge.session import derived
from nca_edge.session.database import DATABASE, create_database, encode, insert, now, open_database
from nca_edge.session.faults import storage
from nca_edge.session.files import (
    CELLS,
    pack_maps,
    picture_path,
    pictures,
    replace_file,
    sync_folder,
    unpack_maps,
    write_pictures,
)
from nca_edge.session.rows import CellRow, FieldRow, cell_row, field_row, run_facts

FIELDS = "SELECT *, (SELECT count(*) FROM cell WHERE cell.field = field.number) AS n_cells FROM field ORDER BY number"
CELLS_OF_FIELD = """SELECT cell, x, y, w, h, border, score, model_label, confidence, unsure, counted, probabilities_json,
    explained_label, logit, bias_share, epsilon_share, top_channels_json, measures_json
    FROM cell WHERE field = ? ORDER BY cell"""
FIXED = ("bundle", "bundle_sha256", "backend", "precision", "threads", "um_per_px")
"""Facts that must not change while a session lasts."""


class Session:
    """One session folder. Make it with ``Session.create`` or ``Session.open``; it is a context manager.

    Every method raises StorageError, one sentence, where the disk or the database fails.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        """The session folder, as given."""
        self._db = connection
        row = connection.execute("SELECT * FROM session").fetchone()
        self.facts: RunFacts = run_facts(row)
        """What was fixed at its creation."""
        self.id: str = row["id"]
        """32 hexadecimal digits, random."""
        self.created_at: str = row["created_at"]
        """UTC, ISO 8601; for people, nothing depends on it."""
        self.software: str = row["software"]
        """Version of nca-edge that created it."""

    @classmethod
    def create(cls, folder: Path, facts: RunFacts) -> Session:
        """Begin a session in ``folder``, which is made if it is not there.

        Raises
        ------
        UsageError
            The folder already holds a session, or files that a session would overwrite.
        """
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file, not a folder: give another folder to --out.")
        with storage(folder):
            _refuse_foreign_files(folder)
            (folder / CELLS).mkdir(parents=True, exist_ok=True)
            session = cls._of(folder, create_database(folder, facts))
            sync_folder(folder)
            sync_folder(folder.absolute().parent)
            return session

    @classmethod
    def open(cls, folder: Path) -> Session:
        """Open a session to resume, report or export it.

        Raises
        ------
        UsageError
            The folder holds no session.
        StorageError
            It was written by a newer version, is damaged, or cannot be read and written.
        """
        with storage(folder):
            return cls._of(folder, open_database(folder))

    @classmethod
    def _of(cls, folder: Path, connection: sqlite3.Connection) -> Session:
        with ExitStack() as undo:
            undo.callback(connection.close)
            session = cls(folder, connection)
            undo.pop_all()
        return session

    def require(self, facts: RunFacts) -> None:
        """Refuse to go on with another model, backend, precision, number of threads or scale than the session began with.

        Raises
        ------
        UsageError
            Names what differs.
        """
        differing = [name for name in FIXED if getattr(self.facts, name) != getattr(facts, name)]
        if differing:
            began = ", ".join(_fact(self.facts, name) for name in differing)
            asked = ", ".join(_fact(facts, name) for name in differing)
            raise UsageError(
                f"The session {self.folder} began with {began}, but this call has {asked}: "
                "resume with what it began with, or start a new session with --out."
            )

    def commit(self, reading: Reading) -> None:
        """Save one field with all its cells. When this returns, they survive a power cut.

        A field whose name was committed before is skipped, so that a cell is never counted twice. The order is: write lock
        (no other process can be given the same field number), pictures on the disk, rows, COMMIT. Pictures of a commit that
        did not end are overwritten by the next field, which gets the same number.
        """
        name = encode(reading.field)
        with storage(self.folder), self._transaction():
            if self._db.execute("SELECT 1 FROM field WHERE name = CAST(? AS TEXT)", (name,)).fetchone():
                return
            number = int(self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM field").fetchone()[0])
            contents = {
                picture_path(number, cell.cell, kind): png for cell in reading.cells for kind, png in pictures(cell).items()
            }
            write_pictures(self.folder, contents)
            insert(self._db, "field", {"number": number, "name": name, "committed_at": now()} | _field_columns(reading))
            for cell in reading.cells:
                insert(self._db, "cell", {"field": number} | _cell_columns(cell))

    def fields_done(self) -> set[str]:
        """Names of the committed fields, also those that were rejected or failed."""
        return {row["name"] for row in self._rows("SELECT name FROM field")}

    def fields(self) -> Iterator[FieldRow]:
        """Committed fields in order of commit."""
        return map(field_row, self._rows(FIELDS))

    def cells(self) -> Iterator[CellRow]:
        """Committed cells: fields in order of commit, cells by number."""
        for field in self.fields():
            for row in self._rows(CELLS_OF_FIELD, field.number):
                yield cell_row(row, field)

    def channel_maps(self, cell: CellRow) -> Image8:
        """Maps of the first of ``cell.top_channels``.

        Returns
        -------
        (n, grid, grid) uint8
            n = 5, or fewer where the model has fewer; each from its least (0) to its largest value (255).
        """
        rows = self._rows("SELECT maps_png FROM cell WHERE field = ? AND cell = ?", cell.field_number, cell.cell)
        return unpack_maps(rows[0]["maps_png"])

    def export(self) -> None:
        """Rebuild cells.jsonl, fields.jsonl and cells.csv from the database; each is replaced in one step."""
        with storage(self.folder):
            replace_file(self.folder / derived.FIELDS_JSONL, derived.fields_jsonl(self.fields()))
            replace_file(self.folder / derived.CELLS_JSONL, derived.cells_jsonl(self.cells()))
            replace_file(self.folder / derived.CELLS_CSV, derived.cells_csv(self.cells(), self.facts.classes))

    def close(self) -> None:
        """Close the database; the last to close it leaves one file, session.db, without a log beside it."""
        with storage(self.folder):
            self._db.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.rollback()

    def _rows(self, query: str, *values: int) -> list[sqlite3.Row]:
        # All at once: an open cursor would keep SQLite from emptying its log while cells are still being committed.
        with storage(self.folder):
            return self._db.execute(query, values).fetchall()


def _refuse_foreign_files(folder: Path) -> None:
    names = (derived.CELLS_JSONL, derived.FIELDS_JSONL, derived.CELLS_CSV, derived.REPORT_HTML)
    taken = [name for name in names if (folder / name).exists()]
    if taken and not (folder / DATABASE).exists():
        raise UsageError(
            f"{folder} holds {taken[0]} but no session, and a session would overwrite it: give another folder to --out."
        )


def _fact(facts: RunFacts, name: str) -> str:
    value = getattr(facts, name)
    if name == "bundle_sha256":
        return f"model hash {value[:12]}"
    if name == "um_per_px":
        return "no --um-per-px" if value is None else f"--um-per-px {value:g}"
    return f"{'model' if name == 'bundle' else name} {value}"


# int(), float() and bool() below are no decoration: sqlite3 would store a NumPy scalar as its raw bytes.


def _field_columns(reading: Reading) -> dict[str, object]:
    scale = reading.scale
    return {
        "accepted": bool(reading.accepted),
        "failed": bool(reading.failed),
        "reasons_json": json.dumps(reading.reasons),
        "focus": float(reading.focus),
        "um_per_px": None if scale is None else float(scale.um_per_px),
        "scale_source": None if scale is None else scale.source,
    }


def _cell_columns(cell: CellReading) -> dict[str, object]:
    detection, prediction, why = cell.detection, cell.prediction, cell.explanation
    box = detection.box
    tops = [(int(top.channel), float(top.relevance), (int(top.peak[0]), int(top.peak[1]))) for top in why.top_channels]
    return {
        "cell": int(cell.cell),
        "x": int(box.x),
        "y": int(box.y),
        "w": int(box.w),
        "h": int(box.h),
        "border": bool(detection.border),
        "score": float(detection.score),
        "model_label": prediction.label,
        "confidence": float(prediction.confidence),
        "unsure": bool(prediction.unsure),
        "counted": bool(cell.counted),
        "probabilities_json": json.dumps({label: float(p) for label, p in prediction.probabilities.items()}),
        "explained_label": why.label,
        "logit": float(why.logit),
        "bias_share": float(why.bias_share),
        "epsilon_share": float(why.epsilon_share),
        "top_channels_json": json.dumps(tops),
        "measures_json": json.dumps(kept(why)),
        "maps_png": pack_maps(why.top_channels),
    }
