"""Why a session cannot be signed yet, and where to go to mend it."""

from __future__ import annotations

from dataclasses import dataclass

from nca_edge.i18n import Words
from nca_edge.web.house import House
from nca_edge.web.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is missing."""

    text: str
    """For a person."""
    href: str = ""
    """Page that mends it; empty: none."""
    link: str = ""
    """Its name."""


def reasons(words: Words, house: House, snapshot: Snapshot) -> tuple[Reason, ...]:
    """Everything that stands in the way of a signature; empty: nothing does."""
    found = []
    if not snapshot.table.leukocytes:
        found.append(Reason(words("sign.no_cells")))
    if house.counting:
        found.append(Reason(words("sign.still_counting"), "/", words("nav.count")))
    if snapshot.unidentified:
        found.append(
            Reason(words("sign.unidentified", n=snapshot.unidentified), "/cells?class=unidentified", words("nav.cells"))
        )
    if snapshot.unreviewed:
        where = ("/queue", words("nav.queue")) if snapshot.queue else ("/cells?open=1", words("nav.cells"))
        found.append(Reason(words("sign.not_reviewed", n=snapshot.unreviewed), *where))
    return tuple(found)
