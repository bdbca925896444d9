"""Commands that look at cells: run, classify, evaluate, report."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nca_edge import RESEARCH_USE
from nca_edge.cli.microscope import INTERRUPTED, live_run, source_of
from nca_edge.cli.options import (
    AsJson,
    Backend,
    BackendName,
    CalibrationFile,
    Camera,
    Model,
    Out,
    Passes,
    Precision,
    PrecisionName,
    SessionPrecision,
    Target,
    Threads,
    UmPerPx,
    check_scale,
    choice,
    refuse_calibration,
)
from nca_edge.errors import UsageError
from nca_edge.terminal import bar, print_json, printable, say


def run(
    source: Annotated[
        str | None, typer.Argument(help="A field, a folder of fields, a video, or a camera such as v4l2:0.", metavar="SOURCE")
    ] = None,
    camera: Camera = False,
    out: Out = None,
    session: Annotated[
        Path | None, typer.Option(help="Go on with this session; its fields are not read again.", metavar="DIR")
    ] = None,
    um_per_px: UmPerPx = None,
    target: Target = None,
    calibration: CalibrationFile = None,
    operator: Annotated[str, typer.Option(help="Who counts, for a camera's session.", metavar="NAME")] = "",
    model: Model = None,
    backend: Backend = BackendName.auto,
    precision: SessionPrecision = None,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Find, name, explain and count the white cells of fields or of a camera, into a session folder with a report."""
    from nca_edge import runner
    from nca_edge.camera import is_live

    check_scale(um_per_px)
    named, chosen = source_of(source, camera), choice(model, backend, precision, threads)
    if is_live(named):
        from nca_edge.live import LiveRequest

        asked = LiveRequest(named, out, session, um_per_px, target, chosen, calibration, operator)
        raise typer.Exit(live_run(asked, as_json))
    refuse_calibration(calibration)
    request = runner.RunRequest(Path(named), out, session, um_per_px, target, chosen)
    if as_json:
        outcome = runner.run(request, lambda reading, done, total: print_json(runner.reading_json(reading)), say)
        print_json(runner.summary_json(outcome))
    else:
        outcome = runner.run(request, _progress, say)
        typer.echo(runner.summary_text(outcome))
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if outcome.failed else 0)


def classify(
    images: Annotated[list[Path], typer.Argument(help="Images of one white cell each.", metavar="IMAGES...")],
    um_per_px: UmPerPx = None,
    masks: Annotated[
        Path | None, typer.Option(help="Write one mask PNG per image here: 0, 128 cell, 255 nucleus.", metavar="DIR")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(help="Write one figure per image here: mask, channels, relevance, sizes.", metavar="DIR")
    ] = None,
    animate: Annotated[bool, typer.Option("--animate", help="With --explain: the channels over the steps, as GIF.")] = False,
    label: Annotated[
        str | None, typer.Option("--class", help="Explain this class, not the one that the model names.", metavar="CLASS")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Explain why the class and not this one.", metavar="CLASS")] = None,
    passes: Passes = 0,
    model: Model = None,
    backend: Backend = BackendName.auto,
    precision: Precision = PrecisionName.fp32,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Name single-cell images; folders are searched for images."""
    from nca_edge import crops
    from nca_edge.crop_files import Wishes
    from nca_edge.explain import Question

    check_scale(um_per_px)
    wishes = Wishes(masks, explain, animate, Question(label, against))
    rows = crops.classify(images, choice(model, backend, precision, threads, passes), um_per_px, wishes)
    failed = 0
    for row in rows:
        failed += "error" in row
        if as_json:
            print_json(row)
        elif "error" in row:
            say(f"{row['file']}: {row['error']}")
        else:
            scale = f"{row['um_per_px']:.4f} um/px ({row['scale_source']})"
            unsure = "  unsure" if row["unsure"] else ""
            outside = "  relevance outside the cell" if row["rests_on_background"] else ""
            empty = f"  {row['no_cell']}" if "no_cell" in row else ""
            typer.echo(f"{printable(row['file'])}\t{row['label']}\t{row['confidence']:.3f}\t{scale}{unsure}{outside}{empty}")
    say(RESEARCH_USE)
    raise typer.Exit(1 if failed else 0)


def evaluate(
    data: Annotated[
        Path, typer.Option(help="Labelled crops: manifest.csv (file,label[,fold]) or a sub-folder per class.", metavar="PATH")
    ],
    um_per_px: UmPerPx = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="JSON: {data label: class, group or null}.", metavar="FILE")
    ] = None,
    fold: Annotated[
        str | None, typer.Option(help="Only this fold of the manifest, or half of it: 3 or 3b.", metavar="K")
    ] = None,
    explanations: Annotated[
        bool, typer.Option("--explanations", help="Also: deletion curves, where relevance peaks, which channels stay.")
    ] = False,
    passes: Passes = 0,
    model: Model = None,
    backend: Backend = BackendName.auto,
    precision: Precision = PrecisionName.fp32,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a model on labelled crops: accuracy, macro-F1, recall by class with 95 % intervals, confusion, calibration."""
    from nca_edge import crops

    check_scale(um_per_px)
    request = crops.EvaluateRequest(data, um_per_px, _read_map(map_file), fold, explanations)
    outcome = crops.evaluate(request, choice(model, backend, precision, threads, passes), bar)
    for failure in outcome.failures:
        say(failure)
    if outcome.skipped:
        say("left out, no class of this model: " + ", ".join(f"{label} ({n})" for label, n in outcome.skipped.items()))
    if as_json:
        print_json(outcome.to_json())
    else:
        typer.echo(crops.evaluation_text(outcome))
    raise typer.Exit(1 if outcome.failures else 0)


def report(
    session: Annotated[Path, typer.Argument(help="A session folder.", metavar="SESSION")],
    out: Annotated[Path | None, typer.Option(help="Write here; default: into the session.", metavar="DIR")] = None,
    fhir: Annotated[bool, typer.Option("--fhir", help="Also report.fhir.json, a FHIR R4 Bundle.")] = False,
    outbox: Annotated[
        Path | None,
        typer.Option(help="Also deliver FHIR and CSV into a folder that a laboratory system watches.", metavar="DIR"),
    ] = None,
    flags: Annotated[Path | None, typer.Option(help="The laboratory's limits of flags, a TOML file.", metavar="FILE")] = None,
    language: Annotated[str, typer.Option(help="Of report.html: en, fr, es, pt or sw.")] = "en",
) -> None:
    """Rebuild report.html, report.json, differential.csv and the lists of cells and fields from a session's database."""
    from nca_edge.outbox import Outputs, write_outputs

    for path in write_outputs(session, Outputs(out, fhir, outbox, flags, language)):
        typer.echo(path)


def _read_map(path: Path | None) -> dict[str, str | None]:
    if path is None:
        return {}
    try:
        table = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--map {path}: cannot be read as JSON ({error.strerror}); give a file.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--map {path}: cannot be read as JSON ({error}); mend the file.") from error
    if not isinstance(table, dict) or not all(value is None or isinstance(value, str) for value in table.values()):
        raise UsageError(f"--map {path}: must be one object of texts, {{data label: class, group or null}}.")
    return table


def _progress(reading: Any, done: int, total: int) -> None:
    bar(done, total)
