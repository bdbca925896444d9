"""The page at the microscope: serve."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nca_edge.cli.microscope import INTERRUPTED, source_of
from nca_edge.cli.options import (
    AsJson,
    Backend,
    BackendName,
    CalibrationFile,
    Camera,
    Model,
    Out,
    SessionPrecision,
    Target,
    Threads,
    UmPerPx,
    check_scale,
    choice,
    refuse_calibration,
)
from nca_edge.errors import UsageError
from nca_edge.terminal import bar, print_json, say

if TYPE_CHECKING:
    from nca_edge.runner import RunRequest


def serve(
    source: Annotated[
        str | None,
        typer.Argument(help="A camera, such as v4l2:0 or test: (simulated); or a folder of fields.", metavar="SOURCE"),
    ] = None,
    camera: Camera = False,
    out: Out = None,
    session: Annotated[
        Path | None, typer.Option(help="Go on with this session; without a camera: review it.", metavar="DIR")
    ] = None,
    target: Target = None,
    specimen: Annotated[str, typer.Option(help="The laboratory's number of the specimen.")] = "",
    slide: Annotated[str, typer.Option(help="The slide's label.")] = "",
    operator: Annotated[str, typer.Option(help="Who counts; without it the page asks who reviews.")] = "",
    host: Annotated[
        str, typer.Option(help="Address of this machine; any but loopback opens the page to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8765,
    cert: Annotated[Path | None, typer.Option(help="TLS certificate (PEM), with --key.", metavar="FILE")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", metavar="FILE")] = None,
    new_token: Annotated[bool, typer.Option("--new-token", help="Shut out browsers that were let in before.")] = False,
    language: Annotated[str | None, typer.Option(help="en, fr, es, pt or sw; default: what the browser prefers.")] = None,
    outbox: Annotated[
        Path | None, typer.Option(help="Folder that a laboratory system watches: gets each signed result.", metavar="DIR")
    ] = None,
    calibration: CalibrationFile = None,
    um_per_px: UmPerPx = None,
    model: Model = None,
    backend: Backend = BackendName.auto,
    precision: SessionPrecision = None,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """The page: count at the microscope, look through the cells, sign; or review a session (needs the web extra)."""
    from nca_edge.camera import is_live
    from nca_edge.live import LiveRequest
    from nca_edge.runner import RunRequest
    from nca_edge.session import SlideFacts
    from nca_edge.web import address as addresses
    from nca_edge.web import serving

    check_scale(um_per_px)
    if out is not None and session is not None:
        raise UsageError("--out begins a session and --session goes on with one: give one of them.")
    live = None
    address = addresses.Address(host, port, cert, key, new_token)
    facts = SlideFacts(specimen, slide, operator, target).cleaned()
    if camera or source is not None:
        named, chosen = source_of(source, camera), choice(model, backend, precision, threads)
        if is_live(named):
            live = LiveRequest(named, out, session, um_per_px, target, chosen, calibration, operator)
        else:
            addresses.check(address, language)  # before minutes of reading
            refuse_calibration(calibration)
            session = _read(RunRequest(Path(named), out, session, um_per_px, target, chosen))
    serving.run(serving.ServeRequest(address, live, session, facts, language, outbox), say, lambda url: _show(url, as_json))


def _read(request: "RunRequest") -> Path:
    """Read a folder of fields as ``run`` does; the session, to be looked through."""
    from nca_edge.runner import run

    outcome = run(request, lambda reading, done, total: bar(done, total), say)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    return outcome.folder


def _show(url: str, as_json: bool) -> None:
    if as_json:
        print_json({"url": url})
    else:
        typer.echo(f"Open {url}")
