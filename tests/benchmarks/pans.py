"""How many cells are counted twice, or missed, while a simulated hand moves the stage over sheets of real fields.

The way, the tremor, the returns and the hunts for focus follow from a seed (nca_edge/camera/operator.py); the camera is looked
at in its own time, so that a slow machine gets the same figures. Truth: the white cells that a person boxed, wholly inside
their field by 5 px. A cell is found where a counted cell's centre lies in its box.

Usage: python tests/benchmarks/pans.py --data DIR [--set bccd] [--sheets 20] [--side 3] [--seed 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from detection import Rect, interval, read_truth

from nca_edge.camera.mosaic import Mosaic, laid_fields
from nca_edge.camera.operator import Operator
from nca_edge.camera.simulated import Microscope
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.live.chart import Chart
from nca_edge.live.field import Analyst
from nca_edge.live.watcher import Watcher

INSIDE_PX = 5
FPS = 6.0
SHUTTER_S = 0.01


@dataclass
class Tally:
    """Figures of some sheets."""

    cells: int = 0
    twice: int = 0
    missed: int = 0
    missed_unseen: int = 0
    """Of these, never wholly in view while the stage rested in focus."""
    missed_artefact: int = 0
    """Of these, found, and called an artefact or no cell that counts."""
    others: int = 0
    """Counted finds on no box: cells at seams, cells that nobody boxed, and false finds."""
    others_twice: int = 0
    fields: int = 0
    frames: int = 0
    refused: int = 0
    sheets: int = 0
    which: list[str] = field(default_factory=list)

    def plus(self, other: Tally, where: str) -> Tally:
        """The sum of both."""
        numbers = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name != "which"}
        return Tally(**numbers, which=self.which + [where + line for line in other.which])


@dataclass(frozen=True)
class Task:
    """One sheet."""

    folder: Path
    files: tuple[str, ...]
    seed: int


def one_sheet(task: Task) -> Tally:
    """Lay it and pan over it."""
    tally = Tally()
    mosaic = laid_fields([task.folder / file for file in task.files])
    pan(mosaic, truth_of(mosaic, read_truth(task.folder)), task.seed, model(), tally)
    return tally


@cache
def model() -> Classifier:
    """Once in each process."""
    return load(ModelChoice(None, "onnx", "fp32", 1))


def truth_of(mosaic: Mosaic, boxes: dict[str, tuple[list[Rect], float]]) -> list[Rect]:
    """Boxes on the sheet, of the cells that are wholly inside their field."""
    width, height = mosaic.size
    out = []
    for tile in mosaic.tiles:
        for x, y, w, h in boxes[f"images/{tile.file}"][0]:
            if min(x, y, width - x - w, height - y - h) >= INSIDE_PX:
                out.append((tile.x + x, tile.y + y, w, h))
    return out


def pan(mosaic: Mosaic, truth: list[Rect], seed: int, classifier: Classifier, tally: Tally) -> None:
    """One sheet, from corner to corner."""
    scope = Microscope(mosaic, mosaic.size, seed)
    operator = Operator((mosaic.rgb.shape[1], mosaic.rgb.shape[0]), scope.size, seed)
    chart = Chart()
    watcher, analyst = Watcher(chart), Analyst(classifier, chart, None, None)
    finds: list[tuple[float, float]] = []
    listed: list[tuple[float, float]] = []
    shown = [False] * len(truth)
    for number in range(int(operator.duration_s * FPS)):
        at_s = number / FPS
        pose, before = operator.pose(at_s), operator.pose(max(0.0, at_s - SHUTTER_S))
        rgb = scope.photograph(pose, (pose.x - before.x, pose.y - before.y))
        look = watcher.look(rgb, at_s)
        tally.frames += 1
        if pose.resting and pose.blur_px < 1.0:
            for n, (x, y, w, h) in enumerate(truth):
                shown[n] |= pose.x < x and pose.y < y and x + w < pose.x + scope.size[0] and y + h < pose.y + scope.size[1]
        if look.prepare:
            analyst.prepare(rgb, look)
        if not look.read:
            continue
        reading, answer = analyst.read(f"frame-{number:06d}", rgb, look)
        watcher.answer(look.rest, answer, look.glance.focus)
        tally.refused += answer in ("blurred", "rejected")
        if reading is None:
            continue
        tally.fields += 1
        chart.connect(reading.field)
        for cell in reading.cells:
            x, y = cell.detection.box.center
            (finds if cell.counted else listed).append((x + round(pose.x), y + round(pose.y)))
    compare(truth, finds, listed, shown, tally)


def compare(
    truth: list[Rect], finds: list[tuple[float, float]], listed: list[tuple[float, float]], shown: list[bool], tally: Tally
) -> None:
    """Add one sheet's figures."""
    tally.sheets += 1
    tally.cells += len(truth)
    free = list(finds)
    for n, box in enumerate(truth):
        hits = [p for p in free if inside(p, box)]
        free = [p for p in free if p not in hits]
        tally.twice += len(hits) > 1
        if not hits:
            tally.missed += 1
            tally.missed_unseen += not shown[n]
            tally.missed_artefact += any(inside(p, box) for p in listed)
        if len(hits) != 1:
            tally.which.append(f"cell at {[round(v) for v in box]} counted {len(hits)} times")
    tally.others += len(free)
    tally.others_twice += sum(
        any(abs(a[0] - b[0]) < 40 and abs(a[1] - b[1]) < 40 for b in free[:i]) for i, a in enumerate(free)
    )


