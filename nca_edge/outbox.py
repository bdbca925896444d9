"""Files for other programs: written beside the report, or into a folder that a laboratory system watches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nca_edge.errors import UsageError
from nca_edge.fhir import fhir_bundle, status
from nca_edge.flags import load_rules
from nca_edge.i18n import LANGUAGES
from nca_edge.report import render_report
from nca_edge.session import Session, replace_file
from nca_edge.session.database import DATABASE
from nca_edge.session.derived import REPORT_HTML
from nca_edge.session.faults import storage
from nca_edge.summary import DIFFERENTIAL_CSV, REPORT_JSON, Summary, differential_csv, report_json, summarize

REPORT_FHIR = "report.fhir.json"


@dataclass(frozen=True, slots=True)
class Outputs:
    """What ``nca-edge report`` was asked for."""

    to: Path | None = None
    """Folder of the files; None: the session's own."""
    fhir: bool = False
    """Also the FHIR Bundle."""
    outbox: Path | None = None
    """Folder that a laboratory system watches; None: none."""
    flags: Path | None = None
    """The laboratory's own limits; None: those of nca-edge."""
    language: str = "en"
    """Of report.html; what machines read is the same in every language."""


def write_outputs(folder: Path, asked: Outputs) -> list[Path]:
    """Write what a session has to say; nothing in the session is changed.

    Returns
    -------
    list of Path
        The report first, then what else was asked for by name.

    Raises
    ------
    UsageError
        The flags' file cannot be used, or the folder of the files is that of another session.
    """
    if asked.language not in LANGUAGES:
        raise UsageError(f"--language {asked.language}: known are {', '.join(LANGUAGES)}.")
    rules, to = load_rules(asked.flags), asked.to or folder
    _refuse_other_session(folder, to)
    for option, place in (("--out", to), ("--outbox", asked.outbox)):
        if place is not None and place.is_file():
            raise UsageError(f"{option} {place}: is a file; give a folder.")
    with Session.open(folder, read_only=True) as session, session.snapshot():
        summary = summarize(session, rules)
        with storage(to):
            to.mkdir(parents=True, exist_ok=True)
        session.export(to)
        with storage(to):
            replace_file(to / REPORT_JSON, [report_json(summary)])
            replace_file(to / DIFFERENTIAL_CSV, differential_csv(summary))
            if asked.fhir:
                replace_file(to / REPORT_FHIR, [fhir_bundle(summary)])
            replace_file(to / REPORT_HTML, render_report(session, rules, asked.language))
    written = [to / REPORT_HTML, *([to / REPORT_FHIR] if asked.fhir else [])]
    return written + (deliver(summary, asked.outbox) if asked.outbox is not None else [])


def deliver(summary: Summary, outbox: Path) -> list[Path]:
    """Put a session's result where a laboratory system fetches it.

    The name tells the session, the number of its last change and the status, so that the same result has the same name and the
    same bytes however often it is delivered, and later ones sort behind earlier ones. A file appears whole: it is written and
    synced under a name that ends in ``.part``, then renamed.
    """
    stem = f"{summary.id}-{summary.sequence:06d}-{status(summary)}"
    contents = {f"{stem}.fhir.json": fhir_bundle(summary), f"{stem}.csv": b"".join(differential_csv(summary))}
    with storage(outbox):
        outbox.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            path = outbox / name
            if not path.is_file() or path.read_bytes() != content:
                replace_file(path, [content])
    return [outbox / name for name in contents]


def _refuse_other_session(folder: Path, to: Path) -> None:
    if (to / DATABASE).exists() and not to.samefile(folder):
        raise UsageError(f"{to} holds another session, whose files would be overwritten: give another folder to --out.")
