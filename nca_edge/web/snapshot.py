"""How a session stands at one moment: what every page is drawn from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from nca_edge.differential import Differential, differential
from nca_edge.flags import Flag, load_rules, raised
from nca_edge.session import CellRow, Session, Signature, SlideFacts, State

UNIDENTIFIED = "unidentified"
KEYS = {
    "neutrophil_segmented": "1", "neutrophil_band": "2", "lymphocyte": "3", "monocyte": "4", "eosinophil": "5", "basophil": "6",
    "metamyelocyte": "7", "myelocyte": "8", "promyelocyte": "9", "blast": "0", "lymphocyte_atypical": "t", "erythroblast": "e",
    "smudge_cell": "s", "artefact": "x", UNIDENTIFIED: "d",
}  # fmt: skip
"""Class -> the key that names it, the same in every language: hands learn them."""
SPARE_KEYS = "hijklmvwyz"
"""For further classes of a model."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell as the page shows it."""

    row: CellRow
    """What the session holds of it."""
    why: str
    """Why it waits to be looked at alone, as ``session.queue.Queued.why``; empty: it does not."""
    stamp: str
    """Of the session: pictures of another one must not come from the browser's memory."""

    @property
    def id(self) -> str:
        """Name of the cell within the session."""
        return self.row.id

    @property
    def label(self) -> str:
        """Where it counts now: a class, or ``unidentified``."""
        verdict = self.row.verdict
        return UNIDENTIFIED if verdict.unsure else verdict.label

    @property
    def reviewed(self) -> bool:
        """A person has looked at it."""
        return self.row.reviewed

    @property
    def corrected(self) -> bool:
        """A person named it otherwise than the model."""
        return self.row.reviewed and self.row.verdict.label != self.row.label

    @property
    def unidentified(self) -> bool:
        """It has no certain class."""
        return self.label == UNIDENTIFIED

    @property
    def acceptable(self) -> bool:
        """It may be accepted together with others: it is certain, and nothing asks for a look of its own."""
        return self.row.in_scope and not (self.reviewed or self.why or self.unidentified)

    @property
    def settled(self) -> bool:
        """Nobody has to look at it any more."""
        return self.reviewed or not self.row.in_scope

    def picture(self, kind: str) -> str:
        """Address of its crop, overlay or maps."""
        return f"/picture/{self.id}/{kind}.png?s={self.stamp}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session at one revision."""

    revision: int
    """Rises with every change while the server runs."""
    name: str
    """Of the session's folder."""
    state: State
    slide: SlideFacts
    facts: tuple[tuple[str, str], ...]
    """What the sign page lists, text key -> value."""
    cells: tuple[Shown, ...]
    """In order of commit; those of fields that were taken back are left out."""
    queue: tuple[Shown, ...]
    """To be looked at one by one, most urgent first."""
    fields: int
    """Committed and not taken back."""
    table: Differential
    signature: Signature | None
    """The one that stands."""
    palette: tuple[tuple[str, str], ...]
    """(class, key) of everything a person may call a cell."""
    flags: tuple[Flag, ...]
    """Findings beyond the usual limits."""
    read_only: bool
    """The session can be looked at and not changed."""

    @property
    def in_scope(self) -> tuple[Shown, ...]:
        """Cells that a person has to look at before the session can be signed."""
        return tuple(cell for cell in self.cells if cell.row.in_scope)

    @property
    def unreviewed(self) -> int:
        """Of these, those that nobody has looked at."""
        return sum(not cell.reviewed for cell in self.in_scope)

    @property
    def unidentified(self) -> int:
        """Of these, counted ones without a certain class."""
        return sum(cell.unidentified and cell.row.verdict.counted for cell in self.in_scope)

    @property
    def open(self) -> bool:
        """Cells can be reviewed."""
        return not self.read_only and self.state in (State.COUNTING, State.REVIEW, State.AMENDED)

    @property
    def over(self) -> bool:
        """Signed or given up: the next slide may begin."""
        return self.state in (State.SIGNED, State.ABANDONED)

    def counts(self) -> Counter[str]:
        """Class -> how many cells the gallery shows under it."""
        return Counter(cell.label for cell in self.cells)

    def sorted_cells(self) -> tuple[Shown, ...]:
        """By class in the order of the palette; in each, the least certain first."""
        order = {label: at for at, (label, _) in enumerate(self.palette)}
        return tuple(sorted(self.cells, key=lambda c: (order.get(c.label, len(order)), c.row.confidence, c.id)))

    def find(self, cell: str) -> Shown | None:
        """The cell of that name."""
        return next((shown for shown in self.cells if shown.id == cell), None)


def take(session: Session, revision: int) -> Snapshot:
    """Read everything that the pages need, in the session's own thread."""
    rows = tuple(cell for cell in session.cells() if not cell.voided)
    queued = {queued.cell.id: queued.why for queued in session.review_queue()}
    shown = tuple(Shown(row, queued.get(row.id, ""), session.id[:12]) for row in rows)
    by_id = {cell.id: cell for cell in shown}
    facts = session.facts
    table = differential((row.verdict for row in rows), facts.classes, facts.groups)
    return Snapshot(
        revision=revision,
        name=session.folder.resolve().name,
        state=session.state,
        slide=session.slide,
        facts=_facts(session),
        cells=shown,
        queue=tuple(by_id[cell] for cell in queued),
        fields=sum(not field.voided for field in session.fields()),
        table=table,
        signature=session.signature,
        palette=_palette(session.labels),
        flags=raised(load_rules(), table, session.slide.target),
        read_only=session.read_only,
    )


def _facts(session: Session) -> tuple[tuple[str, str], ...]:
    slide = session.slide
    told = (
        ("session.specimen", slide.specimen), ("session.slide", slide.slide), ("session.operator", slide.operator),
        ("session.model", f"{session.facts.bundle} {session.facts.bundle_sha256[:12]}"), ("sign.audit", session.head),
    )  # fmt: skip
    return tuple((key, value) for key, value in told if value)


def _palette(labels: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    spare = iter(SPARE_KEYS)
    known = [(label, key) for label, key in KEYS.items() if label in labels]
    more = [(label, next(spare, "")) for label in labels if label not in KEYS]
    return tuple(known[:-1] + more + known[-1:])
