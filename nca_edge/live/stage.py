"""A stage: one thread that does one small thing again and again, and survives its own mistakes."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

RESTART_S = 0.5
"""Pause after a crash."""
CRASHES, CRASHES_S = 5, 60.0
"""So many crashes within so many seconds end the count: something is broken for good."""


class Stage:
    """Calls ``step`` until it is stopped. A crash is told, and the stage goes on with the next step."""

    def __init__(self, name: str, step: Callable[[], None], tell: Callable[[str, bool], None]) -> None:
        """``tell(sentence, fatal)`` is called after a crash."""
        self.name = name
        self._step, self._tell = step, tell
        self._stop = threading.Event()
        self._crashes: deque[float] = deque(maxlen=CRASHES)
        self._thread = threading.Thread(target=self._run, name=f"live-{name}", daemon=True)

    @property
    def running(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the step in work."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._step()
            except Exception as error:  # whatever it was: one field must not end a count of hours; it is told, with its place
                if self._crashed(error):
                    return

    def _crashed(self, error: Exception) -> bool:
        """Tell it; True where it happens again and again."""
        self._crashes.append(time.monotonic())
        often = len(self._crashes) == CRASHES and self._crashes[-1] - self._crashes[0] < CRASHES_S
        at = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{at.filename.rpartition('/')[2]}:{at.lineno}"
        what = f"{self.name} failed ({type(error).__name__}: {error}; {place})"
        self._tell(
            f"{what} again and again: the count ends here." if often else f"{what} and goes on with the next field.", often
        )
        self._stop.wait(RESTART_S)
        return often
