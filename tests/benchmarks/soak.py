"""A long count at the simulated microscope: does memory stay flat, is every field there at the end, does it shut down?

With --data the hand goes over sheet after sheet of other fields, so that there is something new to count for the whole time;
without it, over the sample fields again and again. The faults of the camera come in turn, two seconds in every twenty.

Usage: python tests/benchmarks/soak.py [--minutes 60] [--fps 5] [--threads 2] [--data FOLDER] [--json FILE]
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
from nca_edge.camera.mosaic import laid_fields
from nca_edge.camera.operator import Operator
from nca_edge.camera.simulated import Microscope, SimulatedCamera, TestOptions
from nca_edge.classifier import ModelChoice
from nca_edge.live import LiveRequest, begin
from nca_edge.session import Session
from nca_edge.session.verify import verify

EVERY_S = 5.0
FAULTS = ("freeze", "torn", "black", "unplug")
TILES = 49
"""Fields of one sheet."""


class Sheets(SimulatedCamera):
    """A simulated camera that is given another sheet when one is seen."""

    def __init__(self, folder: Path, options: TestOptions) -> None:
        super().__init__(None, options)
        files = list_images(folder)
        self._sheets = [files[n : n + TILES] for n in range(0, len(files) - TILES + 1, TILES)]
        self._ends_s = 0.0
        self.laid = 0

    def read(self, wait_s: float) -> Any:
        """The next frame; lays the next sheet where it is time."""
        if self._elapsed_s() >= self._ends_s:
            self._lay()
        return super().read(wait_s)

    def _lay(self) -> None:
        if self.laid:
            del self._scope, self._operator  # 190 MB, that two sheets at once would add to what the count is said to take
        mosaic = laid_fields(self._sheets[self.laid % len(self._sheets)])
        self._scope = Microscope(mosaic, self._options.size, self._options.seed)
        self._operator = Operator((mosaic.rgb.shape[1], mosaic.rgb.shape[0]), self._scope.size, self._options.seed)
        # The hand begins anew: its clock is the camera's, a whole number of sheets away.
        self._ends_s = (self._elapsed_s() // self._operator.duration_s + 1) * self._operator.duration_s
        self.laid += 1


def memory_mb() -> float:
    """Resident memory of this process, MB."""
    words = Path("/proc/self/statm").read_text().split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Count for so long, then end."""
    choice = ModelChoice(None, "onnx", "fp32", args.threads)
    request = LiveRequest("test:", folder, None, None, None, choice)
    options = TestOptions(fps=args.fps, faults=FAULTS)
    source = Sheets(args.data, options) if args.data else SimulatedCamera(None, options)
    samples: list[tuple[float, float, int]] = []
    delays: list[float] = []
    shown = 0
    load = os.getloadavg()[0]
    with begin(request, lambda text: None, source) as live:
        began = time.monotonic()
        events = live.events()
        live.start()
        last = None
        for event in events:
            now = time.monotonic() - began
            last = event
            shown += event.kind == "field"
            delays += [event.delay_s] if event.delay_s is not None else []
            if not samples or now - samples[-1][0] >= EVERY_S:
                samples.append((now, memory_mb(), shown))
                print(f"{now:.0f} s: {samples[-1][1]:.0f} MB, {shown} fields", file=sys.stderr, flush=True)
            if now > 60 * args.minutes:
                live.stop()
        stopping = time.monotonic()
        outcome = live.finish()
        ended_s = time.monotonic() - stopping
        status, failures = live.reader.status(), list(live.failures)
    with Session.open(folder, read_only=True) as session:
        stored = len(list(session.fields()))
    times, memory = np.array([s[0] for s in samples]), np.array([s[1] for s in samples])
    quarters = [float(np.median(part)) for part in np.array_split(memory, 4)]
    warm = times >= times[-1] / 4
    slope = float(np.polyfit(times[warm] / 3600, memory[warm], 1)[0]) if warm.sum() > 2 else 0.0
    return {
        "minutes": samples[-1][0] / 60, "fps": args.fps, "threads": args.threads, "faults": ",".join(FAULTS),
        "sheets": getattr(source, "laid", 1), "load_at_begin_and_end": [load, os.getloadavg()[0]],
        "fields_shown": shown, "fields_stored": stored, "fields_in_report": outcome.fields,
        "session_problems": list(verify(folder).problems), "leukocytes": outcome.table.leukocytes,
        "frames": status.frames, "losses": status.losses, "torn": status.torn, "repeated": status.repeated,
        "failures": failures, "last_event": last.kind if last else None, "ended_within_s": ended_s,
        "memory_mb_median_of_quarters": quarters, "memory_mb_most": float(memory.max()),
        "memory_slope_mb_per_hour": slope, "memory_mb_each_5_minutes": [float(m) for m in memory[:: int(300 / EVERY_S)]],
        "frame_to_stored_ms_p50": 1e3 * float(np.median(delays)) if delays else None,
        "frame_to_stored_ms_p90": 1e3 * float(np.percentile(delays, 90)) if delays else None,
        "threads_left": [t.name for t in threading.enumerate() if t.name.startswith(("live", "camera"))],
    }  # fmt: skip


def main() -> int:
    """Run and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder of fields of one size; without it the sample fields")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = soak(Path(name) / "session", args)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
