"""A long count at the simulated microscope: does memory stay flat, is every field there at the end, does it shut down?

Usage: python tests/benchmarks/soak.py [--minutes 60] [--fps 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge.classifier import ModelChoice
from nca_edge.live import LiveRequest, begin
from nca_edge.session import Session

EVERY_S = 5.0
FAULTS = "freeze,torn,black,unplug"


def memory_mb() -> float:
    """Resident memory of this process, MB."""
    words = Path("/proc/self/statm").read_text().split()
    return int(words[1]) * 4096 / 1e6


def soak(folder: Path, minutes: float, fps: float) -> dict[str, Any]:
    """Count for so long, then end."""
    request = LiveRequest(f"test:?fps={fps}&faults={FAULTS}", folder, None, None, None, ModelChoice(None, "onnx", "fp32", 1))
    samples: list[tuple[float, float]] = []
    shown = 0
    with begin(request, lambda text: None) as live:
        began = time.monotonic()
        events = live.events()
        live.start()
        last = None
        for event in events:
            now = time.monotonic() - began
            last = event
            shown += event.kind == "field"
            if not samples or now - samples[-1][0] >= EVERY_S:
                samples.append((now, memory_mb()))
            if now > 60 * minutes:
                live.stop()
        stopping = time.monotonic()
        outcome = live.finish()
        ended_s = time.monotonic() - stopping
        status, failures = live.reader.status(), list(live.failures)
    with Session.open(folder, read_only=True) as session:
        stored = len(list(session.fields()))
    warm = np.array([s for s in samples if s[0] >= samples[-1][0] / 4])
    slope = float(np.polyfit(warm[:, 0] / 3600, warm[:, 1], 1)[0]) if len(warm) > 2 else 0.0
    return {
        "minutes": samples[-1][0] / 60, "fps": fps, "faults": FAULTS, "fields_shown": shown, "fields_stored": stored,
        "fields_in_report": outcome.fields, "leukocytes": outcome.table.leukocytes, "frames": status.frames,
        "losses": status.losses, "torn": status.torn, "repeated": status.repeated, "failures": failures,
        "last_event": last.kind if last else None, "ended_within_s": ended_s,
        "memory_mb_first_quarter": samples[len(samples) // 4][1],
        "memory_mb_last": samples[-1][1], "memory_mb_most": max(m for _, m in samples), "memory_slope_mb_per_hour": slope,
        "threads_left": [t.name for t in threading.enumerate() if t.name.startswith(("live", "camera"))],
    }  # fmt: skip


def main() -> int:
    """Run and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = soak(Path(name) / "session", args.minutes, args.fps)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
