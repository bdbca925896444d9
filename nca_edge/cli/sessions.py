"""Commands about sessions: verify, list, state, describe, sign, abandon, compare, prune."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

from pathlib import Path
from typing import Annotated, Any

import typer

from nca_edge import RESEARCH_USE
from nca_edge.cli.options import AsJson
from nca_edge.errors import NcaEdgeError, UsageError
from nca_edge.terminal import print_json, printable, say

sessions_app = typer.Typer(help="Look after sessions.", rich_markup_mode=None, no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="A session folder.", metavar="SESSION")]


@sessions_app.command("verify")
def verify(
    folder: Folder,
    head: Annotated[
        str | None, typer.Option(help="The head printed on a report; default: the report's in the folder.", metavar="HASH")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a session's database, its pictures and the chain of its audit log."""
    from dataclasses import asdict

    from nca_edge.session.verify import verify

    found = verify(folder, head)
    if as_json:
        print_json({"session": str(folder), "sound": not found.problems, **asdict(found)})
    else:
        for problem in found.problems:
            typer.echo(printable(problem))
        kept = f"{found.rows} rows of the audit log, {found.fields} fields, {found.cells} cells"
        typer.echo(f"{kept}: {'sound' if not found.problems else 'NOT SOUND'}. head {found.head}")
    raise typer.Exit(1 if found.problems else 0)


@sessions_app.command("state")
def state(folder: Folder, as_json: AsJson = False) -> None:
    """Where a session stands, and what keeps it from being signed."""
    from nca_edge.session import Session

    with Session.open(folder, read_only=True) as session:
        facts = _facts(session)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        typer.echo(f"{name:<14} {printable(str(value)) if value not in (None, '') else '-'}")


@sessions_app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="A folder of sessions.", metavar="DIR")] = Path("sessions"),
    as_json: AsJson = False,
) -> None:
    """List the sessions in a folder."""
    from nca_edge.session import Session

    check_folder(folder)
    rows: list[dict[str, Any]] = []
    failed = 0
    for database in sorted(folder.glob("*/session.db")):
        try:
            with Session.open(database.parent, read_only=True) as session:
                rows.append(_facts(session))
        except NcaEdgeError as error:
            failed += 1
            say(str(error))
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            signed = f"  signed by {row['signed_by']}" if row["signed_by"] else ""
            of = f"{row['cells']} cells, {row['unreviewed']} unreviewed"
            typer.echo(printable(f"{Path(row['session']).name:<24} {row['state']:<10} {of}{signed}"))
    if not rows and not failed:
        say(f"{folder}: holds no session.")
    raise typer.Exit(1 if failed else 0)


@sessions_app.command("describe")
def describe(
    folder: Folder,
    by: Annotated[str, typer.Option(help="Who says so.", metavar="NAME")],
    specimen: Annotated[str | None, typer.Option(help="The laboratory's number of the specimen.", metavar="TEXT")] = None,
    slide: Annotated[str | None, typer.Option(help="The slide's label.", metavar="TEXT")] = None,
    operator: Annotated[str | None, typer.Option(help="Who counts.", metavar="NAME")] = None,
    target: Annotated[int | None, typer.Option(help="Leukocytes to count.", metavar="N", min=1)] = None,
) -> None:
    """Say of which specimen and slide a session is, who counts and how far; what is not given stays."""
    from dataclasses import replace

    from nca_edge.session import Session

    given: dict[str, Any] = {"specimen": specimen, "slide": slide, "operator": operator, "target": target}
    with Session.open(folder) as session:
        session.describe(replace(session.slide, **{name: value for name, value in given.items() if value is not None}), by)


@sessions_app.command("sign")
def sign(folder: Folder, name: Annotated[str, typer.Option(help="Who signs.", metavar="NAME")]) -> None:
    """Put a name to a session whose every cell is reviewed and identified."""
    from nca_edge.report import write_report
    from nca_edge.session import Session

    with Session.open(folder) as session:
        signature = session.sign(name)
        session.export()
        write_report(folder)
    typer.echo(f"signed by {printable(signature.name)}, revision {signature.revision}, head {signature.head}")


@sessions_app.command("abandon")
def abandon(
    folder: Folder,
    by: Annotated[str, typer.Option(help="Who gives it up.", metavar="NAME")],
    reason: Annotated[str, typer.Option(help="Why.", metavar="TEXT")],
) -> None:
    """Give a session up for ever, with a reason; it stays readable."""
    from nca_edge.session import Session

    with Session.open(folder) as session:
        session.abandon(by, reason)
    typer.echo(f"abandoned: {printable(str(folder))}")


@sessions_app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="The first reader's session.", metavar="FIRST")],
    second: Annotated[Path, typer.Argument(help="The second reader's session.", metavar="SECOND")],
    as_json: AsJson = False,
) -> None:
    """Compare two readers of one slide, row by row, by the limits of Ruemke; exit code 1 where they differ."""
    from dataclasses import asdict

    from nca_edge.comparison import compare
    from nca_edge.report import count

    rows = compare(count(first), count(second))
    if as_json:
        print_json([{**asdict(row), "agree": row.agree} for row in rows])
    else:
        typer.echo(f"{'':<24}{'first':>7}{'second':>8}{'second %':>10}   limits of the first, %")
        for row in rows:
            word = "" if row.agree else "   outside"
            typer.echo(f"{row.name:<24}{row.first:>7}{row.second:>8}{row.percent:>10.1f}   {row.low} - {row.high}{word}")
        if not rows:
            typer.echo("Nothing to compare: one of them holds no leukocyte.")
        typer.echo(RESEARCH_USE)
    raise typer.Exit(1 if not rows or not all(row.agree for row in rows) else 0)


@sessions_app.command("prune")
def prune(
    older_than: Annotated[float, typer.Option(help="Days since the signature.", metavar="DAYS", min=1)],
    folder: Annotated[Path, typer.Argument(help="A folder of sessions.", metavar="DIR")] = Path("sessions"),
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would be deleted.")] = False,
) -> None:
    """Delete sessions that were signed long ago and are sound; what is not signed is never deleted."""
    from nca_edge.session.retention import delete, look

    check_folder(folder)
    rows = look(folder, older_than)
    for row in rows:
        if not row.why and yes:
            delete(row.folder, older_than)
        word = row.why or ("deleted" if yes else "would be deleted")
        typer.echo(printable(f"{row.folder.name:<24} {row.size_bytes / 1e6:>8.1f} MB  {word}"))
    room = sum(row.size_bytes for row in rows if not row.why) / 1e6
    typer.echo(f"{room:.1f} MB {'were freed' if yes else 'would be freed; --yes deletes'}.")


def check_folder(folder: Path) -> None:
    """UsageError where there is no such folder of sessions."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the one that holds the sessions.")


def _facts(session: Any) -> dict[str, Any]:
    cells, signature, slide = list(session.cells()), session.signature, session.slide
    return {
        "session": str(session.folder), "id": session.id, "state": session.state.value, "begun": session.created_at,
        "specimen": slide.specimen, "slide": slide.slide, "operator": slide.operator, "target": slide.target,
        "bundle": session.facts.bundle, "cells": len(cells), "counted": sum(cell.verdict.counted for cell in cells),
        "unreviewed": sum(cell.in_scope and not cell.reviewed for cell in cells),
        "unidentified": sum(cell.verdict.counted and cell.verdict.unsure for cell in cells),
        "corrected": sum(cell.corrected for cell in cells),
        "signed_by": signature.name if signature else None, "revision": signature.revision if signature else None,
        "head": session.head,
    }  # fmt: skip
