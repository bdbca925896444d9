"""A thread that reads a camera at its own rate and keeps only the newest frame.

Whoever analyses takes the newest frame when ready for it: a slow model drops frames, never falls behind. A frame is handed out
at most once, never when it is older than ``STALE_S``, and never when it is the one before once more: some drivers go on giving
the last frame after the plug was pulled. Ages are of the monotonic clock, so that a wall clock may jump.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from typing import Any

from nca_edge.camera.protocol import CameraStatus, NoFrame, Shot, Source, SourceEnded, State, TornFrame
from nca_edge.errors import CameraError
from nca_edge.records import Image8

STALE_S = 1.0
"""A frame older than this is never handed out; a camera without a fresh frame for so long is stale."""
LOST_S = 2.0
"""After so long without any frame, or with nothing but one and the same, the camera is closed and opened anew."""
STILL_S = 10.0
"""The same where the camera does give frames, though all of them are one and the same: a still picture may be meant so."""
RETRY_S = 0.5
"""Pause between two tries to open it."""
WAIT_S = 0.2
"""Longest wait for one frame, so that a stop is heard."""


class Reader:
    """Reads one source until it is stopped. A context manager.

    A recording (``Source.live`` is false) waits instead: it is not read on before its last frame was taken.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._shot: Shot | None = None
        self._taken = 0
        self._state: State = "retry"
        self._text = ""
        self._times: deque[float] = deque(maxlen=60)
        self._seen_s = self._fresh_s = time.monotonic()
        self._digest = -1
        self._counts = {"frames": 0, "torn": 0, "repeated": 0, "losses": 0}
        self._settings: dict[str, Any] = {}

    def start(self) -> Reader:
        """Open the source, and read from now on; CameraError where it cannot be opened this first time. Harmless once done."""
        if self._thread is not None:
            return self
        self._settings = self.source.open()
        self._fresh_now("open")
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread and give the camera back."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.source.close()

    def __enter__(self) -> Reader:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def newest(self, wait_s: float = WAIT_S) -> Shot | None:
        """The newest frame that was not handed out yet; None where there is none within ``wait_s``, or the source ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._fresh() or self._state == "ended" or self._stop.is_set(), wait_s)
            shot = self._shot
            if shot is None or not self._fresh():
                return None
            self._taken = shot.number
            self._changed.notify_all()
            return shot

    def status(self) -> CameraStatus:
        """How the camera is now."""
        with self._changed:
            now, state, text = time.monotonic(), self._state, self._text
            if state == "open" and self.source.live and now - self._fresh_s > STALE_S:
                again = self._seen_s > self._fresh_s
                state = "stale"
                text = (
                    "the camera gives the same picture again and again; check its plug and its program"
                    if again
                    else "no frame comes from the camera; check its plug"
                )
            recent = [t for t in self._times if now - t < 3.0]
            fps = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
            return CameraStatus(self.source.name, state, text, fps, **self._counts, settings=dict(self._settings))

    def _fresh(self) -> bool:
        shot = self._shot
        if shot is None or shot.number <= self._taken:
            return False
        # An image that was written into a watched folder does not age: the one before it may take long to be read.
        return not self.source.live or self.source.every or time.monotonic() - shot.at_s <= STALE_S

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self._state in ("lost", "retry") and not self._reopen():
                    self._stop.wait(RETRY_S)
                    continue
                self._read_on()
                if self._state == "ended":
                    return
                # One that opens at once and fails at once is not asked without end, and its state is there to be seen.
                self._stop.wait(RETRY_S)
        finally:
            self.source.close()

    def _reopen(self) -> bool:
        self._set("retry", self._text)
        try:
            settings = self.source.open()
        except CameraError as error:
            self._set("lost", str(error))
            return False
        self._settings = settings
        self._fresh_now("open")
        return True

    def _read_on(self) -> None:
        """Read until the source is lost, ends or is no longer wanted."""
        while not self._stop.is_set():
            try:
                rgb = self.source.read(WAIT_S)
            except NoFrame:
                if self.source.live and time.monotonic() - self._seen_s > LOST_S and not self.source.every:
                    return self._lose("no frame came from the camera; check its plug")
                continue
            except TornFrame:
                self._counts["torn"] += 1
                if time.monotonic() - self._fresh_s > LOST_S:
                    return self._lose("the camera gives damaged frames only; check its cable")
                continue
            except SourceEnded:
                return self._set("ended", "")
            except CameraError as error:
                return self._lose(str(error))
            if not self._publish(rgb):
                return self._lose("the camera gives the same picture again and again; check its plug and its program")

    def _publish(self, rgb: Image8) -> bool:
        """Keep a frame as the newest; False where one and the same has come for too long."""
        # Every third row: noise makes two frames of a live sensor differ everywhere.
        digest = zlib.adler32(rgb[:: 1 if rgb.size < 3_000_000 else 3].tobytes())
        now = time.monotonic()
        with self._changed:
            self._seen_s = now
            # In a recording of a stage at rest frames may well be the same to the last bit.
            if digest == self._digest and self.source.live and not self.source.every:
                self._counts["repeated"] += 1
                return now - self._fresh_s <= STILL_S
            if not self.source.live or self.source.every:
                self._changed.wait_for(lambda: self._taken == self._counts["frames"] or self._stop.is_set())
                now = time.monotonic()
            self._digest, self._fresh_s = digest, now
            self._counts["frames"] += 1
            self._times.append(now)
            # How long the stage rested in a recording is told by its own clock: it is read as fast as it is looked at.
            recorded: float | None = getattr(self.source, "recorded_s", None)
            self._shot = Shot(self._counts["frames"], now if recorded is None else recorded, rgb)
            self._changed.notify_all()
        return True

    def _lose(self, text: str) -> None:
        getattr(self.source, "lose", self.source.close)()
        with self._changed:
            self._counts["losses"] += 1
            self._shot = None  # what the camera gave before it went is no picture of now
        self._set("lost", text)

    def _set(self, state: State, text: str) -> None:
        with self._changed:
            self._state, self._text = state, text
            self._changed.notify_all()

    def _fresh_now(self, state: State) -> None:
        self._seen_s = self._fresh_s = time.monotonic()
        self._set(state, "")