def inside(point: tuple[float, float], box: Rect) -> bool:
    return box[0] <= point[0] <= box[0] + box[2] and box[1] <= point[1] <= box[1] + box[3]


def summary(name: str, args: argparse.Namespace, tally: Tally) -> dict[str, Any]:
    """Figures of one set."""
    n = max(tally.cells, 1)
    return {
        "set": name, "sheets": tally.sheets, "fields_a_side": args.side, "seed": args.seed, "fps": FPS, "cells": tally.cells,
        "twice": tally.twice, "twice_share": tally.twice / n, "twice_interval": interval(tally.twice, n),
        "missed": tally.missed, "missed_share": tally.missed / n, "missed_interval": interval(tally.missed, n),
        "missed_never_whole_in_focus": tally.missed_unseen, "missed_listed_not_counted": tally.missed_artefact,
        "other_finds": tally.others, "other_finds_twice": tally.others_twice, "frames": tally.frames,
        "fields_read": tally.fields, "readings_refused": tally.refused, "which": tally.which,
    }  # fmt: skip


def main() -> int:
    """Run and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sub-folders bccd and chula")
    parser.add_argument("--set", nargs="+", default=["bccd"])
    parser.add_argument("--sheets", type=int, default=20)
    parser.add_argument("--side", type=int, default=3, help="fields along each side of a sheet")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    results = []
    for name in args.set:
        truth = read_truth(args.data / name)
        files = sorted(truth)
        random.Random(args.seed).shuffle(files)
        each = args.side**2
        tasks = [
            Task(args.data / name, tuple(files[n * each : (n + 1) * each]), args.seed * 1000 + n)
            for n in range(min(args.sheets, len(files) // each))
        ]
        total = Tally()
        with ProcessPoolExecutor(args.workers) as pool:
            for number, tally in enumerate(pool.map(one_sheet, tasks), start=1):
                total = total.plus(tally, f"{name} sheet {number}: ")
                print(f"{name} sheet {number}: {total.cells} cells, {total.twice} twice, {total.missed} missed "
                      f"({total.missed_unseen} never whole in focus, {total.missed_artefact} listed), {total.fields} fields, "
                      f"{total.refused} refused", flush=True)  # fmt: skip
                if args.json:  # after each sheet: hours of work must not hang on the last one
                    args.json.write_text(json.dumps([*results, summary(name, args, total)], indent=2) + "\n")
        results.append(summary(name, args, total))
    print("\n".join(line for r in results for line in r["which"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
