"""What reaches a person or a script: sentences on stderr, JSON on stdout, a progress bar where somebody watches."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

import typer


def silence(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that the interpreter's last flush does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def printable(text: str) -> str:
    """One line that no file name can break, colour or turn round."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say(text: str) -> None:
    """One sentence for a person, on a line of its own also where a progress bar stands."""
    typer.echo(("\r\033[K" if on_terminal() else "") + printable(text), err=True)


def on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, allow_nan=False))


def bar(done: int, total: int, text: str = "") -> None:
    """A progress bar, on a terminal only; ``text`` stands behind it."""
    text = f" {text}\033[K" if text else ""
    if not on_terminal():
        return
    width = 30
    filled = width * done // max(total, 1)
    end = "\n" if done == total else ""
    sys.stderr.write(f"\r[{'#' * filled}{'.' * (width - filled)}] {done}/{total}{text}{end}")
    sys.stderr.flush()
