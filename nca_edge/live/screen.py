"""A live count on a terminal: what is drawn, and the keys."""

from __future__ import annotations

import os
import select
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

from nca_edge import RESEARCH_USE
from nca_edge.differential import Row
from nca_edge.live.events import LiveEvent
from nca_edge.terminal import printable

STATES = {
    "waiting": "waiting for the camera",
    "moving": "moving",
    "blurred": "blurred: turn the fine focus",
    "seen": "seen before: move on",
    "new": "new: being read",
    "rejected": "rejected",
    "paused": "paused",
}
"""``FieldState`` for people."""
KEYS = "space: pause    u: take the last field back    q: stop"
POLL_S = 0.1
SAID_LINES = 2
"""Of the last sentence: what to do stands at its end, which 80 columns would cut off."""


class Panel:
    """Draws events over one another on a terminal."""

    def __init__(self, target: int | None) -> None:
        self._target = target
        self._drawn = 0
        self._last = "none yet"
        self._said = ""

    def draw(self, event: LiveEvent) -> None:
        """Show how everything stands after an event, on stderr."""
        width = _columns()
        lines = [line[:width] for line in self.lines(event, width)]
        up = f"\033[{self._drawn}A" if self._drawn else ""
        sys.stderr.write(up + "".join(f"\r\033[K{line}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)

    def lines(self, event: LiveEvent, width: int = 100) -> list[str]:
        """The panel as text of so many columns; always of as many lines."""
        if event.reading is not None and event.reading.cells:
            cell = event.reading.cells[-1]
            sure = " (unsure)" if cell.prediction.unsure else ""
            cut = ", cut by the edge: not counted" if cell.detection.border else ""
            self._last = f"{cell.prediction.label} {100 * cell.prediction.confidence:.0f} %{sure}{cut}, {event.reading.field}"
        if event.reading is not None and not event.reading.accepted:
            self._said = f"{event.reading.field}: {event.reading.reasons[0]}"
        if event.text:
            self._said = event.text
        camera, of = event.camera, f" of {self._target}" if self._target else ""
        rows = [_row(row) for row in event.table.rows]
        return [
            f"camera  {printable(camera.name)}  {camera.state}  {event.fps:.1f} frames/s"
            + (f"  {camera.losses} times lost" if camera.losses else ""),
            f"field   {STATES[event.state]}",
            f"last    {self._last}",
            *_in_lines(printable(self._said), width - 8, SAID_LINES),
            "",
            f"{event.table.leukocytes}{of} leukocytes in {event.fields} {'field' if event.fields == 1 else 'fields'}",
            f"{'':<22}{'count':>6}{'%':>6}   95 % interval",
            *rows,
            "",
            KEYS,
            *textwrap.wrap(RESEARCH_USE, width),
        ]


class Keys:
    """Reads single keys of the terminal in a thread of its own; a context manager that leaves the terminal as it was."""

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._before: Any = None

    def __enter__(self) -> Keys:
        if sys.stdin is not None and sys.stdin.isatty():
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)  # Ctrl-C still interrupts
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._before is not None:
            import termios

            self._thread.join()
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._before)

    def _run(self) -> None:
        file = sys.stdin.fileno()
        while not self._stop.is_set():
            ready, _, _ = select.select([file], [], [], POLL_S)
            if ready:
                data = os.read(file, 16)
                if not data:
                    return
                for key in data.decode("ascii", "ignore"):
                    self._pressed(key)


def _in_lines(text: str, width: int, n: int) -> list[str]:
    """A sentence in exactly ``n`` lines below the other facts; what does not fit ends with dots."""
    lines = textwrap.wrap(text, width, max_lines=n, placeholder=" ...")
    return [f"        {line}" for line in lines] + [""] * (n - len(lines))


def _columns() -> int:
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    return columns - 1 if columns > 20 else 100  # serial lines tell 0


def _row(row: Row) -> str:
    if row.count is None:
        return f"{row.name:<22} not reported"
    percent = "" if row.percent is None else f"{row.percent}"
    span = "" if row.low is None or row.high is None else f"   {row.low:.1f} - {row.high:.1f}"
    return f"{row.name:<22}{row.count:>6}{percent:>6}{span}"
