"""How long a warm pipeline takes for one field of 640 x 480 px with a white cell or two, by stage, and what memory it needs.

    python tests/benchmarks/field.py [--repeats 60] [--threads 2] [--backend auto] [--um-per-px UM] [--alone] [--loop 1000]
        [--json FILE]

| measure | bound |
|---|---|
| one field, from the file to the committed session, median | 150 ms |
| peak resident memory | 300 MB |
| with --loop: resident memory after the last field against that after field 100 | within 5 % |

The fields are those samples of the wheel that have this size; they are read in turn as one session's, whose earlier scales are
known (``--alone``: each as if it were the first); the first round is not counted. Wall times
belong to what else the machine does: the load before and after stands in the file, and the CPU time of a field beside its wall
time (on two threads the first may be the larger). Exit code 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nca_edge.camera import file_frames, list_images
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.pipeline import observe
from nca_edge.samples import sample_fields
from nca_edge.session import Session
from nca_edge.stopwatch import Stopwatch

SIZE = (640, 480)
FIELD_MS, PEAK_MB, GROWTH = 150.0, 300.0, 0.05
SETTLED = 100
"""Field after which memory should not grow."""


def read_one(
    path: Path, name: str, classifier: Classifier, session: Session, known: list[float] | None, um_per_px: float | None = None
) -> tuple[dict[str, float], int]:
    """Milliseconds of each stage, of the whole (``field``) and of the CPU (``cpu``), and how many cells there were.

    ``known``: scales of the fields before, to which this one's is added.
    """
    watch, began, busy = Stopwatch(), time.perf_counter(), time.process_time()
    with watch("decode"):
        frames = list(file_frames(path, [path]))
    (reading,) = observe(frames, classifier, um_per_px, known or (), watch)
    with watch("store"):
        session.commit(replace(reading, field=name))  # a name is committed once
    whole = {"field": time.perf_counter() - began, "cpu": time.process_time() - busy}
    if known is not None and reading.scale is not None and reading.scale.source == "red_cells":
        known.append(reading.scale.um_per_px)
    return {stage: 1e3 * seconds for stage, seconds in (watch.seconds | whole).items()}, len(reading.cells)


def measure(paths: list[Path], classifier: Classifier, args: argparse.Namespace) -> dict[str, Any]:
    """Median, 90th percentile and least of each stage."""
    rows: list[dict[str, float]] = []
    cells, repeats, um_per_px = 0, args.repeats, args.um_per_px
    known: list[float] | None = None if args.alone else []
    with tempfile.TemporaryDirectory() as folder, Session.create(Path(folder) / "s", classifier.facts(None)) as session:
        for number in range(len(paths) + repeats):
            row, found = read_one(paths[number % len(paths)], f"{number}", classifier, session, known, um_per_px)
            if number >= len(paths):
                rows.append(row)
                cells += found
    stages = {
        name: {"p50": float(np.median(v)), "p90": float(np.percentile(v, 90)), "least": min(v)}
        for name in rows[0]
        for v in [[row.get(name, 0.0) for row in rows]]
    }
    facts = {"um_per_px": um_per_px, "earlier_scales": known is not None, "repeats": repeats}
    return {**facts, "cells_per_field": cells / repeats, "ms": stages}


def loop(paths: list[Path], fields: int, classifier: Classifier) -> dict[str, Any]:
    """Resident memory, MB, after each hundredth of so many fields in one session."""
    memory: dict[str, float] = {}
    known: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Session.create(Path(folder) / "s", classifier.facts(None)) as session:
        for number in range(1, fields + 1):
            read_one(paths[number % len(paths)], f"{number}", classifier, session, known)
            if number % SETTLED == 0:
                memory[str(number)] = resident_mb()
    growth = memory[str(fields)] / memory[str(SETTLED)] - 1
    return {"fields": fields, "resident_mb": memory, "growth": growth, "ok": growth <= GROWTH}


def resident_mb() -> float:
    """Of this process, MB of 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description="Time and memory of warm fields.")
    parser.add_argument("--repeats", type=int, default=60, help="fields that are counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--um-per-px", type=float, help="a scale that is given, as for a calibrated microscope")
    parser.add_argument("--alone", action="store_true", help="no earlier field's scale is known, as at a session's beginning")
    parser.add_argument("--loop", type=int, metavar="N", help=f"then N fields in one session; a multiple of {SETTLED}")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    if args.loop is not None and (args.loop < SETTLED or args.loop % SETTLED):
        parser.error(f"--loop must be a multiple of {SETTLED}.")
    paths = [path for path in list_images(Path(str(sample_fields()))) if Image.open(path).size == SIZE]
    classifier = load(ModelChoice(backend=args.backend, precision=args.precision, threads=args.threads))
    before = os.getloadavg()[0]
    result = {
        "cpus": os.cpu_count(), "threads": args.threads, "backend": classifier.backend.name, "precision": args.precision,
        "model": classifier.bundle.manifest.name, "fields": [path.name for path in paths],
        **measure(paths, classifier, args), "load": [before, os.getloadavg()[0]],
    }  # fmt: skip
    result["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    result["ok"] = result["ms"]["field"]["p50"] <= FIELD_MS and result["peak_memory_mb"] <= PEAK_MB
    for stage, figures in result["ms"].items():
        print(f"{stage:<8} {figures['p50']:>8.1f} ms   p90 {figures['p90']:>7.1f}   least {figures['least']:>7.1f}")
    print(f"bound of a field {FIELD_MS:g} ms; peak memory {result['peak_memory_mb']:.0f} MB, bound {PEAK_MB:g} MB")
    if args.loop is not None:
        result["loop"] = loop(paths, args.loop, classifier)
        print(f"memory after {args.loop} fields against {SETTLED}: {100 * result['loop']['growth']:+.1f} %")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["ok"] and result.get("loop", result)["ok"] else 1


if __name__ == "__main__":
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # as the command line has it; NumPy reads it once, when it is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    sys.exit(main())
