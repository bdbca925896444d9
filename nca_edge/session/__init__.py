"""What is kept: one folder per session, with ``session.db`` as the truth and files that can be rebuilt from it.

**Open it.** ``Session.create(folder, facts, SlideFacts(...))`` begins one, ``Session.open(folder)`` goes on with it; one
process at a time, a second one is refused with the first one's process id. ``Session.open(folder, read_only=True)`` reads
beside it. Methods may be called from several threads. Every change is one transaction, on the disk when the method returns,
and adds a row to the audit log: ``session.audit_log()``, ``session.head``.

**States.** ``session.state`` is one of ``State``::

    OPEN --commit--> COUNTING --begin_review--> REVIEW --sign--> SIGNED --amend--> AMENDED --sign--> SIGNED ...
                         ^------------commit-------'
    OPEN, COUNTING, REVIEW, AMENDED --abandon--> ABANDONED

**Review**, in COUNTING, REVIEW and AMENDED. Cells are named by ``CellRow.id``, fields by ``FieldRow.name``, people by their
name (``by``; an empty one is refused). What is refused raises UsageError with the sentence to show.

- ``session.cells()``: each has ``label`` (the model's, for ever), ``human_label``, ``reviewed_by``, ``reviewed``,
  ``corrected``, ``voided``, ``in_scope`` (has to be reviewed) and ``verdict`` (label, unsure, counted: as it counts now).
- ``session.verdicts()``: what ``differential.differential`` counts.
- ``session.reclassify(cell, label, by)``: ``label`` is one of ``session.labels``.
- ``session.accept(cells, by) -> int``: reviewed, as the model said; a cell that has a verdict keeps it.
- ``session.void_field(field, by)``: the whole field counts no more.
- ``session.undo(by) -> str | None``: takes back the last of these three that still stands; None where nothing is left.
- ``session.review_queue() -> tuple[Queued(cell, why), ...]``: ``why`` is ``blast``, ``unsure``, ``rare`` or ``sample``, in this
  order; show each of these alone, all others in pages that ``accept`` takes whole.
- ``session.unreviewed()``, ``session.unidentified()``: the cells that keep the session from being signed.

**To its end.** ``session.begin_review(by)`` ends the count; ``session.sign(name) -> Signature``; ``session.amend(by, reason)``;
``session.abandon(by, reason)``. ``session.signature`` is the one that stands, ``session.signatures()`` are all of them.
``session.slide`` holds specimen, slide, operator, target and calibration, ``session.describe(slide, by)`` mends them.

Actions of the audit log: created, migrated, committed, described, review_begun, reclassified, accepted, voided, undone, signed,
amended, abandoned.
"""

from nca_edge.session.audit import AuditRow
from nca_edge.session.files import replace_file
from nca_edge.session.ledger import State
from nca_edge.session.people import SlideFacts
from nca_edge.session.queue import Queued
from nca_edge.session.rows import CellRow, FieldRow, TopChannel, Verdict
from nca_edge.session.signing import Signature
from nca_edge.session.store import Session

__all__ = [
    "AuditRow", "CellRow", "FieldRow", "Queued", "Session", "Signature", "SlideFacts", "State", "TopChannel", "Verdict",
    "replace_file",
]  # fmt: skip
