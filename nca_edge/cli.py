"""The command line: a command parses, calls the library, prints. Heavy imports happen inside the commands."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

import io
import json
import signal
import sys
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from nca_edge import RESEARCH_USE, __version__
from nca_edge.errors import MissingExtraError, NcaEdgeError, UsageError
from nca_edge.formats import FORMATS, named
from nca_edge.terminal import bar, print_json, printable, say, silence

if TYPE_CHECKING:
    from nca_edge.classifier import ModelChoice

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM, as shells have it."""

app = typer.Typer(
    name="nca-edge",
    help=f"White blood cells at the microscope, offline: found, named, explained, counted. {RESEARCH_USE}",
    epilog="Exit codes: 0 done, 1 done with failures (listed), 2 wrong use, 3 a model that cannot be trusted, 130 stopped.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
models_app = typer.Typer(help="Show and check model bundles.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(models_app, name="models")


class Device(str, Enum):
    """Choices of --device."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class BackendName(str, Enum):
    """Choices of --backend."""

    auto = "auto"
    onnx = "onnx"
    litert = "litert"
    numpy = "numpy"


class PrecisionName(str, Enum):
    """Choices of --precision."""

    fp32 = "fp32"
    int8 = "int8"


_either = " or ".join(form.name for form in FORMATS)
Model = Annotated[str | None, typer.Option(help="Model bundle: a shipped name or a folder.", metavar="NAME|DIR")]
Backend = Annotated[BackendName, typer.Option(help="Who computes the model.")]
Precision = Annotated[PrecisionName, typer.Option(help="Which variant of the model.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: what this board's profile says.", metavar="N", min=0, max=256)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output and nothing else.")]
UmPerPx = Annotated[float | None, typer.Option(help="Scale of the images in um per pixel; without it, estimated.", metavar="X")]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"nca-edge {__version__}")
        raise typer.Exit


@app.command()
def run(
    source: Annotated[Path, typer.Argument(help="A field or a folder of fields (images).", metavar="SOURCE")],
    out: Annotated[Path | None, typer.Option(help="New session folder; default ./sessions/SOURCE-N.", metavar="DIR")] = None,
    session: Annotated[
        Path | None, typer.Option(help="Go on with this session; its fields are not read again.", metavar="DIR")
    ] = None,
    um_per_px: UmPerPx = None,
    target: Annotated[int | None, typer.Option(help="Stop at N counted leukocytes.", metavar="N", min=1)] = None,
    model: Model = None,
    backend: Backend = BackendName.auto,
    precision: Precision = PrecisionName.fp32,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Find, name, explain and count the white cells of fields, into a session folder with a report."""
    from nca_edge import runner

    _check_scale(um_per_px)
    request = runner.RunRequest(source, out, session, um_per_px, target, _choice(model, backend, precision, threads))
    if as_json:
        outcome = runner.run(request, lambda reading, done, total: print_json(runner.reading_json(reading)), say)
        print_json(runner.summary_json(outcome))
    else:
        outcome = runner.run(request, _progress, say)
        typer.echo(runner.summary_text(outcome))
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if outcome.failed else 0)


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(help="Images of one white cell each.", metavar="IMAGES...")],
    um_per_px: UmPerPx = None,
    masks: Annotated[
        Path | None, typer.Option(help="Write one mask PNG per image here: 0, 128 cell, 255 nucleus.", metavar="DIR")
    ] = None,
    model: Model = None,
    backend: Backend = BackendName.auto,
    precision: Precision = PrecisionName.fp32,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Name single-cell images; folders are searched for images."""
    from nca_edge import crops

    _check_scale(um_per_px)
    rows = crops.classify(images, _choice(model, backend, precision, threads), um_per_px, masks)
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
            typer.echo(f"{printable(row['file'])}\t{row['label']}\t{row['confidence']:.3f}\t{scale}{unsure}")
    say(RESEARCH_USE)
    raise typer.Exit(1 if failed else 0)


@app.command()
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
    model: Model = None,
    backend: Backend = BackendName.auto,
    precision: Precision = PrecisionName.fp32,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a model on labelled crops: accuracy, macro-F1, recall by class with 95 % intervals, confusion, calibration."""
    from nca_edge import crops

    _check_scale(um_per_px)
    request = crops.EvaluateRequest(data, um_per_px, _read_map(map_file), fold)
    outcome = crops.evaluate(request, _choice(model, backend, precision, threads), bar)
    for failure in outcome.failures:
        say(failure)
    if outcome.skipped:
        say("left out, no class of this model: " + ", ".join(f"{label} ({n})" for label, n in outcome.skipped.items()))
    if as_json:
        print_json(outcome.to_json())
    else:
        typer.echo(crops.evaluation_text(outcome))
    raise typer.Exit(1 if outcome.failures else 0)


