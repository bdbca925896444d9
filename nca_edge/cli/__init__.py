"""The command line: a command parses, calls the library, prints. Heavy imports happen inside the commands."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

import io
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from nca_edge import RESEARCH_USE, __version__
from nca_edge.cli import board, cells, microscope, page, sessions, workstation
from nca_edge.errors import NcaEdgeError
from nca_edge.terminal import say, silence

app = typer.Typer(
    name="nca-edge",
    help=f"White blood cells at the microscope, offline: found, named, explained, counted. {RESEARCH_USE}",
    epilog="Exit codes: 0 done, 1 done with failures (listed), 2 wrong use, 3 a model that cannot be trusted, 130 stopped.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
for _command in (
    cells.run, page.serve, cells.classify, cells.evaluate, board.bench, cells.report, microscope.calibrate, board.devices,
    board.doctor, workstation.train, workstation.export,
):  # fmt: skip
    app.command()(_command)
app.add_typer(board.models_app, name="models")
app.add_typer(sessions.sessions_app, name="session")


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if context.invoked_subcommand not in ("train", "export"):
        # NumPy's matrix products are small here; threads of theirs wait for each other, on a busy board 200 ms a cell for 12.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if version:
        typer.echo(f"nca-edge {__version__}")
        raise typer.Exit


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
        if done.code == microscope.INTERRUPTED:  # typer makes this of Ctrl-C, without a word
            say("Stopped.")
        raise
    except KeyboardInterrupt:
        say("Stopped.")
        sys.exit(microscope.INTERRUPTED)
    except BrokenPipeError:
        silence(sys.stdout)  # whoever read us is gone: nothing to tell
        sys.exit(1)
    except OSError as error:
        say(f"{error.filename or 'output'}: {error.strerror or error}; check the path, its permissions and the disk.")
        silence(sys.stdout)  # it may be what cannot be written
        sys.exit(1)


def _terminate(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
