"""Data with known mistakes, and results as the benchmarks write them."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nca_edge.bundle import load_bundle
from nca_edge.labelled import half, read_labelled
from nca_edge.trust import Trust
from tests.workstation.synthetic import write_data, write_manifest

OTHER = {"basophil": "eosinophil", "eosinophil": "basophil"}
SWAPPED = {"basophil": 2, "eosinophil": 1}
"""How many cells of half b bear the other label; the tiny model names all drawn cells rightly."""

RATIOS = {
    "strongest_first": 0.3,
    "relevance_first": 0.35,
    "speaking_first": 0.45,
    "random": 0.5,
    "ratio": 0.6,
    "ratio_relevance_first": 0.7,
    "ratio_speaking_first": 0.9,
}
TRUST = Trust(
    1000, 1.5, "training cells", RATIOS, {**RATIOS, "ratio": 1.25}, {},
    {"inside": 0.9, "center": 0.8, "mask": 0.25, "n": 990, "no_mask": 4, "large": 6},
    {"rotation": 0.7, "flip": 0.65, "stain": 0.9, "fire": 0.85, "precision": None, "n": 200},
    {"n": 40, "right": 0.75, "others": 960, "others_right": 0.875},
    {
        "looks": 8, "n": 200, "deletion": {**RATIOS, "ratio": 0.55}, "insertion": RATIOS,
        "peaks": {"inside": 0.92, "center": 0.85},
        "overlap": {"rotation": 1.0, "flip": 1.0, "stain": 0.95, "precision": None},
    },
    4.0, 3.5,
)  # fmt: skip


def write_mislabelled(folder: Path) -> Path:
    """The drawn data with some wrong labels among the cells that are reported on."""
    write_data(folder)
    left, rows = dict(SWAPPED), []
    for image in read_labelled(folder):
        label = image.label
        if image.fold == 3 and half(image.file) == "b" and left.get(label, 0):
            left[label] -= 1
            label = OTHER[label]
        rows.append((image.file, label, image.fold or 0))
    write_manifest(folder, rows)
    return folder


def write_results(folder: Path, bundle: Path) -> Path:
    """What the benchmarks write, in their own words; ``tests/benchmarks`` is on the path of imports."""
    clinics, schedules = importlib.import_module("clinics"), importlib.import_module("schedules")
    of = {"model": "tiny", "manifest_sha256": load_bundle(bundle).sha256}
    confusion = [[8, 2, 0, 0, 0], [0, 4, 0, 0, 0], *[[0] * 5] * 3]
    recall = {"neutrophil": 0.8, "lymphocyte": 1.0, "monocyte": None, "eosinophil": None, "basophil": None}
    clinic = clinics.Result("town", 14, 12 / 14, (0.572, 0.982), recall, confusion, 3)
    steady = schedules.Result("drawn", 0.5, 20, [0.05, 0.1], 0.0625, [0.9, 0.85, 0.95])
    moved = replace(steady, set="town", um_per_px=None)
    folder.mkdir()
    put(folder / "clinics.json", {**of, "groups": clinics.GROUPS, "sets": [asdict(clinic)]})
    put(folder / "schedules.json", {
        **of, "seeds": [1, 2], "sets": [asdict(steady), asdict(moved)],
        "changed_by_scale": 0.25, "changed_by_scale_interval": [0.0866, 0.491],
    })  # fmt: skip
    put(folder / "explanations.json", {**of, "fold": "3b", "fp32": TRUST.to_json(), "int8": TRUST.to_json()})
    return folder


def put(path: Path, value: Any) -> None:
    """Write ``value`` as JSON."""
    path.write_text(json.dumps(value), "utf-8")


def lines(card: str, title: str) -> list[str]:
    """The lines of one section of a card."""
    return card.split(f"## {title}\n\n")[1].split("\n\n## ")[0].splitlines()
