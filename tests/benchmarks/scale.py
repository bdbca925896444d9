"""The scale that red cells tell: against the true one, against boxes that people drew around them, and from field to field.

acevedo20 is a scanner whose nominal scale is known (0.225 um per pixel); what is measured there are crops. The boxes of bccd
are no such reference: how much wider than its cell a box is, is measured on cells that touch nothing within a sixth around
their box, whose outline is where absorbance passes half of the cell's own. On chula one microscope took all fields: the spread
of what its fields say is an error of the scale, or a difference between the patients' red cells. Of both sets it is also asked
what the scale of earlier fields does to a field's own: where it is about right, and where the lens was changed.

Usage: python tests/benchmarks/scale.py --data DIR [--crops 500] [--every 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from nca_edge.camera import list_images, read_image
from nca_edge.preprocess import absorbance, correct, crop_background, field_background
from nca_edge.records import Image32
from nca_edge.scale import crop_scale, field_scale, red_cells

UM_PER_PX, VIEW_UM = 0.225, 36.0
ABOUT, OTHER_LENS = (0.9, 1.0, 1.1), (0.4, 0.5, 0.63, 1.6, 2.0, 2.5)
"""Expected scales over a field's own."""
Rect = tuple[float, float, float, float]


def known(folder: Path, crops: int) -> dict[str, Any]:
    """Estimated over true scale of crops, by what told it."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        files = [row["file"] for row in csv.DictReader(stream) if row["label"] != "erythroblast"]
    random.Random(0).shuffle(files)
    ratios = defaultdict(list)
    for file in files[:crops]:
        rgb = read_image(folder / file)
        scale = crop_scale(correct(rgb, crop_background(rgb)), VIEW_UM)
        ratios[scale.source].append(scale.um_per_px / UM_PER_PX)
    return {
        source: {
            "crops": len(values),
            "ratio_percentiles_10_25_50_75_90": spread(values),
            "median_error": float(np.median(np.abs(np.array(values) - 1))),
        }
        for source, values in sorted(ratios.items())
    }


def boxes(folder: Path, every: int) -> dict[str, Any]:
    """Boxes of red cells against the cells in them, and both against what the votes of the field say."""
    drawn: dict[str, list[Rect]] = {}
    with (folder / "boxes.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["label"] == "RBC":
                box = float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"])
                drawn.setdefault(row["file"], []).append(box)
    per_cell: dict[str, list[float]] = {"box_per_outline_box": [], "box_per_diameter": [], "outline_box_per_diameter": []}
    per_field: dict[str, list[float]] = {"votes_per_box": [], "votes_per_diameter": []}
    for file in sorted(drawn)[::every]:
        rgb = np.asarray(Image.open(folder / file).convert("RGB"))
        corrected = correct(rgb, field_background(rgb))
        votes = red_cells(corrected)
        total = ndimage.gaussian_filter(absorbance(corrected).sum(axis=2), 1.0)
        alone = [found for box in drawn[file] if (found := outline(total, box)) is not None]
        for side, own, diameter in alone:
            per_cell["box_per_outline_box"].append(side / own)
            per_cell["box_per_diameter"].append(side / diameter)
            per_cell["outline_box_per_diameter"].append(own / diameter)
        if field_scale(votes) is not None:
            sides = [(w * h) ** 0.5 for _, _, w, h in drawn[file]]
            per_field["votes_per_box"].append(votes.diameter_px / float(np.median(sides)))
            if alone:
                per_field["votes_per_diameter"].append(votes.diameter_px / float(np.median([a[2] for a in alone])))
    every_one = per_cell | per_field
    return {name: {"n": len(values), "percentiles_10_25_50_75_90": spread(values)} for name, values in every_one.items()}


def outline(total: Image32, box: Rect) -> tuple[float, float, float] | None:
    """Of a cell that stands alone: geometric side of the box, of its own bounding box, equivalent diameter, px."""
    x, y, w, h = box
    margin_x, margin_y = 0.15 * w, 0.15 * h
    y0, y1, x0, x1 = (round(v) for v in (y - margin_y, y + h + margin_y, x - margin_x, x + w + margin_x))
    if y0 < 0 or x0 < 0 or y1 > total.shape[0] or x1 > total.shape[1]:
        return None
    part = total[y0:y1, x0:x1]
    rim = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
    ground = float(np.percentile(rim, 20))
    labels, _ = ndimage.label(ndimage.binary_fill_holes(part > ground + 0.5 * (float(np.percentile(part, 80)) - ground)))
    middle = labels[labels.shape[0] // 2, labels.shape[1] // 2]
    cell = labels == middle
    if middle == 0 or cell[0].any() or cell[-1].any() or cell[:, 0].any() or cell[:, -1].any():
        return None
    ((rows, cols),) = ndimage.find_objects(cell.astype(np.int32))
    own = ((rows.stop - rows.start) * (cols.stop - cols.start)) ** 0.5
    return float((w * h) ** 0.5), float(own), float(2.0 * np.sqrt(cell.sum() / np.pi))


def fields(folder: Path, every: int) -> dict[str, Any]:
    """Spread of what the fields of one microscope say, in all and within each slide."""
    slides = defaultdict(list)
    asked = 0
    with (folder / "fields.csv").open(newline="", encoding="utf-8") as stream:
        for row in list(csv.DictReader(stream))[::every]:
            rgb = read_image(folder / row["file"])
            scale = field_scale(red_cells(correct(rgb, field_background(rgb))))
            asked += 1
            if scale is not None:
                slides[row["slide"]].append(scale.um_per_px)
    values = np.array([v for own in slides.values() for v in own])
    within = np.concatenate([np.array(own) / np.median(own) for own in slides.values() if len(own) > 2])
    return {
        "fields": asked, "without_scale": asked - len(values), "um_per_px": float(np.median(values)),
        "median_deviation": float(np.median(np.abs(values / np.median(values) - 1))),
        "standard_deviation": float(values.std() / values.mean()),
        "within_a_slide_median_deviation": float(np.median(np.abs(within - 1))),
        "within_a_slide_standard_deviation": float(within.std()),
    }  # fmt: skip


def expected(folder: Path, every: int) -> dict[str, Any]:
    """What becomes of a field's diameter of red cells where about its own scale is expected, and where another lens is."""
    ratios: list[float] = []
    asked = misled = 0
    for path in list_images(folder / "images")[::every]:
        rgb = read_image(path)
        corrected = correct(rgb, field_background(rgb))
        own = red_cells(corrected)
        scale = field_scale(own)
        if scale is None:
            continue
        asked += 1
        ratios += [red_cells(corrected, times * scale.um_per_px).diameter_px / own.diameter_px for times in ABOUT]
        misled += sum(red_cells(corrected, times * scale.um_per_px).diameter_px != own.diameter_px for times in OTHER_LENS)
    change = np.abs(np.array(ratios) - 1.0)
    return {
        "fields": asked, "about": ABOUT,
        "diameter_changes_percentiles_50_90_100": np.percentile(change, (50, 90, 100)).round(4).tolist(),
        "other_lens": OTHER_LENS, "asked_with_another_lens": asked * len(OTHER_LENS), "misled": misled,
    }  # fmt: skip


def spread(values: list[float]) -> list[float]:
    """Percentiles 10, 25, 50, 75, 90."""
    return [round(float(v), 4) for v in np.percentile(values, (10, 25, 50, 75, 90))]


def main() -> int:
    """Run and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with acevedo20, bccd and chula")
    parser.add_argument("--crops", type=int, default=500)
    parser.add_argument("--every", type=int, default=1, help="take every n-th field")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    result = known(args.data / "acevedo20", args.crops)
    result["bccd_boxes"] = boxes(args.data / "bccd", args.every)
    result["chula_fields"] = fields(args.data / "chula", args.every)
    for name in ("bccd", "chula"):
        result[f"{name}_expected"] = expected(args.data / name, args.every)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
