"""How long a live count takes from a picture to its stored, explained cells, and whether the camera is read at its own rate.

    python tests/benchmarks/live.py [--fps 10] [--threads 2] [--data FOLDER] [--most 40] [--counts 5] [--json FILE]

| measure | bound |
|---|---|
| from the arrival of a frame of 640 x 480 px to the commit of its cells, warm, median | 250 ms |
| frames that the camera gave and that were taken from it | all |

The frames are made before the count begins, so that the camera costs what a real one does; the stage rests at one field after
the other. The first fields are not counted. Of several counts the one of the median figure is told, and the median of each:
wall times belong to what else the machine does, also where it is another guest of the same host. The load stands in the file,
and the CPU time of the whole program for each field, which holds every frame's glance too. Exit code 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge.camera.files import list_images
from nca_edge.camera.mosaic import laid_fields, sample_mosaic
from nca_edge.camera.operator import Pose
from nca_edge.camera.protocol import NoFrame, SourceEnded
from nca_edge.camera.simulated import Microscope
from nca_edge.classifier import ModelChoice
from nca_edge.live import LiveRequest, begin
from nca_edge.records import Image8

SIZE = (640, 480)
BOUND_MS = 250.0
WARM = 4
"""Fields that are not counted."""
REST_S = 1.6
"""How long the stage rests at a field: at a hand's pace, and time enough for the next one not to wait for it."""


class Prepared:
    """A camera whose frames are ready: at each field a few that differ by their noise, and two of the way to the next one."""

    name, every, live = "prepared", False, True

    def __init__(self, data: Path | None, fps: float, most: int) -> None:
        mosaic = sample_mosaic() if data is None else laid_fields(list_images(data)[:most])
        scope = Microscope(mosaic, SIZE, 1)
        self.fps = fps
        self.places = mosaic.tiles
        right = mosaic.rgb.shape[1] - SIZE[0]
        self._frames = [
            [scope.photograph(Pose(t.x, t.y, 0.0, True)) for _ in range(3)]
            + [scope.photograph(Pose(min(t.x + way, right), t.y, 0.0, False), (90, 0)) for way in (160, 400)]
            for t in self.places
        ]
        self._taken, self.given, self._began_s = -1, 0, 0.0

    def open(self) -> dict[str, Any]:
        self._began_s = time.monotonic()
        return {"locked": ["exposure"]}

    def read(self, wait_s: float) -> Image8:
        """The frame of now: those that nobody was there to take are gone, as with a camera."""
        number = max(self._taken + 1, int((time.monotonic() - self._began_s) * self.fps))
        left_s = self._began_s + number / self.fps - time.monotonic()
        if left_s > wait_s:
            time.sleep(wait_s)
            raise NoFrame("not yet")
        time.sleep(max(0.0, left_s))
        self._taken = number
        place, at = divmod(number, round(REST_S * self.fps))
        if place >= len(self._frames):
            raise SourceEnded("over")
        self.given += 1
        moving = round(REST_S * self.fps) - at <= 2
        return self._frames[place][3 + at % 2 if moving else at % 3].copy()

    @property
    def due(self) -> int:
        """Frames up to now."""
        return self._taken + 1

    def close(self) -> None:
        pass


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One count to its end."""
    camera = Prepared(args.data, args.fps, args.most)
    delays: list[tuple[float, int]] = []
    began, first_s = 0.0, 0.0
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        choice = ModelChoice(None, args.backend, args.precision, args.threads)
        asked = LiveRequest("test:", Path(folder) / "s", None, None, None, choice)
        with begin(asked, lambda text: None, camera) as live:
            events = live.events()
            live.start()
            first_s, began = time.monotonic(), time.process_time()
            for event in events:
                if event.kind == "field" and event.delay_s is not None and event.reading is not None:
                    delays.append((1e3 * event.delay_s, len(event.reading.cells)))
            busy, wall_s = time.process_time() - began, time.monotonic() - first_s
            frames, failures = live.reader.status().frames, live.failures
    warm = [ms for ms, _ in delays[WARM:]]
    p50 = float(np.median(warm))
    return {
        "cpus": os.cpu_count(), "threads": args.threads, "backend": args.backend, "precision": args.precision, "fps": args.fps,
        "places": len(camera.places), "fields": len(warm), "cells": sum(n for _, n in delays[WARM:]),
        "frame_to_stored_ms": {"p50": p50, "p90": float(np.percentile(warm, 90)), "least": min(warm)},
        "cpu_ms_per_field": 1e3 * busy / max(len(delays), 1), "cpu_share": busy / wall_s,
        "frames_due": camera.due, "frames_taken": camera.given, "frames_read": frames,
        "failures": failures, "threads_left": [t.name for t in threading.enumerate() if t.name.startswith(("live", "camera"))],
        "load": [load, os.getloadavg()[0]], "ok": p50 <= BOUND_MS,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="From a picture to its stored cells in a live count.")
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--data", type=Path, help="folder of fields of 640 x 480 px; without it the sample fields")
    parser.add_argument("--most", type=int, default=40, help="fields of the folder")
    parser.add_argument(
        "--counts", type=int, default=1, help="how often it is measured; the machine's speed changes by the minute"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    counts = sorted((measure(args) for _ in range(args.counts)), key=lambda count: count["frame_to_stored_ms"]["p50"])
    result = counts[(len(counts) - 1) // 2]
    result["p50_of_each_count_ms"] = [count["frame_to_stored_ms"]["p50"] for count in counts]
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # as the command line has it; NumPy reads it once, when it is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    sys.exit(main())
