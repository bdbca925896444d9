"""Whole fields of another clinic, as `nca-edge run` reads them: how many true cells are found, and named as what.

Usage: python tests/benchmarks/naming.py --data DIR/chula [--every N] [--json FILE]
DIR/chula holds boxes.csv (file,label,x,y,w,h; label a class or a group of the model). No pixel of it trained the model.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

from nca_edge.camera import read_image
from nca_edge.classifier import ModelChoice, load
from nca_edge.differential import clopper_pearson
from nca_edge.pipeline import read_field
from nca_edge.records import Frame

Truth = tuple[str, float, float, float, float]


def read_boxes(folder: Path) -> dict[str, list[Truth]]:
    """File -> label, x, y, w, h of each boxed cell."""
    boxes: dict[str, list[Truth]] = {}
    with (folder / "boxes.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            place = (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
            boxes.setdefault(row["file"], []).append((row["label"], *place))
    return boxes


def measure(folder: Path, every: int) -> dict[str, Any]:
    """Read every n-th field and compare each found cell with the box that its centre lies in."""
    classifier = load(ModelChoice())
    manifest = classifier.bundle.manifest
    group_of = {member: group for group, members in manifest.groups.items() for member in members}
    boxes = read_boxes(folder)
    counts: Counter[str] = Counter()
    answers: Counter[tuple[str, str]] = Counter()
    for file in sorted(boxes)[::every]:
        free = list(boxes[file])
        counts["fields"] += 1
        counts["true"] += len(free)
        for cell in read_field(Frame(file, read_image(folder / file)), classifier, None, []).cells:
            x, y = cell.detection.box.center
            truth = next((t for t in free if t[1] <= x <= t[1] + t[3] and t[2] <= y <= t[2] + t[4]), None)
            label = cell.prediction.label
            counts["counted"] += cell.counted
            counts["counted_true"] += cell.counted and truth is not None
            if truth is None:
                counts["false_artefact" if label == "artefact" else "false_cell"] += 1
                continue
            free.remove(truth)
            group = group_of.get(label, label)
            counts["found"] += 1
            counts["right"] += truth[0] in (label, group)
            counts["artefact"] += label == "artefact"
            counts["sure"] += not cell.prediction.unsure
            counts["sure_right"] += not cell.prediction.unsure and truth[0] in (label, group)
            answers[truth[0], group] += 1
    return {
        "set": folder.name, "model": manifest.name, "manifest_sha256": classifier.bundle.sha256, **counts,
        "right_interval": clopper_pearson(counts["right"], max(counts["found"], 1)),
        "counted_interval": clopper_pearson(counts["counted_true"], max(counts["counted"], 1)),
        "answers": [[truth, answer, n] for (truth, answer), n in sorted(answers.items())],
    }  # fmt: skip


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    r = measure(given.data, given.every)
    found, low, high = max(r["found"], 1), *r["right_interval"]
    print(
        f"{r['set']}: {r['fields']} fields, {r['found']} of {r['true']} true cells found, {r['artefact']} of them as artefact"
    )
    print(f"{r['counted']} count (whole, no artefact), of these {r['counted_true']} boxed")
    print(f"group right: {r['right'] / found:.3f} ({low:.3f} - {high:.3f}); sure {r['sure']}, of these right {r['sure_right']}")
    print(f"finds without a box: {r.get('false_cell', 0)} named as cells, {r.get('false_artefact', 0)} called artefact")
    for truth, answer, n in r["answers"]:
        print(f"  {truth:<12} -> {answer:<24} {n}")
    if given.json:
        given.json.write_text(json.dumps(r, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
