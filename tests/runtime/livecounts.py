"""Live counts for the tests: a still microscope over real cells, a real session, what happened as a list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from nca_edge.camera.mosaic import Mosaic, sample_mosaic
from nca_edge.camera.operator import Pose
from nca_edge.camera.protocol import SourceEnded
from nca_edge.camera.simulated import Microscope
from nca_edge.classifier import ModelChoice
from nca_edge.live import LiveEvent, LiveRequest, LiveRun, begin
from nca_edge.live.start import LiveCount
from nca_edge.records import Image8

CHOICE = ModelChoice(None, "onnx", "fp32", 1)
PLACES = ((0.0, 480.0), (640.0, 480.0), (1280.0, 480.0))
"""Of the sample sheet: each shows one to two whole white cells."""


@cache
def sheet() -> Mosaic:
    return sample_mosaic()


class Still:
    """A microscope whose stage rests at some places, one after the other: frames as fast as they are looked at."""

    name, every, live = "still", False, False

    def __init__(self, places: tuple[tuple[float, float], ...] = PLACES, frames: int = 9) -> None:
        self.scope = Microscope(sheet(), (640, 480), 1)
        self.poses = [Pose(x, y, 0.0, True) for x, y in places for _ in range(frames)]
        self.at = 0

    def open(self) -> dict[str, Any]:
        return {"locked": ["exposure"]}

    def read(self, wait_s: float) -> Image8:
        if self.at == len(self.poses):
            raise SourceEnded("over")
        time.sleep(0.06)
        self.at += 1
        return self.scope.photograph(self.poses[self.at - 1])

    def close(self) -> None:
        pass


@contextmanager
def counting(folder: Path, source: Any, **request: Any) -> Iterator[LiveCount]:
    """A live count of any source."""
    asked = {"out": folder, "session": None, "um_per_px": None, "target": None, "choice": CHOICE} | request
    with begin(LiveRequest("test:", **asked), lambda text: None, source) as live:
        yield live


def all_events(live: LiveRun, act: Callable[[LiveEvent], None] = lambda event: None) -> list[LiveEvent]:
    found = []
    watching = live.events()
    live.start()
    for event in watching:
        found.append(event)
        act(event)
    return found
