"""Commands at the microscope: a live count, which ``run`` begins for a camera, and calibrate."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nca_edge import RESEARCH_USE
from nca_edge.cli.options import AsJson, Camera
from nca_edge.errors import UsageError
from nca_edge.terminal import on_terminal, print_json, printable, say

if TYPE_CHECKING:
    from nca_edge.live import LiveEvent, LiveRequest
    from nca_edge.live.start import LiveCount


INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM, as shells have it."""


def source_of(source: str | None, camera: bool) -> str:
    """What the user named; UsageError for both or neither."""
    if source is not None and camera:
        raise UsageError("Give SOURCE or --camera, not both: SOURCE can name a camera, such as v4l2:0.")
    if source is None and not camera:
        raise UsageError("Give a field, a folder of fields or a camera: nca-edge run FOLDER, nca-edge run --camera.")
    return "camera" if source is None else source


def live_run(request: "LiveRequest", as_json: bool) -> int:
    """Count until it is stopped, the target is reached or the source ends; the exit code."""
    from nca_edge import runner
    from nca_edge.live import begin

    with _Interrupts(), begin(request, say) as live:
        interrupted = _follow(live, request, as_json)
        if interrupted:
            say("Stopped: what was read is kept.")
        outcome = live.finish(interrupted)
        failures = list(live.failures)
    for failure in failures:
        say(failure)
    if as_json:
        print_json(runner.summary_json(outcome))
    else:
        typer.echo(runner.summary_text(outcome))
    return INTERRUPTED if interrupted else 1 if failures else 0


class _Interrupts:
    """Ctrl-C and SIGTERM interrupt once; within the next second they are taken for the same one (``timeout`` signals
    the process and its group), later ones interrupt the ending too."""

    def __init__(self) -> None:
        self._first_s: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Interrupts":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._first_s is not None and now - self._first_s < 1.0:
            return
        self._first_s = now
        raise KeyboardInterrupt


def _follow(live: "LiveCount", request: "LiveRequest", as_json: bool) -> bool:
    """Show what happens until it ends; True after Ctrl-C or SIGTERM."""
    from nca_edge.live.screen import Keys, Panel

    panel = Panel(request.target) if on_terminal() and not as_json else None
    try:
        events = live.events()
        live.start()
        with Keys(lambda key: _pressed(live, key)):
            for event in events:
                _show(event, panel, as_json)
    except KeyboardInterrupt:
        return True
    return False


def _pressed(live: "LiveCount", key: str) -> None:
    if key == " ":
        (live.resume if live.paused else live.pause)()
    elif key == "u":
        live.undo()
    elif key == "q":
        live.stop()


def _show(event: "LiveEvent", panel: object, as_json: bool) -> None:
    from nca_edge import runner
    from nca_edge.live.screen import Panel

    if as_json and event.kind == "field" and event.reading is not None:
        print_json(runner.reading_json(event.reading))
    elif as_json and event.kind == "undone":
        print_json({"undone": event.name})
    if isinstance(panel, Panel):
        panel.draw(event)
    elif event.kind in ("trouble", "undone") and event.text:
        say(event.text)
    elif event.kind == "field" and event.reading is not None and not as_json:
        cells = ", ".join(cell.prediction.label for cell in event.reading.cells)
        say(f"{event.name}: {cells or '; '.join(event.reading.reasons) or 'nothing new'}")


def calibrate(
    source: Annotated[str | None, typer.Argument(help="A camera, or a folder of its fields.", metavar="SOURCE")] = None,
    camera: Camera = False,
    name: Annotated[str, typer.Option(help="What this microscope is called.", metavar="NAME")] = "microscope",
    out: Annotated[
        Path | None, typer.Option(help="Write here; default: NAME.json in the user's configuration.", metavar="FILE")
    ] = None,
    blank: Annotated[
        Path | None, typer.Option(help="A picture of an empty part of the slide: light and colour from it.", metavar="IMAGE")
    ] = None,
    fields: Annotated[int, typer.Option(help="Different fields to look at.", metavar="N", min=3, max=1000)] = 10,
    as_json: AsJson = False,
) -> None:
    """Store a microscope's light, colour and scale, for run --calibration."""
    from nca_edge.calibration import calibration_path
    from nca_edge.camera import is_live
    from nca_edge.live.calibrate import CalibrateRequest
    from nca_edge.live.calibrate import calibrate as look

    named = source_of(source, camera)
    path = out or calibration_path(name)
    found = look(CalibrateRequest(named, name, blank, fields), is_live(named), say)
    found.write(path)
    if as_json:
        document = found.document()
        document.pop("light_png")
        print_json({"file": str(path), **document})
        return
    if found.um_per_px is None or found.um_per_px_range is None:
        typer.echo("scale     not told: too few fields with red cells; give --um-per-px to run")
    else:
        low, high = found.um_per_px_range
        typer.echo(f"scale     {found.um_per_px:.4f} um per pixel ({low:.4f} - {high:.4f}), {found.red_cells} red cells")
    typer.echo(f"white     R {found.white[0]:.0f}  G {found.white[1]:.0f}  B {found.white[2]:.0f}")
    corner = 100 * float(found.light[[0, 0, -1, -1], [0, -1, 0, -1]].mean() / max(found.light.mean(axis=2).max(), 1))
    typer.echo(f"corners   {corner:.0f} % of the brightest light")
    typer.echo(
        f"written   {printable(str(path))}\nuse it    nca-edge run SOURCE --calibration {printable(str(path))}\n{RESEARCH_USE}"
    )
