"""`nca-edge run`: fields into a session, one commit a field, whatever happens in between."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nca_edge import RESEARCH_USE, watchdog
from nca_edge.camera import field_name, file_frames, list_images
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.differential import Differential, differential
from nca_edge.errors import UsageError
from nca_edge.pipeline import observe
from nca_edge.records import Reading
from nca_edge.report import write_report
from nca_edge.session import Session, SlideFacts, State
from nca_edge.session.audit import SOFTWARE
from nca_edge.session.disk import LOW_BYTES


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for."""

    source: Path
    """A field or a folder of fields."""
    out: Path | None
    """New session folder; None: the first free ``./sessions/SOURCE-N``."""
    session: Path | None
    """Existing session to go on with."""
    um_per_px: float | None
    target: int | None
    """Stop at so many counted leukocytes; None: read everything."""
    choice: ModelChoice


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What became of it."""

    folder: Path
    """The session."""
    report: Path
    fields: int
    """Committed in the session, all told."""
    rejected: int
    """Of these, by the quality gate."""
    failed: int
    """Of these, unreadable."""
    interrupted: bool
    """Stopped before the source ended."""
    table: Differential


def run(request: RunRequest, show: Callable[[Reading, int, int], None], say: Callable[[str], None]) -> RunOutcome:
    """Read every field of the source that the session does not hold yet.

    Parameters
    ----------
    show : called with each committed reading, how many are done and how many there are
    say : called with sentences for a person

    Raises
    ------
    UsageError, BundleError, StorageError
        Before a field was read; later only StorageError, and then what was committed is kept.
    """
    if request.out is not None and request.session is not None:
        raise UsageError("--out begins a session and --session goes on with one: give one of them.")
    paths = list_images(request.source)  # once: what appears in the folder from now on belongs to the next call
    with open_session(request) as (session, classifier):
        interrupted = False
        _note_target(session, request.target)
        try:
            say(f"session: {session.folder}")
            watchdog.ready()
            done = session.fields_done()
            todo = [path for path in paths if field_name(request.source, path) not in done]
            if len(todo) < len(paths):
                n = len(paths) - len(todo)
                say(f"{n} of {len(paths)} fields are in the session already, by name, and are not read again.")
            for number, reading in enumerate(_readings(request, session, classifier, todo, say), start=1):
                if reading.failed:
                    say(f"{reading.field}: {reading.reasons[0]}")
                show(reading, number, len(todo))
                watchdog.alive()
        except KeyboardInterrupt:
            interrupted = True
            say(f"What was read is kept; go on with: {_resume_command(request, session)}")
        watchdog.stopping()
        try:
            return finish(session, interrupted)
        except KeyboardInterrupt:
            say(f"The report was not written; write it with: {shlex.join(['nca-edge', 'report', str(session.folder)])}")
            raise


def _readings(
    request: RunRequest, session: Session, classifier: Classifier, paths: list[Path], say: Callable[[str], None]
) -> Iterator[Reading]:
    """Read, commit and yield fields until they end or the target is reached."""
    known = [f.um_per_px for f in session.fields() if f.scale_source == "red_cells" and f.um_per_px is not None]
    count = _Count(session)
    if count.reached(request.target):
        say(f"The session has {count.n} leukocytes already, as many as --target {request.target} asks for: nothing is read.")
        return
    told = False
    for reading in observe(file_frames(request.source, paths), classifier, session.facts.um_per_px, known):
        session.commit(reading)
        yield reading
        if not told and session.free_bytes < LOW_BYTES:
            told = True
            say(f"Only {session.free_bytes / 1e6:.0f} MB are free on the disk of {session.folder}: make room soon.")
        count.add(reading)
        if count.reached(request.target):
            say(f"The target of {request.target} leukocytes is reached.")
            return


def finish(session: Session, interrupted: bool) -> RunOutcome:
    """Write what is derived from the database, and count; a source that was read to its end ends the count."""
    if not interrupted and session.state is State.COUNTING:
        session.begin_review()
    session.export()
    report = write_report(session.folder)
    fields = list(session.fields())
    table = differential(session.verdicts(), session.facts.classes, session.facts.groups)
    failed = sum(field.failed for field in fields)
    rejected = sum(not field.accepted and not field.failed for field in fields)
    return RunOutcome(session.folder, report, len(fields), rejected, failed, interrupted, table)


def _note_target(session: Session, target: int | None) -> None:
    """Keep the latest target with the session, where it can still change: the report says when fewer cells were counted."""
    if target not in (None, session.slide.target) and session.state in (State.OPEN, State.COUNTING, State.REVIEW):
        session.describe(replace(session.slide, target=target), SOFTWARE)


def _resume_command(request: RunRequest, session: Session) -> str:
    """What a person types to go on, ready for the shell."""
    words = ["nca-edge", "run", str(request.source), "--session", str(session.folder)]
    words += ["--model", request.choice.model] if request.choice.model else []
    words += ["--target", str(request.target)] if request.target else []
    return shlex.join(words)


class open_session:
    """The session with the classifier it is bound to, closed at the end."""

    def __init__(self, request: RunRequest, slide: SlideFacts | None = None) -> None:
        """``slide``: what is kept of a new session; None: its target alone."""
        choice, um_per_px = request.choice, request.um_per_px
        if request.session is not None:
            self.session = Session.open(request.session)
            facts = self.session.facts
            choice = replace(
                choice, model=choice.model or facts.bundle, threads=choice.threads or facts.threads,
                backend=facts.backend if choice.backend == "auto" else choice.backend,
                precision=facts.precision if choice.precision == "auto" else choice.precision,
            )  # fmt: skip
            um_per_px = um_per_px if um_per_px is not None else facts.um_per_px
            try:
                self.classifier = load(choice)
                self.session.require(self.classifier.facts(um_per_px))
            except BaseException:
                self.session.close()
                raise
        else:
            self.classifier = load(replace(choice, precision="fp32") if choice.precision == "auto" else choice)
            folder = request.out or _free_folder(request.source)
            self.session = Session.create(folder, self.classifier.facts(um_per_px), slide or SlideFacts(target=request.target))

    def __enter__(self) -> tuple[Session, Classifier]:
        return self.session, self.classifier

    def __exit__(self, *_: object) -> None:
        self.session.close()


class _Count:
    """Leukocytes counted so far: the session's, and those of each new reading."""

    def __init__(self, session: Session) -> None:
        self.rows = (session.facts.classes, session.facts.groups)
        self.n = differential(session.verdicts(), *self.rows).leukocytes

    def add(self, reading: Reading) -> None:
        cells = [_Cell(c.prediction.label, c.prediction.unsure, c.counted) for c in reading.cells]
        self.n += differential(cells, *self.rows).leukocytes

    def reached(self, target: int | None) -> bool:
        return target is not None and self.n >= target


