"""How many white cells are listed, how well the scale is known and how many fields the gate refuses, on labelled fields.

Usage: python tests/benchmarks/detection.py --data DIR [--set bccd chula] [--every N] [--change all] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optics import CHANGES, Rect, camera, optics
from PIL import Image
from scipy import special

from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.pipeline import read_field
from nca_edge.records import Detection, Frame, Image8
from nca_edge.scale import RED_CELL_UM


@dataclass
class Tally:
    """What was counted over the fields of one set."""

    true: int = 0
    found: int = 0
    matched: int = 0
    fields: int = 0
    rejected: int = 0
    without_scale: int = 0
    iou: list[float] = field(default_factory=list)
    scale_error: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def read_truth(folder: Path) -> dict[str, tuple[list[Rect], float]]:
    """File -> (boxes of white cells, median sqrt(w * h) of its red-cell boxes or 0)."""
    white: dict[str, list[Rect]] = {}
    red: dict[str, list[float]] = {}
    if (folder / "fields.csv").exists():
        with (folder / "fields.csv").open(newline="") as stream:
            white = {row["file"]: [] for row in csv.DictReader(stream)}
    with (folder / "boxes.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            rect = float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"])
            white.setdefault(row["file"], [])
            if row["label"] == "RBC":
                red.setdefault(row["file"], []).append((rect[2] * rect[3]) ** 0.5)
            elif row["label"] != "Platelets":
                white[row["file"]].append(rect)
    return {name: (rects, float(np.median(red[name])) if name in red else 0.0) for name, rects in white.items()}


def match(cells: list[Detection], truth: list[Rect]) -> list[float]:
    """IoU of each true box whose cell was found: the centre lies inside, one to one, surest cells first."""
    free, overlaps = list(truth), []
    for cell in sorted(cells, key=lambda c: -c.score):
        x, y = cell.box.center
        inside = [t for t in free if t[0] <= x <= t[0] + t[2] and t[1] <= y <= t[1] + t[3]]
        if inside:
            best = max(inside, key=lambda t: overlap(cell, t))
            overlaps.append(overlap(cell, best))
            free.remove(best)
    return overlaps


def overlap(cell: Detection, rect: Rect) -> float:
    """Intersection over union of a found and a true box."""
    box = cell.box
    w = max(0.0, min(box.x + box.w, rect[0] + rect[2]) - max(box.x, rect[0]))
    h = max(0.0, min(box.y + box.h, rect[1] + rect[3]) - max(box.y, rect[1]))
    return w * h / (box.w * box.h + rect[2] * rect[3] - w * h)


def interval(hits: int, n: int) -> list[float]:
    """95 % Clopper-Pearson interval of hits / n."""
    low = float(special.betaincinv(hits, n - hits + 1, 0.025)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, 0.975)) if hits < n else 1.0
    return [low, high]


def one_field(rgb: Image8, rects: list[Rect], red_px: float, classifier: Classifier, tally: Tally) -> None:
    """Read one field, as ``nca-edge run`` does, and compare; a rejected field's cells count as missed."""
    tally.fields += 1
    tally.true += len(rects)
    started = time.process_time()
    reading = read_field(Frame("field", rgb), classifier, None, [])
    if not reading.accepted:
        tally.rejected += 1
        return
    cells = [cell.detection for cell in reading.cells]
    tally.seconds.append(time.process_time() - started)
    overlaps = match(cells, rects)
    tally.found += len(cells)
    tally.matched += len(overlaps)
    tally.iou += overlaps
    own = reading.scale is not None and reading.scale.source == "red_cells"
    own = reading.scale if reading.scale is not None and reading.scale.source == "red_cells" else None
    if red_px and own is not None:
        tally.scale_error.append(abs(own.um_per_px / (RED_CELL_UM / red_px) - 1.0))
    tally.without_scale += own is None


def summary(name: str, change: str, tally: Tally) -> dict[str, Any]:
    """Figures of one set."""
    figures = asdict(tally)
    for key in ("iou", "scale_error", "seconds"):
        values = figures.pop(key)
        figures[f"{'mean' if key == 'iou' else 'median'}_{key}"] = (
            float((np.mean if key == "iou" else np.median)(values)) if values else None
        )
    return {
        "set": name,
        "change": change,
        "recall": tally.matched / max(tally.true, 1),
        "recall_interval": interval(tally.matched, tally.true),
        "precision": tally.matched / max(tally.found, 1),
        "precision_interval": interval(tally.matched, tally.found),
        **figures,
    }


def main() -> int:
    """Run and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with sub-folders bccd and chula")
    parser.add_argument("--set", nargs="+", default=["bccd", "chula"])
    parser.add_argument("--every", type=int, default=1, help="take every n-th field in order of name")
    parser.add_argument("--limit", type=int, help="fields a set, drawn with a fixed seed")
    parser.add_argument(
        "--change", nargs="+", choices=("all", *CHANGES), default=["none"], help="show the fields as another microscope would"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    changes = CHANGES if "all" in args.change else args.change
    results, classifier = [], load(ModelChoice(threads=1))
    for name in args.set:
        truth = read_truth(args.data / name)
        files = sorted(truth)[:: args.every]
        random.Random(0).shuffle(files)
        for change in changes:
            tally = Tally()
            for number, file in enumerate(files[: args.limit]):
                original = np.asarray(Image.open(args.data / name / file).convert("RGB"))
                rgb, rects, zoom = optics(original, truth[file][0], change)
                one_field(camera(rgb, change, number), rects, truth[file][1] * zoom, classifier, tally)
            results.append(summary(name, change, tally))
            print(line(results[-1]), flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def line(r: dict[str, Any]) -> str:
    """One set in one paragraph."""
    scale = "-" if r["median_scale_error"] is None else f"{r['median_scale_error']:.3f}"
    low, high = r["recall_interval"], r["precision_interval"]
    text = (
        f"{r['set']} ({r['change']}): recall {r['recall']:.3f} [{low[0]:.3f}, {low[1]:.3f}] of {r['true']}, "
        f"precision {r['precision']:.3f} [{high[0]:.3f}, {high[1]:.3f}] of {r['found']}, mean IoU {r['mean_iou'] or 0:.2f}, "
        f"scale error {scale}, no scale {r['without_scale']}, "
        f"rejected {r['rejected']}/{r['fields']} fields, {r['median_seconds'] or 0:.2f} s a field"
    )
    return text


if __name__ == "__main__":
    sys.exit(main())
