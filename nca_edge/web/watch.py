"""The live count as the page sees it: the newest state, picture and boxes."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image

from nca_edge.errors import CameraError
from nca_edge.records import Image8

JPEG_QUALITY = 80
AGAIN_S = 2.0
"""Pause before a camera that could not be opened at all is tried again: the page stays up meanwhile."""
SILENT_S = 30.0
"""After so long without any word from the count it hangs: even a lost camera says that it is lost."""
Boxes = tuple[tuple[float, float, float, float, str], ...]


class Live(Protocol):
    """What the page needs of ``nca_edge.live.LiveRun``."""

    def start(self) -> None:
        """Open the camera and begin; CameraError where there is none."""

    def events(self) -> Iterator[Any]:
        """Every ``LiveEvent`` from now on."""

    def pause(self) -> None:
        """Count nothing until ``resume``."""

    def resume(self) -> None:
        """Go on."""

    def undo(self) -> None:
        """Take back the newest field."""

    def stop(self) -> None:
        """End soon; what was read is stored first."""


@dataclass(frozen=True, slots=True)
class LiveView:
    """How the microscope stands."""

    field: str = "waiting"
    """As ``LiveEvent.state``, or ``counted`` right after a field was stored, or ``stopped``."""
    camera: str = "opening"
    """As ``CameraStatus.state``."""
    text: str = ""
    """What is wrong, one sentence; empty while all is well."""
    frame: int = 0
    """Running number of the picture; 0: none yet."""
    size: tuple[int, int] = (4, 3)
    """(width, height) px of the picture."""
    boxes: Boxes = ()
    """(x, y, w, h, class) in px of the picture, of the field that is looked at."""
    paused: bool = False
    interrupted: bool = False
    """An earlier count of this session was cut short; somebody has to say that the slide is the same."""
    ended: bool = False


class Watch:
    """Follows a live count in a thread of its own."""

    def __init__(
        self, live: Live, committed: Callable[[], None], changed: Callable[[], None], interrupted: bool = False
    ) -> None:
        """``committed`` is called when a field was stored or taken back, ``changed`` when anything else is new."""
        self.live = live
        self.view = LiveView(paused=interrupted, interrupted=interrupted)
        """The newest state; replaced as a whole, so that any thread may read it."""
        self._committed, self._changed = committed, changed
        self._picture: Image8 | None = None
        self._jpeg: tuple[int, bytes] = (0, b"")
        self._boxes: Boxes = ()
        self._trouble = ""
        self._over = threading.Event()
        self._heard_s = time.monotonic()
        self._lock = threading.Lock()
        self._events = live.events()  # listened to from now on, before the first event
        self._thread = threading.Thread(target=self._follow, name="page-watch", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def end(self, wait_s: float) -> None:
        """End the count, and wait until what was read is stored."""
        self._over.set()
        self.live.stop()
        self._thread.join(wait_s)

    def act(self, action: str) -> bool:
        """``pause``, ``resume``, ``undo`` or ``stop``; False for another word."""
        if action not in ("pause", "resume", "undo", "stop"):
            return False
        getattr(self.live, action)()
        if action in ("pause", "resume"):
            self._set(paused=action == "pause", interrupted=False)
        return True

    @property
    def awake(self) -> bool:
        """The count gives signs of life, or has ended."""
        return self.view.ended or time.monotonic() - self._heard_s < SILENT_S

    def jpeg(self) -> bytes:
        """The newest picture; empty where there is none. Encoded once, however many browsers ask."""
        with self._lock:
            number, picture = self.view.frame, self._picture
            if picture is not None and self._jpeg[0] != number:
                buffer = io.BytesIO()
                Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
                self._jpeg = (number, buffer.getvalue())
            return self._jpeg[1]

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                self.live.start()
                break
            except CameraError as error:
                self._heard_s = time.monotonic()
                self._set(camera="lost", text=str(error))
                self._over.wait(AGAIN_S)
        else:
            return
        for event in self._events:
            self._take(event)

    def _take(self, event: Any) -> None:
        before, self._heard_s = self.view, time.monotonic()
        field = "stopped" if event.kind == "ended" else event.state
        if field == "seen" and before.field in ("new", "counted"):
            field = "counted"  # not "seen before": it was this moment
        if field in ("moving", "waiting"):
            self._boxes = ()
        if event.kind == "field":
            self._boxes, self._trouble = _boxes(event, before.size[0]), ""
        if event.kind in ("trouble", "undone", "ended"):
            self._trouble = event.text
        news: dict[str, Any] = {"field": field, "camera": event.camera.state, "text": event.camera.text or self._trouble}
        news |= {"boxes": self._boxes, "ended": before.ended or event.kind == "ended"}
        if event.frame is not None:
            height, width = event.frame.shape[:2]
            self._picture = event.frame
            news |= {"frame": before.frame + 1, "size": (width, height)}
        self._set(**news)
        if event.kind in ("field", "undone", "ended"):
            self._committed()

    def _set(self, **news: Any) -> None:
        view = replace(self.view, **news)
        if view != self.view:
            self.view = view
            self._changed()


def _boxes(event: Any, width: int) -> Boxes:
    """Boxes of the cells of a stored field, from px of the camera's full frame to px of a picture ``width`` px wide."""
    scale = width / (event.camera.settings.get("width") or width)
    found = ((c.detection.box, c.prediction) for c in event.reading.cells)
    return tuple(
        (box.x * scale, box.y * scale, box.w * scale, box.h * scale, "" if prediction.unsure else prediction.label)
        for box, prediction in found
    )