@dataclass(frozen=True, slots=True)
class _Cell:
    label: str
    unsure: bool
    counted: bool


def _free_folder(source: Path) -> Path:
    whole = source.resolve()
    name = (whole.name if whole.is_dir() else whole.stem)[:60] or "fields"  # a folder's name may hold dots
    return next(folder for n in range(1, 10**6) if not (folder := Path("sessions") / f"{name}-{n}").exists())


def reading_json(reading: Reading) -> dict[str, Any]:
    """One field as a line of ``--json``."""
    return {
        "field": reading.field, "accepted": reading.accepted, "reasons": list(reading.reasons), "n_cells": len(reading.cells),
        "um_per_px": round(reading.scale.um_per_px, 6) if reading.scale else None,
        "cells": [
            {
                "cell": c.cell, "box": [c.detection.box.x, c.detection.box.y, c.detection.box.w, c.detection.box.h],
                "label": c.prediction.label, "confidence": round(c.prediction.confidence, 6), "unsure": c.prediction.unsure,
                "counted": c.counted, "border": c.detection.border,
            }
            for c in reading.cells
        ],
    }  # fmt: skip


def summary_json(outcome: RunOutcome) -> dict[str, Any]:
    """The last line of ``--json``."""
    rows = [{"name": r.name, "count": r.count, "percent": r.percent, "low": r.low, "high": r.high} for r in outcome.table.rows]
    outside = [{"name": r.name, "count": r.count, "per_100": r.per_100} for r in outcome.table.outside]
    return {
        "summary": {
            "session": str(outcome.folder), "report": str(outcome.report), "fields": outcome.fields,
            "rejected": outcome.rejected, "failed": outcome.failed, "interrupted": outcome.interrupted,
            "leukocytes": outcome.table.leukocytes, "rows": rows, "outside": outside, "artefacts": outcome.table.artefacts,
            "border": outcome.table.border, "blasts": outcome.table.blast_statement, "notice": RESEARCH_USE,
        }
    }  # fmt: skip


def summary_text(outcome: RunOutcome) -> str:
    """The plain table for people."""
    table = outcome.table
    fields = f"{outcome.fields} fields: {outcome.rejected} rejected, {outcome.failed} unreadable."
    lines = [
        f"{fields} {table.leukocytes} leukocytes counted.",
        "",
        f"{'':<24}{'count':>7}{'%':>6}   95 % interval",
    ]
    lines += list(_rows(table.rows, ""))
    for outside in table.outside:
        value = "not reported" if outside.count is None else f"{outside.count}"
        per = "" if outside.per_100 is None else f"   {outside.per_100:.1f} per 100 leukocytes"
        lines.append(f"{outside.name:<24}{value:>7}{per}")
    lines += [f"{'artefacts, not counted':<24}{table.artefacts:>7}", f"{'cut by the edge':<24}{table.border:>7}", ""]
    return "\n".join([*lines, table.blast_statement, f"report: {outcome.report}", RESEARCH_USE])


def _rows(rows: tuple[Any, ...], indent: str) -> Iterator[str]:
    for row in rows:
        name = indent + row.name
        if row.count is None:
            yield f"{name:<24}not reported"
            continue
        interval = "" if row.low is None else f"   {row.low:.1f} - {row.high:.1f}"
        percent = "" if row.percent is None else row.percent
        yield f"{name:<24}{row.count:>7}{percent:>6}{interval}"
        yield from _rows(row.parts, indent + "  ")
