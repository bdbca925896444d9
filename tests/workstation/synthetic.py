"""A tiny labelled data set, drawn: two classes of coloured cells, artefacts, and fields with boxes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nca_train.recipe import Recipe, parse_recipe

COLOURS = {"basophil": (150, 140, 240), "eosinophil": (245, 150, 130), "platelet": (200, 150, 210)}
SIDE = 24
"""px of a crop, at 0.5 um a pixel."""
FOLDS = 4


NUCLEUS = (80, 40, 150)


def cell(rng: np.random.Generator, side: int, label: str, radius: float, center: tuple[float, float]) -> np.ndarray:
    """A disc with a nucleus on white, (side, side, 3) uint8, with a little noise; classes differ around the nucleus."""
    y, x = np.indices((side, side))
    distance = np.hypot(x - center[0], y - center[1])
    image = np.full((side, side, 3), 250.0)
    for reach, colour in ((radius, COLOURS[label]), (radius / 2, NUCLEUS)):
        inside = np.clip(reach - distance + 0.5, 0, 1)[..., None]
        image = image * (1 - inside) + np.array(colour) * inside
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def write_data(folder: Path, per_class: int = 24) -> Path:
    """``manifest.csv`` with four folds, images of both classes and of platelets, and ``fields`` beside them."""
    rng = np.random.default_rng(0)
    rows = []
    (folder / "images").mkdir(parents=True)
    for label in COLOURS:
        for n in range(per_class):
            radius = rng.uniform(1, 2) if label == "platelet" else rng.uniform(6, 8)
            file = f"images/{label}_{n:02d}.png"
            image = cell(rng, SIDE, label, radius, (SIDE / 2 + rng.normal(), SIDE / 2 + rng.normal()))
            Image.fromarray(image).save(folder / file)
            rows.append((file, label, n % FOLDS))
    write_manifest(folder, rows)
    write_fields(folder / "fields", rng)
    return folder


def write_manifest(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    """``manifest.csv`` of the rows."""
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file", "label", "fold"), *rows])


def write_fields(folder: Path, rng: np.random.Generator, fields: int = 5) -> None:
    """Whole fields of 120x90 px at 0.25 um a pixel: one white cell and two platelets in each, and their boxes."""
    folder.mkdir()
    boxes = []
    for n in range(fields):
        image = np.full((90, 120, 3), 245, np.uint8)
        place = rng.uniform(30, 60, 2)
        image[:, :90] = cell(rng, 90, "basophil", 14, (float(place[0]), float(place[1])))
        Image.fromarray(image).save(folder / f"field{n}.png")
        boxes.append((f"field{n}.png", "WBC", place[0] - 14, place[1] - 14, 28, 28))
        boxes += [(f"field{n}.png", "Platelets", 100, y, 8, 8) for y in (10, 70)]
    with (folder / "boxes.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file", "label", "x", "y", "w", "h"), *boxes])


def tiny_recipe(**train: Any) -> Recipe:
    """A recipe that learns the drawn classes in seconds."""
    model = {"grid": 8, "fold": 2, "channels": 20, "hidden": 24, "steps": 4, "head": 8, "pool": "max", "update": "half-lattice"}
    table = {
        "name": "tiny",
        "model": model,
        "view": {"view_um": 10.0},
        "data": {"um_per_px": 0.5, "map": {"platelet": "artefact"}, "corner_patches": 6},
        "fields": {"folder": "fields", "um_per_px": 0.25, "patches": 10, "platelets": 4},
        "train": {"epochs": 12, "batch": 8, "learning_rate": 0.01, "ema": 0.9, **train},
        "augment": {"scale_sd": 0.05, "shift_um": 0.3, "noise_sd": 0.01},
        "sources": [{"name": "drawn", "licence": "CC0", "attribution": "nobody", "used_for": "tests"}],
    }
    return parse_recipe(table)


def quiet(text: str) -> None:
    """Nobody listens."""


def rows_of(run: Path) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
