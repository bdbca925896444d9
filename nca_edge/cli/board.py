"""Commands about this board and its models: bench, devices, doctor, models."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nca_edge.cli.options import AsJson, Backend, BackendName, Model, PrecisionName, Threads, UmPerPx, check_scale, choice
from nca_edge.errors import UsageError
from nca_edge.terminal import print_json, printable, say

if TYPE_CHECKING:
    from nca_edge.bundle import Bundle

models_app = typer.Typer(help="Show, check and install model bundles.", rich_markup_mode=None, no_args_is_help=True)


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

    check_scale(um_per_px)
    for option, path in (("--out", out), ("--chart", chart)):
        if path is not None and path.is_dir():
            raise UsageError(f"{option} {path}: is a folder; give a file.")
    chosen = choice(model, backend, PrecisionName.fp32, threads)
    result = command.bench(command.BenchRequest(chosen, board, sustained_min=sustained, data=data, um_per_px=um_per_px), say)
    if out is not None:
        command.write(result, out)
    if chart is not None:
        report.chart(result, chart)
    if as_json:
        print_json(result)
    else:
        typer.echo(report.text(result))
    raise typer.Exit(0 if all(row["valid"] for row in result["results"]) else 1)


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
    """List the bundles that are known by name: the shipped ones and those installed here."""
    from nca_edge.bundle import known_models, load_bundle, shipped_models

    rows: list[dict[str, Any]] = []
    for folder in known_models().values():
        m, own = load_bundle(folder).manifest, folder.parent != shipped_models()
        rows.append(
            {
                "name": folder.name, "classes": list(m.classes), "parameters": m.architecture.parameters, "metrics": m.metrics,
                "installed": str(folder) if own else None,
            }
        )  # fmt: skip
    if as_json:
        print_json(rows)
        return
    for row in rows:
        place = f"\tinstalled in {printable(row['installed'])}" if row["installed"] else ""
        named = f"{len(row['classes'])} classes: {', '.join(row['classes'])}"
        typer.echo(f"{row['name']}\t{row['parameters']} parameters\t{named}{place}")


@models_app.command("verify")
def models_verify(
    model: Annotated[str | None, typer.Argument(help="A name or a folder; default: edge.", metavar="NAME|DIR")] = None,
) -> None:
    """Check every hash of a bundle, and that each backend reproduces its golden cells."""
    from nca_edge.bundle import find_bundle, load_bundle

    _try(load_bundle(find_bundle(model)))


@models_app.command("install")
def models_install(
    folder: Annotated[Path, typer.Argument(help="The bundle's folder, on a USB stick say.", metavar="DIR")],
) -> None:
    """Check a bundle and copy it to this machine's own; --model finds it by its name, before a shipped one of that name."""
    from nca_edge.bundle import load_bundle
    from nca_edge.installing import install

    if not folder.is_dir():
        raise UsageError(f"{printable(str(folder))}: is no folder; give the folder of a bundle.")
    bundle = load_bundle(folder)
    _try(bundle)
    typer.echo(f"installed in {printable(str(install(bundle)))}: --model {bundle.manifest.name}")


def _try(bundle: "Bundle") -> None:
    """Say which variants reproduce the golden cells."""
    from nca_edge.installing import tried

    for backend, precision, missing in tried(bundle):
        if missing:
            say(f"{bundle.manifest.name}: {backend} {precision} not tried: {missing}")
        else:
            typer.echo(f"{bundle.manifest.name}: {backend} {precision} reproduces the golden cells")
