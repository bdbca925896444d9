"""The stages of a live count, each in a thread of its own, with bounded queues between them."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nca_edge import memory
from nca_edge.camera.protocol import Shot
from nca_edge.camera.reader import Reader
from nca_edge.classifier import Classifier
from nca_edge.errors import StorageError, UsageError
from nca_edge.live.chart import Chart
from nca_edge.live.count import Count
from nca_edge.live.events import Feed, FieldState, Kind, LiveEvent, view_of
from nca_edge.live.field import Analyst
from nca_edge.live.options import LiveOptions
from nca_edge.live.stage import Stage
from nca_edge.live.watcher import Look, Watcher
from nca_edge.records import Image8, Reading
from nca_edge.session import Session

STORE_AGAIN_S = 2.0
"""Pause before what could not be stored is tried again."""
LATE_TRIES = 3
"""How often it is tried again after the count was stopped."""
WAITING_FIELDS = 4
"""Read fields that may wait to be stored; then reading waits."""


class LiveRun:
    """One live count into one session. ``start`` it once; every other method may be called from any thread."""

    def __init__(self, reader: Reader, classifier: Classifier, session: Session, options: LiveOptions) -> None:
        self.session = session
        """Where fields are committed. Its methods may be called from any thread."""
        self.reader = reader
        self.options = options
        self.chart = Chart()
        self._watcher = Watcher(self.chart)
        self._analyst = Analyst(classifier, self.chart, options.um_per_px, options.calibration)
        self._analyst.known(
            [f.um_per_px for f in session.fields() if f.scale_source == "red_cells" and f.um_per_px is not None]
        )
        self._count = Count(session, options.operator, self.chart)
        self.earlier = self._count.earlier
        """What is known of the places of earlier sittings, for a person; empty where there was none."""
        self._feed = Feed()
        self._to_read: queue.Queue[tuple[Shot, Look]] = queue.Queue(1)
        self._to_store: queue.Queue[_Read | _Undo] = queue.Queue(WAITING_FIELDS)
        self._unstored: _Read | _Undo | None = None
        self._state: FieldState = "waiting"
        self._paused = threading.Event()
        self._stop = threading.Event()
        self._times: deque[float] = deque(maxlen=60)
        self._camera_said = ""
        self._full = False
        self._late_tries = 0
        self._stages = [Stage("watching", self._watch, self._trouble), Stage("reading", self._read, self._trouble)]
        self._store_stage = Stage("storing", self._store, self._trouble)
        self._ender = threading.Thread(target=self._end, name="live-end", daemon=True)
        self.failures: list[str] = []
        """What went wrong, one sentence each."""

    # What others call

    def start(self) -> None:
        """Begin; CameraError where the camera was not opened before and cannot be."""
        self.reader.start()
        for stage in (*self._stages, self._store_stage):
            stage.start()
        self._ender.start()

    def stop(self) -> None:
        """End soon; what was read is stored first."""
        self._stop.set()

    def pause(self) -> None:
        """Count nothing until ``resume``; the picture goes on."""
        self._paused.set()

    def resume(self) -> None:
        """Go on."""
        self._paused.clear()

    @property
    def paused(self) -> bool:
        """Whether nothing is counted now."""
        return self._paused.is_set()

    def undo(self) -> None:
        """Take back the newest field that is not taken back yet; an ``undone`` event tells which."""
        try:
            self._to_store.put_nowait(_Undo())
        except queue.Full:
            self._publish("trouble", text="Fields are still being stored: take the last one back in a moment.")

    @property
    def folder(self) -> Path:
        """The session's folder."""
        return self.session.folder

    def events(self) -> Iterator[LiveEvent]:
        """Every event from now on, the last one is ``ended``."""
        return self._feed.watch()

    @property
    def latest(self) -> LiveEvent | None:
        """The last event of any kind."""
        return self._feed.latest

    @property
    def latest_frame(self) -> LiveEvent | None:
        """The last ``frame`` event."""
        return self._feed.latest_frame

    def join(self, wait_s: float | None = None) -> None:
        """Wait until all has ended and everything is stored and given back."""
        if self._ender.is_alive():
            self._ender.join(wait_s)

    # Stages

    def _watch(self) -> None:
        """One frame: where is it, and is it worth reading?"""
        shot = self.reader.newest()
        self._tell_camera()
        if shot is None:
            status = self.reader.status()
            if status.state == "ended":
                self._source_ended()
            elif status.state != "open":
                self._state = "waiting"
                self._publish("frame")
            return
        look = self._watcher.look(shot.rgb, shot.at_s) if not self.reader.source.every else self._watcher.still(shot.rgb)
        state: FieldState = "paused" if self.paused else look.state
        if look.read:
            self._hand_over(shot, look)
        elif look.prepare and not self.paused and not self._to_read.unfinished_tasks:  # only where nothing has to wait for it
            self._to_read.put_nowait((shot, look))
        self._state = state
        self._times.append(time.monotonic())
        self._publish("frame", frame=view_of(shot.rgb, self.options.view_px))

    def _hand_over(self, shot: Shot, look: Look) -> None:
        """To the reading stage, where it is free; a recording and a watched folder wait for it, a camera does not."""
        if self.paused:
            return self._watcher.again()
        waits = self.reader.source.every or not self.reader.source.live
        while not self._stop.is_set():
            try:
                self._to_read.put((shot, look), timeout=0.2 if waits else 0.001)
                break
            except queue.Full:
                if not waits:
                    return self._watcher.again()
        if waits:
            self._wait_for_reading()

    def _read(self) -> None:
        """One field: find, name and explain its cells."""
        try:
            shot, look = self._to_read.get(timeout=0.2)
        except queue.Empty:
            return
        try:
            if look.prepare:
                self._analyst.prepare(shot.rgb, look)
                return
            reading, answer = self._analyst.read(self._count.next_name(), shot.rgb, look)
            self._watcher.answer(look.rest, answer, look.glance.focus)
            if reading is not None:
                self._to_store.put(_Read(reading, shot.at_s if self.reader.source.live else None))
                self.chart.connect(reading.field)
            memory.give_back()
        except UsageError as error:  # the calibration is another camera's: no next field will be better
            self._trouble(str(error), True)
        except BaseException:
            self._watcher.answer(look.rest, "rejected", look.glance.focus)
            raise
        finally:
            self._to_read.task_done()

    def _store(self) -> None:
        """One field, or one undo, into the session."""
        if self._unstored is None:
            try:
                self._unstored = self._to_store.get(timeout=0.2)
            except queue.Empty:
                return
        work = self._unstored
        if self._full and not isinstance(work, _Undo):
            self._unstored = None  # it was read while the one that reached the target was stored
            self._to_store.task_done()
            return
        try:
            done = self._count.undo() if isinstance(work, _Undo) else self._count.commit(work.reading)
        except StorageError as error:
            self._publish("trouble", text=str(error))
            if not self._stop.wait(STORE_AGAIN_S):
                return
            self._late_tries += 1
            if self._late_tries > LATE_TRIES:
                self._give_up(work, error)
            else:
                time.sleep(STORE_AGAIN_S)
            return
        self._unstored = None
        self._to_store.task_done()
        if isinstance(work, _Undo):
            self._undone(done)
            return
        self._publish("field", work, name=work.reading.field)
        if self.options.target is not None and self._count.table.leukocytes >= self.options.target:
            self._full = True
            self._publish("trouble", text=f"The target of {self.options.target} leukocytes is reached.")
            self.stop()

    # Small things

    def _undone(self, name: str | None) -> None:
        if name is None:
            self._publish("trouble", text="There is no field to take back.")
            return
        self.chart.forget(name)
        self._publish("undone", name=name, text=f"{name} was taken back: its cells are not counted.")

    def _give_up(self, work: _Read | _Undo, error: StorageError) -> None:
        """The count ends while the disk still refuses."""
        self._unstored = None
        self._to_store.task_done()
        what = "an undo" if isinstance(work, _Undo) else f"{work.reading.field} ({len(work.reading.cells)} cells)"
        self.failures.append(f"{what} could not be stored: {error}")

    def _source_ended(self) -> None:
        self._wait_for_reading()
        self.stop()

    def _wait_for_reading(self) -> None:
        """Until nothing waits to be read; not ``join``, which would wait for ever for a stage that ended."""
        while self._to_read.unfinished_tasks and not self._stop.is_set():
            time.sleep(0.005)

    def _tell_camera(self) -> None:
        status = self.reader.status()
        said = f"{status.state}: {status.text}" if status.text else status.state
        if said != self._camera_said:
            first, self._camera_said = not self._camera_said, said
            if status.state != "ended" and not (first and status.state == "open"):
                self._publish("trouble", text=f"camera {status.name}: {(status.text or status.state).rstrip('.')}.")

    def _trouble(self, text: str, fatal: bool = False) -> None:
        """A stage failed or was restarted."""
        if not self.failures or self.failures[-1] != text:
            self.failures.append(text)
        self._publish("trouble", text=text)
        if fatal:
            self.stop()

    def _publish(
        self, kind: Kind, read: _Read | None = None, frame: Image8 | None = None, name: str = "", text: str = ""
    ) -> None:
        now = time.monotonic()
        delay_s = None if read is None or read.at_s is None else now - read.at_s
        recent = [t for t in list(self._times) if now - t < 3.0]
        fps = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
        camera, table, fields = self.reader.status(), self._count.table, self._count.fields
        reading = None if read is None else read.reading
        self._feed.publish(LiveEvent(kind, self._state, frame, reading, name, camera, fps, table, fields, text, delay_s))

    def _end(self) -> None:
        """Wait for the stop, then end stage by stage, so that what was read is stored."""
        self._stop.wait()
        for stage in self._stages:
            stage.stop()
        self.reader.stop()
        while self._store_stage.running and (self._unstored is not None or not self._to_store.empty()):
            time.sleep(0.02)
        self._store_stage.stop()
        self._publish("ended", text=" ".join(self.failures))


@dataclass(frozen=True, slots=True)
class _Read:
    """A field to be stored."""

    reading: Reading
    at_s: float | None
    """When its picture came, monotonic clock; None: of a recording."""


class _Undo:
    """Take back the newest field."""
