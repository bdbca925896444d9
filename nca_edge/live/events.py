"""What a live count tells to whoever watches it: a terminal, a page, a script."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from nca_edge.camera.protocol import CameraStatus
from nca_edge.differential import Differential
from nca_edge.records import Image8, Reading

Kind = Literal["frame", "field", "undone", "trouble", "ended"]
"""``frame``: the camera's picture of now, with the state of the field; the only kind that is passed over where nobody keeps up.
``field``: a field was committed, ``reading`` holds it. ``undone``: the field ``name`` was taken back. ``trouble``: something
failed or was restarted, or the camera's state changed, ``text`` says what. ``ended``: the last event."""
FieldState = Literal["waiting", "moving", "blurred", "seen", "new", "rejected", "paused"]
"""``waiting``: no fresh frame. ``moving``: the stage moves, or came to rest a moment ago. ``blurred``: it rests out of focus.
``seen``: everything here was counted before. ``new``: being read, or waiting for it. ``rejected``: the quality gate refused it.
``paused``: nothing is counted until ``resume``."""

KEPT = 256
"""Events that wait for one watcher; beyond that the oldest are given up."""


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One thing that happened, and how everything stands then."""

    kind: Kind
    state: FieldState
    frame: Image8 | None
    """(height, width, 3) uint8 RGB, the newest frame, at most ``LiveOptions.view_px`` a side; of ``frame`` events only."""
    reading: Reading | None
    """The committed field; of ``field`` events only. Its boxes are px of the camera's full frame."""
    name: str
    """Name of the field that was committed or taken back; empty else."""
    camera: CameraStatus
    """State, sentence, frame rate and counts of the camera."""
    fps: float
    """Frames a second that were looked at."""
    table: Differential
    """The running differential of the whole session, with its intervals."""
    fields: int
    """Fields that are committed and not taken back."""
    text: str
    """One sentence for a person; may be empty."""
    delay_s: float | None = None
    """From the picture's arrival to its committed cells, s; of ``field`` events of a live camera only."""


class Feed:
    """Hands each event to every watcher; one that does not keep up loses frames, then its oldest events, and slows nobody."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: list[deque[LiveEvent]] = []
        self._latest: LiveEvent | None = None
        self._latest_frame: LiveEvent | None = None

    def publish(self, event: LiveEvent) -> None:
        with self._changed:
            self._latest = event
            if event.kind == "frame":
                self._latest_frame = event
            for queue in self._queues:
                if event.kind == "frame" and queue and queue[-1].kind == "frame":
                    queue[-1] = event  # only the newest picture is worth its time
                else:
                    queue.append(event)
            self._changed.notify_all()

    @property
    def latest(self) -> LiveEvent | None:
        """The last event of any kind."""
        with self._changed:
            return self._latest

    @property
    def latest_frame(self) -> LiveEvent | None:
        """The last ``frame`` event: what a live view shows."""
        with self._changed:
            return self._latest_frame

    def watch(self, over: Callable[[], bool] = lambda: False, wait_s: float = 0.5) -> Iterator[LiveEvent]:
        """Every event from now on, until ``ended`` was given or ``over()`` says so (asked at least every ``wait_s``)."""
        queue: deque[LiveEvent] = deque(maxlen=KEPT)
        with self._changed:
            if self._latest is not None and self._latest.kind == "ended":
                queue.append(self._latest)
            self._queues.append(queue)

        def events() -> Iterator[LiveEvent]:
            try:
                while not over():
                    with self._changed:
                        if not queue:
                            self._changed.wait(wait_s)
                        if not queue:
                            continue
                        event = queue.popleft()
                    yield event
                    if event.kind == "ended":
                        return
            finally:
                with self._changed:
                    self._queues[:] = [other for other in self._queues if other is not queue]

        return events()


def view_of(rgb: Image8, side: int) -> Image8:
    """The frame, reduced by a whole number."""
    factor = -(-max(rgb.shape[:2]) // side)
    return rgb if factor == 1 else np.asarray(Image.fromarray(rgb).reduce(factor))
