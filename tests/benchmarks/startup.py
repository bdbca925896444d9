"""How long the command line takes from a cold process, and how much memory ``run`` and ``export`` need.

    python tests/benchmarks/startup.py [--command nca-edge] [--repeats 5] [--export] [--json FILE]

| measure | bound |
|---|---|
| `nca-edge --help`, median | 0.3 s |
| `nca-edge classify ONE_CROP`, median | 1.5 s |
| `nca-edge run` on the eight sample fields, once | 30 s |
| its peak resident memory | 400 MB |
| with `--export`, and nothing else then: `nca-edge export --int8`, the shipped model's five variants, once | 60 s |
| its peak resident memory | 2 GiB |

Each process is new; the first, which may still read files from the disk, is not counted where there are repeats. Exit code 1
where a bound is missed or a command failed. FILE keeps what was not measured this time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[2]
SAMPLES = CHECKOUT / "nca_edge/samples"
CROP_FROM = "bccd-BloodImage_00209.jpg"
CROP_BOX = (285, 225, 474, 407)
"""Left, upper, right, lower px of the one white cell in that field, after the authors' box."""

VARIANTS = 5
"""Graphs of a whole bundle."""


@dataclass(frozen=True, slots=True)
class Process:
    """One finished process."""

    wall_s: float
    peak_mb: float
    """Peak resident memory, MB of 10^6 bytes."""
    returncode: int


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    bound: float
    repeats: int
    failed: bool
    """The command did not end with exit code 0."""

    @property
    def ok(self) -> bool:
        return not self.failed and self.value <= self.bound


def run_once(command: list[str], cwd: Path) -> Process:
    """Run a command with its output kept in a file, shown only if it fails."""
    log = cwd / "output.txt"
    started = time.perf_counter()
    with log.open("wb") as output:
        # fork and exec by hand: wait4 gives the peak memory of this one process and what it waited for, getrusage only
        # the largest of all children so far.
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                os.chdir(cwd)
                os.execvp(command[0], command)
            finally:
                os._exit(127)
        _, status, usage = os.wait4(pid, 0)
    wall_s = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        print(f"{' '.join(command)} ended with {code}:\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
    unit = 1 if sys.platform == "darwin" else 1024
    return Process(wall_s, usage.ru_maxrss * unit / 1e6, code)


def median_time(name: str, command: list[str], bound: float, repeats: int, cwd: Path) -> Measure:
    """Median wall time over fresh processes, after one that is not counted."""
    done = [run_once(command, cwd) for _ in range(repeats + 1)]
    value = statistics.median(process.wall_s for process in done[1:])
    return Measure(name, value, "s", bound, repeats, any(process.returncode for process in done))


def measure(command: str, repeats: int, work: Path) -> list[Measure]:
    """All measures, in the order of the table."""
    crop = work / "crop.png"
    with Image.open(SAMPLES / CROP_FROM) as field:
        field.crop(CROP_BOX).save(crop)
    results = [
        median_time("--help", [command, "--help"], 0.3, repeats, work),
        median_time("classify, one crop", [command, "classify", str(crop)], 1.5, repeats, work),
    ]
    once = run_once([command, "run", str(SAMPLES), "--out", str(work / "session")], work)
    failed = once.returncode != 0
    results.append(Measure("run, eight fields", once.wall_s, "s", 30.0, 1, failed))
    results.append(Measure("run, peak memory", once.peak_mb, "MB", 400.0, 1, failed))
    return results


def measure_export(command: str, work: Path) -> list[Measure]:
    """The command as typed in a folder without runs: the shipped model's bundle, all variants through the parity gate."""
    once = run_once([command, "export", "--int8"], work)
    failed = once.returncode != 0 or len(list(work.glob("bundles/*/model*"))) != VARIANTS
    return [
        Measure("export --int8, all variants", once.wall_s, "s", 60.0, 1, failed),
        Measure("export --int8, peak memory", once.peak_mb, "MB", 2147.0, 1, failed),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Start-up time and memory of the command line.")
    parser.add_argument("--command", default="nca-edge", help="the program to measure")
    parser.add_argument("--repeats", type=int, default=5, help="counted processes per measure")
    parser.add_argument("--export", action="store_true", help="measure the export instead; needs the extra export")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    # A path is taken from here, a bare name from PATH: the processes run in another folder.
    command = str(Path(args.command).absolute()) if os.sep in args.command else args.command
    with tempfile.TemporaryDirectory(prefix="nca-edge-bench-") as name:
        work = Path(name)
        results = measure_export(command, work) if args.export else measure(command, max(1, args.repeats), work)
    print(f"{'measure':<28} {'value':>9} {'bound':>9}  result")
    for result in results:
        verdict = "failed" if result.failed else "ok" if result.ok else "over"
        print(f"{result.name:<28} {result.value:>6.2f} {result.unit:<2} {result.bound:>6.1f} {result.unit:<2}  {verdict}")
    rows = [{**asdict(result), "ok": result.ok} for result in results]
    print(json.dumps(rows))
    if args.json:
        kept = json.loads(args.json.read_text("utf-8"))["measures"] if args.json.exists() else []
        by_name = {row["name"]: row for row in [*kept, *rows]}
        figures = {"cpus": os.cpu_count(), "measures": list(by_name.values())}
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
