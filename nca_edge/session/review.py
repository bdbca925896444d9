"""What a person does to the cells: looks through them, names them, takes back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from nca_edge.errors import UsageError
from nca_edge.records import RunFacts
from nca_edge.session.database import encode
from nca_edge.session.faults import storage
from nca_edge.session.ledger import Ledger, State
from nca_edge.session.people import person
from nca_edge.session.queue import Queued, review_queue
from nca_edge.session.rows import UNIDENTIFIED, CellRow, Verdict, cell_key

LABELS = (
    "neutrophil_band", "neutrophil_segmented", "lymphocyte", "lymphocyte_atypical", "monocyte", "eosinophil", "basophil",
    "promyelocyte", "myelocyte", "metamyelocyte", "blast", "erythroblast", "smudge_cell", "artefact",
)  # fmt: skip
"""What a person may call a cell, whatever the model knows, besides the model's own classes."""
OPEN_TO_REVIEW = (State.COUNTING, State.REVIEW, State.AMENDED)
"""States in which cells can be reviewed."""
UNDOABLE = ("reclassified", "accepted", "voided")
"""Actions of the audit log that ``undo`` takes back."""


class Review(Ledger):
    """The part of ``Session`` that looks through cells."""

    id: str
    facts: RunFacts

    def cells(self) -> Iterator[CellRow]:
        """Committed cells."""
        raise NotImplementedError

    # Looking

    @property
    def labels(self) -> tuple[str, ...]:
        """What ``reclassify`` takes: the usual names in the order of the report, then further classes of the model."""
        return tuple(dict.fromkeys((*LABELS, *self.facts.classes, UNIDENTIFIED)))

    def verdicts(self) -> Iterator[Verdict]:
        """Every cell as it counts now: a person's class before the model's; cells of voided fields are left out."""
        return (cell.verdict for cell in self.cells() if not cell.voided)

    def review_queue(self) -> tuple[Queued, ...]:
        """Cells that want a look of their own and have not had it, most urgent first (see session/queue.py)."""
        return review_queue(tuple(self.cells()), self.id)

    def unreviewed(self) -> tuple[CellRow, ...]:
        """Cells that a person has to look at before the session can be signed."""
        return tuple(cell for cell in self.cells() if cell.in_scope and not cell.reviewed)

    def unidentified(self) -> tuple[CellRow, ...]:
        """Counted cells that have no certain class: the model is unsure, or a person called them unidentified."""
        return tuple(cell for cell in self.cells() if cell.in_scope and cell.verdict.counted and cell.verdict.unsure)

    # Reviewing

    def reclassify(self, cell: str, label: str, by: str) -> None:
        """Say what a cell is; it counts as reviewed. ``cell`` is ``CellRow.id``, ``label`` one of ``labels``."""
        name = person(by, "names the cell")
        if label not in self.labels:
            raise UsageError(f"{label!r} is not a class: choose one of {', '.join(self.labels)}.")
        with storage(self.folder), self._transaction():
            self._require_state("reviewed", *OPEN_TO_REVIEW)
            key = self._existing(cell)
            before = self._verdict(key)
            payload = {"cell": cell, "label": label, "before": before}
            if before != {"label": label, "by": name}:
                self._set_verdict(key, label, name)
                self._log(name, "reclassified", payload)

    def accept(self, cells: Iterable[str], by: str) -> int:
        """Say that cells are what the model said, also where it was unsure; returns how many had no verdict yet.

        A cell that a person has named already keeps that name. Show a cell of the review queue alone before it is accepted.
        """
        name = person(by, "reviews the cells")
        with storage(self.folder), self._transaction():
            self._require_state("reviewed", *OPEN_TO_REVIEW)
            keys = {cell: self._existing(cell) for cell in cells}
            new = {cell: key for cell, key in keys.items() if self._verdict(key) is None}
            for key in new.values():
                (label,) = self._db.execute("SELECT model_label FROM cell WHERE field = ? AND cell = ?", key).fetchone()
                self._set_verdict(key, label, name)
            if new:
                self._log(name, "accepted", {"cells": list(new)})
        return len(new)

    def void_field(self, field: str, by: str) -> None:
        """Take a whole field back (``FieldRow.name``): it stays stored, none of its cells is counted any more."""
        name = person(by, "takes the field back")
        with storage(self.folder), self._transaction():
            self._require_state("changed", *OPEN_TO_REVIEW)
            row = self._db.execute("SELECT number, voided FROM field WHERE name = CAST(? AS TEXT)", (encode(field),)).fetchone()
            if row is None:
                raise UsageError(f"The session {self.folder} holds no field {field!r}: choose one that it holds.")
            if not row["voided"]:
                self._db.execute("UPDATE field SET voided = 1 WHERE number = ?", (row["number"],))
                self._log(name, "voided", {"field": row["number"]})

    def undo(self, by: str) -> str | None:
        """Take back the last ``reclassify``, ``accept`` or ``void_field`` that still stands, not beyond a signature.

        Returns
        -------
        What was taken back (``reclassified``, ``accepted`` or ``voided``); None where there is nothing.
        """
        name = person(by, "takes it back")
        with storage(self.folder), self._transaction():
            self._require_state("changed", *OPEN_TO_REVIEW)
            row = self._last_standing()
            if row is None:
                return None
            sequence, action, payload = row
            self._restore(action, payload)
            self._log(name, "undone", {"sequence": sequence, "action": action})
        return action

    def _existing(self, cell: str) -> tuple[int, int]:
        """Key of a cell that the session holds."""
        key = cell_key(cell)
        if key is None or not self._db.execute("SELECT 1 FROM cell WHERE field = ? AND cell = ?", key).fetchone():
            raise UsageError(f"The session {self.folder} holds no cell {cell!r}: choose one that it holds.")
        return key

    def _verdict(self, key: tuple[int, int]) -> dict[str, str] | None:
        row = self._db.execute("SELECT label, given_by FROM verdict WHERE field = ? AND cell = ?", key).fetchone()
        return None if row is None else {"label": row["label"], "by": row["given_by"]}

    def _set_verdict(self, key: tuple[int, int], label: str, by: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO verdict VALUES (?, ?, ?, ?)", (*key, label, by))

    def _restore(self, action: str, payload: dict[str, Any]) -> None:
        """Make a change undone."""
        if action == "voided":
            self._db.execute("UPDATE field SET voided = 0 WHERE number = ?", (payload["field"],))
            return
        before = payload.get("before")
        for cell in payload.get("cells", [payload.get("cell")]):
            key = self._existing(cell)
            if before is None:
                self._db.execute("DELETE FROM verdict WHERE field = ? AND cell = ?", key)
            else:
                self._set_verdict(key, before["label"], before["by"])

    def _last_standing(self) -> tuple[int, str, dict[str, Any]] | None:
        """(sequence, action, payload) of the last change that can be undone; what was signed for cannot."""
        undone: set[int] = set()
        for row in self._db.execute("SELECT sequence, action, payload_json FROM audit ORDER BY sequence DESC"):
            if row["action"] in ("signed", "amended"):
                return None
            if row["action"] == "undone":
                undone.add(json.loads(row["payload_json"])["sequence"])
            elif row["action"] in UNDOABLE and row["sequence"] not in undone:
                return row["sequence"], row["action"], json.loads(row["payload_json"])
        return None
