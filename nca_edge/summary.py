"""What every output of a session says: where it stands, who signed, the differential, its flags; as JSON and as CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from nca_edge import RESEARCH_USE
from nca_edge.differential import Differential, Row, differential
from nca_edge.flags import Flag, Rule, load_rules, raised
from nca_edge.records import RunFacts
from nca_edge.session import AuditRow, Session, Signature, SlideFacts, State
from nca_edge.session.derived import csv_row

REPORT_JSON = "report.json"
DIFFERENTIAL_CSV = "differential.csv"


@dataclass(frozen=True, slots=True)
class Summary:
    """One session at one moment; the same moment gives the same outputs, byte for byte."""

    id: str
    """The session's, 32 hexadecimal digits."""
    name: str
    """Name of its folder."""
    state: State
    slide: SlideFacts
    facts: RunFacts
    begun: str
    """UTC, ISO 8601, as the machine's clock had it."""
    changed: str
    """Of the last row of the audit log."""
    sequence: int
    """Number of that row."""
    head: str
    """Its hash."""
    software: str
    """Version of nca-edge that began the session."""
    table: Differential
    flags: tuple[Flag, ...]
    signatures: tuple[Signature, ...]
    last: tuple[str, str]
    """(who, why) of the last amendment or of the abandonment; empty texts where there was none."""
    to_review: int
    """Cells that a person has to look at."""
    reviewed: int
    """Of these, cells that a person has looked at."""
    corrected: int
    """Of these, cells that she called something else than the model."""
    clock_set_back: bool
    """The machine's clock went backwards at some time: the times of this session are not to be relied on."""

    @property
    def signature(self) -> Signature | None:
        """The signature that stands."""
        return self.signatures[-1] if self.state is State.SIGNED else None

    @property
    def standing(self) -> str:
        """One sentence: where the session stands, and with whom."""
        signature, (who, why) = self.signature, self.last
        if signature is not None:
            again = f", revision {signature.revision} (amended: {signature.reason})" if signature.revision > 1 else ""
            return f"Signed by {signature.name} on {minute(signature.at)}{again}."
        if self.state is State.ABANDONED:
            return f"Abandoned by {who}: {why}."
        looked = f"{self.reviewed} of {self.to_review} cells reviewed."
        begun = {
            State.OPEN: "Not signed: no field was read.",
            State.COUNTING: f"Not signed: the count has not ended, {looked}",
            State.AMENDED: f"Not signed: opened again by {who} ({why}), {looked}",
        }
        return begun.get(self.state, f"Not signed: {looked}")


def summarize(session: Session, rules: Iterable[Rule] | None = None) -> Summary:
    """Everything that the outputs of a session share.

    Parameters
    ----------
    rules : of the flags; None: those of nca-edge
    """
    log, cells, slide = session.audit_log(), [cell for cell in session.cells() if cell.in_scope], session.slide
    table = differential(session.verdicts(), session.facts.classes, session.facts.groups)
    return Summary(
        id=session.id,
        name=session.folder.resolve().name,
        state=session.state,
        slide=slide,
        facts=session.facts,
        begun=session.created_at,
        changed=log[-1].at,
        sequence=log[-1].sequence,
        head=log[-1].hash,
        software=session.software,
        table=table,
        flags=raised(load_rules() if rules is None else rules, table, slide.target),
        signatures=session.signatures(),
        last=_last_reason(log),
        to_review=len(cells),
        reviewed=sum(cell.reviewed for cell in cells),
        corrected=sum(cell.corrected for cell in cells),
        clock_set_back=any(later.at < earlier.at for earlier, later in pairwise(log)),
    )


def minute(at: str) -> str:
    """A time for people, to the minute."""
    return f"{at[:16].replace('T', ' ')} UTC"


def report_json(summary: Summary) -> bytes:
    """``report.json``."""
    table = summary.table
    value = {
        "session": summary.id, "name": summary.name, "state": summary.state.value, "standing": summary.standing,
        "begun": summary.begun, "changed": summary.changed, "clock_set_back": summary.clock_set_back, "head": summary.head,
        "slide": {**asdict(summary.slide), "calibration": dict(summary.slide.calibration)},
        "signatures": [asdict(signature) for signature in summary.signatures],
        "model": {
            name: getattr(summary.facts, name) for name in ("bundle", "bundle_sha256", "backend", "precision", "threads")
        },
        "software": summary.software,
        "leukocytes": table.leukocytes, "rows": [row_json(row) for row in table.rows],
        "outside": [asdict(row) for row in table.outside], "artefacts": table.artefacts, "border": table.border,
        "blasts": table.blast_statement, "flags": [asdict(flag) for flag in summary.flags],
        "cells_to_review": summary.to_review, "cells_reviewed": summary.reviewed, "cells_corrected": summary.corrected,
        "notice": RESEARCH_USE,
    }  # fmt: skip
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode("ascii")


def row_json(row: Row) -> dict[str, Any]:
    """A row of the differential with the rows below it."""
    return {
        "name": row.name, "count": row.count, "percent": row.percent, "low": row.low, "high": row.high,
        "parts": [row_json(part) for part in row.parts],
    }  # fmt: skip


def differential_csv(summary: Summary) -> Iterator[bytes]:
    """``differential.csv``: a heading, one row of the table each, empty where a class is not reported; no text in it can become
    a formula of a spreadsheet."""
    signer = summary.signature.name if summary.signature else ""
    about = [summary.id, summary.slide.specimen, summary.slide.slide, summary.state.value, signer]
    head = [
        "session",
        "specimen",
        "slide",
        "state",
        "signed_by",
        "name",
        "part_of",
        "count",
        "percent",
        "low",
        "high",
        "per_100",
    ]
    yield csv_row([*head, "notice"])
    for row in summary.table.rows:
        for part, parent in ((row, ""), *((part, row.name) for part in row.parts)):
            ends = [None if end is None else round(end, 2) for end in (part.low, part.high)]
            yield csv_row([*about, part.name, parent, part.count, part.percent, *ends, None, RESEARCH_USE])
    for beside in summary.table.outside:
        per_100 = None if beside.per_100 is None else round(beside.per_100, 2)
        yield csv_row([*about, beside.name, "", beside.count, None, None, None, per_100, RESEARCH_USE])


def _last_reason(log: tuple[AuditRow, ...]) -> tuple[str, str]:
    for row in reversed(log):
        if row.action in ("amended", "abandoned"):
            return row.actor, row.payload["reason"]
    return "", ""
