"""From the end of the count to a name under it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nca_edge.errors import UsageError
from nca_edge.session.audit import SOFTWARE, rows_of
from nca_edge.session.database import slide_columns
from nca_edge.session.faults import storage
from nca_edge.session.ledger import State
from nca_edge.session.people import SlideFacts, clean, person
from nca_edge.session.review import OPEN_TO_REVIEW, Review
from nca_edge.session.rows import slide_facts


@dataclass(frozen=True, slots=True)
class Signature:
    """A name put to the session."""

    name: str
    """Who signed."""
    at: str
    """UTC, ISO 8601, as the machine's clock had it."""
    revision: int
    """1 for the first signature, one more after each amendment."""
    reason: str
    """Why the session was amended before it; empty in revision 1."""
    head: str
    """Hash of the signature's row in the audit log."""


class Signing(Review):
    """The part of ``Session`` that leads from one state to the next."""

    @property
    def slide(self) -> SlideFacts:
        """What a person said of the slide."""
        return slide_facts(self._rows("SELECT * FROM session")[0])

    def signatures(self) -> tuple[Signature, ...]:
        """All signatures, the first one first."""
        return tuple(_signatures(self._rows("SELECT * FROM audit WHERE action IN ('signed', 'amended') ORDER BY sequence")))

    @property
    def signature(self) -> Signature | None:
        """The signature that stands; None while the session is not signed."""
        return self.signatures()[-1] if self.state is State.SIGNED else None

    def describe(self, slide: SlideFacts, by: str) -> None:
        """Mend what was said of the slide."""
        name, cleaned = person(by, "changes the session"), slide.cleaned()
        with storage(self.folder), self._transaction():
            self._require_state("changed", State.OPEN, *OPEN_TO_REVIEW)
            if cleaned != self.slide:
                columns = slide_columns(cleaned)
                places = ", ".join(f"{column} = ?" for column in columns)
                self._db.execute(f"UPDATE session SET {places}", tuple(columns.values()))
                self._log(name, "described", columns)

    def begin_review(self, by: str = SOFTWARE) -> None:
        """End the count; a field that is committed later opens it again."""
        name = person(by, "ends the count")
        with storage(self.folder), self._transaction():
            if self._require_state("reviewed", State.COUNTING, State.REVIEW) is State.COUNTING:
                self._enter(State.REVIEW)
                self._log(name, "review_begun", {})

    def sign(self, name: str) -> Signature:
        """Put a person's name to the session.

        Raises
        ------
        UsageError
            The count has not ended, nothing was counted, or cells are not reviewed or not identified: says how many.
        """
        signer = person(name, "signs")
        with storage(self.folder), self._transaction():
            self._require_state("signed", State.REVIEW, State.AMENDED)
            self._refuse_unfinished()
            verdicts = list(self.verdicts())
            counts = Counter(verdict.label for verdict in verdicts if verdict.counted)
            revision = len(self.signatures()) + 1
            self._enter(State.SIGNED)
            self._log(signer, "signed", {"revision": revision, "counts": dict(sorted(counts.items()))})
            return self.signatures()[-1]

    def amend(self, by: str, reason: str) -> None:
        """Open a signed session again, for corrections and a new signature; the old one stays in the log."""
        name = person(by, "amends the session")
        with storage(self.folder), self._transaction():
            self._require_state("amended", State.SIGNED)
            self._enter(State.AMENDED)
            self._log(name, "amended", {"reason": _reason(reason, "amending")})

    def abandon(self, by: str, reason: str) -> None:
        """Give the session up for ever; everything in it stays readable."""
        name = person(by, "abandons the session")
        with storage(self.folder), self._transaction():
            self._require_state("abandoned", State.OPEN, *OPEN_TO_REVIEW)
            self._enter(State.ABANDONED)
            self._log(name, "abandoned", {"reason": _reason(reason, "abandoning")})

    def _refuse_unfinished(self) -> None:
        """UsageError while something in the session keeps a person from signing."""
        if not any(verdict.counted for verdict in self.verdicts()):
            raise UsageError(f"The session {self.folder} cannot be signed, because no cell is counted: count cells first.")
        unreviewed = self.unreviewed()
        if unreviewed:
            raise UsageError(f"The session {self.folder} cannot be signed yet: {_cells(len(unreviewed))} not reviewed.")
        unidentified = self.unidentified()
        if unidentified:
            raise UsageError(f"The session {self.folder} cannot be signed yet: {_cells(len(unidentified))} unidentified.")


def _cells(n: int) -> str:
    return "1 cell is" if n == 1 else f"{n} cells are"


def _reason(text: str, what: str) -> str:
    reason = clean(text, "The reason")
    if not reason:
        raise UsageError(f"Give the reason for {what} the session.")
    return reason


def _signatures(log: Iterable[sqlite3.Row]) -> Iterator[Signature]:
    reason = ""
    for row in rows_of(log):
        if row.action == "amended":
            reason = row.payload["reason"]
        else:
            yield Signature(row.actor, row.at, row.payload["revision"], reason, row.hash)
