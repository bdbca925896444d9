"""The session: what was committed is there after the power failed, and nothing is counted twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from nca_edge.errors import UsageError
from nca_edge.records import Image8, Reading, RunFacts
from nca_edge.session import audit, derived
from nca_edge.session.audit import now
from nca_edge.session.columns import cell_columns, field_columns
from nca_edge.session.database import (
    DATABASE,
    create_database,
    encode,
    insert,
    open_database,
    read_database,
    require_database,
)
from nca_edge.session.digests import bytes_digest, field_digest
from nca_edge.session.disk import free_bytes, require_room
from nca_edge.session.faults import storage
from nca_edge.session.files import (
    CELLS,
    KINDS,
    picture_path,
    pictures,
    replace_file,
    sync_folder,
    unpack_maps,
    write_pictures,
)
from nca_edge.session.ledger import State
from nca_edge.session.lock import FolderLock
from nca_edge.session.people import SlideFacts
from nca_edge.session.rows import CellRow, FieldRow, cell_row, field_row, run_facts
from nca_edge.session.signing import Signing

FIELDS = "SELECT *, (SELECT count(*) FROM cell WHERE cell.field = field.number) AS n_cells FROM field ORDER BY number"
CELLS_OF_FIELD = """SELECT cell, x, y, w, h, border, score, model_label, confidence, unsure, counted, probabilities_json,
    explained_label, logit, bias_share, epsilon_share, top_channels_json, measures_json, verdict.label AS human_label, given_by
    FROM cell LEFT JOIN verdict USING (field, cell) WHERE field = ? ORDER BY cell"""
FIXED = ("bundle", "bundle_sha256", "backend", "precision", "threads", "um_per_px")
"""Facts that must not change while a session lasts."""


class Session(Signing):
    """One session folder. Make it with ``Session.create`` or ``Session.open``; it is a context manager.

    Every method raises StorageError, one sentence, where the disk or the database fails.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, read_only: bool = False) -> None:
        super().__init__(folder, connection, read_only)
        self._held = ExitStack()
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
    def create(cls, folder: Path, facts: RunFacts, slide: SlideFacts | None = None) -> Session:
        """Begin a session in ``folder``, which is made if it is not there.

        Raises
        ------
        UsageError
            The folder already holds a session, or files that a session would overwrite; or ``slide`` cannot be kept.
        """
        cleaned = (slide or SlideFacts()).cleaned()
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file, not a folder: give another folder to --out.")
        with storage(folder), ExitStack() as undo:
            _refuse_foreign_files(folder)
            (folder / CELLS).mkdir(parents=True, exist_ok=True)
            undo.callback(FolderLock(folder).release)
            connection = create_database(folder, facts, cleaned)
            undo.callback(connection.close)
            sync_folder(folder)
            sync_folder(folder.absolute().parent)
            session = cls(folder, connection)
            session._held = undo.pop_all()
            return session

    @classmethod
    def open(cls, folder: Path, read_only: bool = False) -> Session:
        """Open a session to go on with it, or, ``read_only``, to report and export it.

        One process at a time can write; any number can read beside it, also from a disk that nothing can be written to.

        Raises
        ------
        UsageError
            The folder holds no session.
        StorageError
            Another process has it open for writing (its id is named), it was written by a newer version, is damaged, or
            cannot be read.
        """
        with storage(folder), ExitStack() as undo:
            if read_only:
                connection = read_database(folder, undo)
            else:
                require_database(folder)
                undo.callback(FolderLock(folder).release)
                connection = open_database(folder)
                undo.callback(connection.close)
            session = cls(folder, connection, read_only)
            session._held = undo.pop_all()
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
        (no other thread can be given the same field number), pictures on the disk, rows, COMMIT. Pictures of a commit that
        did not end are overwritten by the next field, which gets the same number.

        Raises
        ------
        UsageError
            The session is signed, amended or abandoned.
        """
        name = encode(reading.field)
        with storage(self.folder), self._transaction():
            if self._db.execute("SELECT 1 FROM field WHERE name = CAST(? AS TEXT)", (name,)).fetchone():
                return
            number = int(self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM field").fetchone()[0])
            self._require_state("given more fields", State.OPEN, State.COUNTING, State.REVIEW)
            drawn = [pictures(cell) for cell in reading.cells]
            contents = {
                picture_path(number, cell.cell, kind): png
                for cell, kinds in zip(reading.cells, drawn, strict=True)
                for kind, png in kinds.items()
            }
            require_room(self.folder, sum(map(len, contents.values())))
            write_pictures(self.folder, contents)
            insert(self._db, "field", {"number": number, "name": name, "committed_at": now()} | field_columns(reading))
            for cell, kinds in zip(reading.cells, drawn, strict=True):
                digest = bytes_digest(kinds[kind] for kind in KINDS)
                insert(self._db, "cell", {"field": number, "pictures_sha256": digest} | cell_columns(cell))
            self._enter(State.COUNTING)
            self._log(audit.SOFTWARE, "committed", {"field": number, "sha256": field_digest(self._db, number)})

    @property
    def free_bytes(self) -> int:
        """What the session's disk still takes; a commit that would leave less than ``disk.RESERVE_BYTES`` is refused."""
        with storage(self.folder):
            return free_bytes(self.folder)

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

    def export(self, to: Path | None = None) -> None:
        """Rebuild cells.jsonl, fields.jsonl and cells.csv from the database, in the session's folder or another; each is
        replaced in one step."""
        to = to or self.folder
        with storage(to):
            replace_file(to / derived.FIELDS_JSONL, derived.fields_jsonl(self.fields()))
            replace_file(to / derived.CELLS_JSONL, derived.cells_jsonl(self.cells()))
            replace_file(to / derived.CELLS_CSV, derived.cells_csv(self.cells(), self.facts.classes))

    def close(self) -> None:
        """Close the database; the last to close it leaves one file, session.db, without a log beside it."""
        with self._turn, storage(self.folder):
            self._held.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


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