@app.command()
def bench(
    board: Annotated[
        str | None, typer.Option(help="Also predict for this board; see nca-edge devices.", metavar="NAME")
    ] = None,
    sustained: Annotated[float, typer.Option(help="Then run without a pause for so long.", metavar="MIN", min=0)] = 0.0,
    data: Annotated[Path | None, typer.Option(help="Labelled crops: adds the accuracy.", metavar="PATH")] = None,
    um_per_px: UmPerPx = None,
    out: Annotated[Path | None, typer.Option(help="Write the result here as JSON.", metavar="FILE")] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the result here as PNG.", metavar="FILE")] = None,
    model: Model = None,
    backend: Backend = BackendName.auto,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Latency on this board: each backend and precision, by stage, with memory, share of the CPU's peak and agreement."""
    from nca_edge.bench import command, report

    _check_scale(um_per_px)
    choice = _choice(model, backend, PrecisionName.fp32, threads)
    result = command.bench(command.BenchRequest(choice, board, sustained_min=sustained, data=data, um_per_px=um_per_px), say)
    if out is not None:
        command.write(result, out)
    if chart is not None:
        report.chart(result, chart)
    if as_json:
        print_json(result)
    else:
        typer.echo(report.text(result))
    raise typer.Exit(0 if all(row["valid"] for row in result["results"]) else 1)


@app.command()
def report(session: Annotated[Path, typer.Argument(help="A session folder.", metavar="SESSION")]) -> None:
    """Rebuild report.html, cells.jsonl, fields.jsonl and cells.csv from a session's database."""
    from nca_edge.report import write_report
    from nca_edge.session import Session

    with Session.open(session) as opened:
        opened.export()
    typer.echo(write_report(session))


@app.command()
def devices(as_json: AsJson = False) -> None:
    """List known boards and say which one this is."""
    from dataclasses import asdict

    from nca_edge.profiles import detect_board, load_profiles

    profiles = load_profiles()
    here = detect_board(profiles)
    if as_json:
        print_json({"detected": here.name, "boards": [asdict(profile) for profile in profiles]})
        return
    for profile in profiles:
        mark = "*" if profile.name == here.name else " "
        typer.echo(f"{mark} {profile.name:<18} {profile.title}{'' if profile.supported else '  (not supported)'}")
    typer.echo("* this machine")


@app.command()
def doctor(
    folder: Annotated[Path, typer.Option("--out", help="Where sessions are to be written.", metavar="DIR")] = Path("sessions"),
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """What is wrong here, and the command that mends it: board, Python, backends, camera, clock, disk, power."""
    from dataclasses import asdict

    from nca_edge.doctor import BAD, examine

    findings = examine(folder, model)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for f in findings:
            typer.echo(f"{f.state:<5} {f.what:<20} {printable(f.says)}")
            if f.mend:
                typer.echo(f"{'':<26} mend: {printable(f.mend)}")
    raise typer.Exit(1 if any(f.state == BAD for f in findings) else 0)


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the shipped bundles."""
    from nca_edge.bundle import load_bundle, shipped_models

    rows: list[dict[str, Any]] = []
    for path in sorted(shipped_models().glob("*/manifest.json")):
        m = load_bundle(path.parent).manifest
        rows.append({"name": m.name, "classes": list(m.classes), "parameters": m.architecture.parameters, "metrics": m.metrics})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['name']}\t{row['parameters']} parameters\t{len(row['classes'])} classes: {', '.join(row['classes'])}")


@models_app.command("verify")
def models_verify(
    model: Annotated[
        str | None, typer.Argument(help="A shipped name or a folder; default: the shipped model.", metavar="NAME|DIR")
    ] = None,
) -> None:
    """Check every hash of a bundle, and that each backend reproduces its golden cells."""
    from nca_edge.backends import BACKENDS
    from nca_edge.bundle import find_bundle, load_bundle
    from nca_edge.classifier import ModelChoice, load

    bundle = load_bundle(find_bundle(model))
    known = sorted(variant for variant in bundle.file_of() if variant[0] in BACKENDS)
    for backend, precision in [("numpy", "fp32"), *known]:  # the reference first: all others were compared with it
        try:
            load(ModelChoice(model, backend, precision))
        except MissingExtraError as error:
            say(f"{bundle.manifest.name}: {backend} {precision} not tried: {error}")
            continue
        typer.echo(f"{bundle.manifest.name}: {backend} {precision} reproduces the golden cells")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe: a TOML file or the name of a shipped one.", metavar="RECIPE")],
    data: Annotated[Path, typer.Option(help="Labelled images with folds: manifest.csv (file,label,fold).", metavar="DIR")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default ./runs/RECIPE-N.", metavar="RUN")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    max_minutes: Annotated[float, typer.Option(help="Stop when these have passed; go on with --resume.", metavar="M")] = float(
        "inf"
    ),
    fold: Annotated[int, typer.Option(help="Fold that validates.", metavar="K")] = 3,
    seed: Annotated[int, typer.Option(help="Of everything random.", metavar="S")] = 0,
    init: Annotated[Path | None, typer.Option(help="Begin with the weights of this run.", metavar="RUN")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Learn from the teacher of this run.", metavar="RUN")] = None,
    device: Annotated[Device, typer.Option(help="Where it is computed; auto takes a GPU where there is one.")] = Device.auto,
    threads: Threads = 0,
) -> None:
    """Train a model on a workstation (needs the train extra); under torchrun on several GPUs or hosts."""
    loop = _stand("nca_train.loop", "train", "training")
    load_recipe = _stand("nca_train.recipe", "train", "training").load_recipe
    chosen = load_recipe(recipe)
    if resume and out is None:
        raise UsageError("--resume needs --out RUN: which run shall go on?")
    folder = out or _numbered(Path("runs"), chosen.name)
    job = loop.Job(chosen, data, folder, fold, seed, resume, max_minutes, threads, init, device.value, teacher)
    typer.echo(loop.train(job, say, bar))


@app.command()
def export(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A run, a bundle or a released .pt; default: the newest run in ./runs, else the shipped model.",
            metavar="[RUN]",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data of the run: calibrates and measures the model.", metavar="DIR")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Bundle folder; default ./bundles/NAME.", metavar="DIR")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also in 8 bits.")] = False,
    form: Annotated[
        list[str] | None, typer.Option("--format", help=f"Only {_either}; may be repeated.", metavar="NAME")
    ] = None,
    mask_step: Annotated[
        int | None, typer.Option(help="Step whose state gives the masks; default the last.", metavar="N")
    ] = None,
) -> None:
    """Export a run, a bundle or released weights to a verified bundle (needs the export extra)."""
    exporter = _stand("nca_export.bundle", "export", "exporting")
    names = tuple(dict.fromkeys(named(name).name for name in form or ()))
    typer.echo(exporter.export(exporter.Request(source, data, out, names, int8, mask_step), say))


def main() -> None:
    """Entry point: errors become one sentence on stderr and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what is no text
    try:
        app()
    except NcaEdgeError as error:
        say(str(error))
        sys.exit(error.exit_code)
    except SystemExit as done:
        if done.code == INTERRUPTED:  # typer makes this of Ctrl-C, without a word
            say("Stopped.")
        raise
    except KeyboardInterrupt:
        say("Stopped.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        silence(sys.stdout)  # whoever read us is gone: nothing to tell
        sys.exit(1)
    except OSError as error:
        say(f"{error.filename or 'output'}: {error.strerror or error}; check the path, its permissions and the disk.")
        silence(sys.stdout)  # it may be what cannot be written
        sys.exit(1)


def _terminate(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _choice(model: str | None, backend: BackendName, precision: PrecisionName, threads: int) -> "ModelChoice":
    from nca_edge.classifier import ModelChoice

    return ModelChoice(model, backend.value, precision.value, threads)


def _check_scale(um_per_px: float | None) -> None:
    if um_per_px is not None and not 0.01 <= um_per_px <= 2:
        raise UsageError(f"--um-per-px {um_per_px:g}: a microscope gives 0.01 to 2 um per pixel; check the unit.")


def _read_map(path: Path | None) -> dict[str, str | None]:
    if path is None:
        return {}
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--map {path}: cannot be read as JSON ({error}); mend the file.") from error
    if not isinstance(table, dict) or not all(value is None or isinstance(value, str) for value in table.values()):
        raise UsageError(f"--map {path}: must be one object of texts, {{data label: class, group or null}}.")
    return table


def _stand(module: str, extra: str, what: str) -> Any:
    """Import a package that stands above the runtime, or say which extra brings what it needs."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(extra, what) from error


def _numbered(parent: Path, name: str) -> Path:
    return next(parent / f"{name}-{n}" for n in range(1, 10**6) if not (parent / f"{name}-{n}").exists())


def _progress(reading: Any, done: int, total: int) -> None:
    bar(done, total)
