"""Which cells a person looks at first, and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nca_edge.session.rows import CellRow

BLASTS = ("blast", "myeloblast")
"""Classes that mean a blast."""
SUSPECTED = 0.1
"""A cell to which the model gives this much probability of being a blast is suspected, whatever its best class."""
ABNORMAL = ("promyelocyte", "myelocyte", "metamyelocyte", "lymphocyte_atypical", "erythroblast")
"""Classes whose every cell deserves a look, however many there are."""
RARE = 0.05
"""A class with less than this share of the cells is rare: one wrong cell changes it much."""
SAMPLE = 0.1
"""Share of the confident cells that are looked at all the same, against blind trust in the model."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A cell that waits for a person."""

    cell: CellRow
    why: str
    """``blast`` (suspected), ``unsure`` (or named for what lies outside the cell), ``rare`` or ``sample`` (a random tenth)."""


def review_queue(cells: Sequence[CellRow], session_id: str) -> tuple[Queued, ...]:
    """Cells that want a look of their own, not yet reviewed, in the order of their urgency.

    Suspected blasts first, then what the model is unsure of, or names for what lies outside the cell, by rising confidence,
    then rare and abnormal classes by rising confidence, then a tenth of all others. The tenth is drawn by a hash of the
    session's id and the cell's: it is the same at every call and on every machine, and nobody who runs the session chooses it.
    """
    open_cells = [cell for cell in cells if cell.in_scope]
    share = Counter(cell.label for cell in open_cells)
    groups: dict[str, list[CellRow]] = {"blast": [], "unsure": [], "rare": [], "": []}
    for cell in open_cells:
        groups[_why(cell, share[cell.label] / len(open_cells))].append(cell)
    groups["blast"].sort(key=lambda cell: (-_blast(cell), cell.id))
    for name in ("unsure", "rare"):
        groups[name].sort(key=lambda cell: (cell.confidence, cell.id))
    groups["sample"] = sorted(groups.pop(""), key=lambda cell: _lot(session_id, cell.id))
    del groups["sample"][-(-len(groups["sample"]) // round(1 / SAMPLE)) :]
    return tuple(Queued(cell, why) for why, some in groups.items() for cell in some if not cell.reviewed)


def _why(cell: CellRow, share: float) -> str:
    if cell.label in BLASTS or _blast(cell) >= SUSPECTED:
        return "blast"
    if cell.unsure or cell.measures.get("rests_on_background"):
        return "unsure"
    return "rare" if cell.label in ABNORMAL or share < RARE else ""


def _blast(cell: CellRow) -> float:
    return sum(cell.probabilities.get(label) or 0.0 for label in BLASTS)


def _lot(session_id: str, cell: str) -> str:
    return hashlib.sha256(f"{session_id}:{cell}".encode("ascii")).hexdigest()
