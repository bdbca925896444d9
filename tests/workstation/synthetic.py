"""A tiny labelled data set, drawn: two classes of coloured cells, artefacts, and fields with boxes."""

from __future__ import annotations

import csv
import json
import os
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nca_edge.labelled import half
from nca_train.recipe import Recipe, parse_recipe

ROOT = Path(__file__).parents[2]
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
    """``manifest.csv`` with four folds, images of both classes and of platelets, and ``fields`` beside them.

    Of each label and fold every other image belongs to half ``a``, beginning with the first.
    """
    rng = np.random.default_rng(0)
    rows = []
    (folder / "images").mkdir(parents=True)
    for label in COLOURS:
        for n in range(per_class):
            radius = rng.uniform(1, 2) if label == "platelet" else rng.uniform(6, 8)
            file = _name(f"images/{label}_{n:02d}", "ab"[n // FOLDS % 2])
            image = cell(rng, SIDE, label, radius, (SIDE / 2 + rng.normal(), SIDE / 2 + rng.normal()))
            Image.fromarray(image).save(folder / file)
            rows.append((file, label, n % FOLDS))
    write_manifest(folder, rows)
    write_fields(folder / "fields", rng)
    return folder


def _name(stem: str, wanted: str) -> str:
    """The first of ``stem-0.png``, ``stem-1.png`` ... that belongs to the wanted half."""
    return next(file for k in count() if half(file := f"{stem}-{k}.png") == wanted)


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
    """A recipe that learns the drawn classes in seconds, by all that a recipe can ask for but bf16 and the focal loss."""
    model = {"grid": 8, "fold": 2, "channels": 20, "hidden": 24, "steps": 4, "head": 8}
    ways = {"exits": [2], "exit_weight": 0.3, "consistency": 1.0, "consistency_from": 0.5}
    table = {
        "name": "tiny",
        "model": {**model, "pool": "max+mean", "update": "half-lattice"},
        "view": {"view_um": 10.0},
        "data": {"um_per_px": 0.5, "map": {"platelet": "artefact"}, "corner_patches": 6},
        "fields": {"folder": "fields", "um_per_px": 0.25, "patches": 10, "platelets": 4, "white_cells": True},
        "train": {"epochs": 12, "batch": 8, "learning_rate": 0.01, "ema": 0.9, "optimizer": "muon", **ways, **train},
        "augment": {"scale_sd": 0.05, "shift_um": 0.3, "noise_sd": 0.01},
        "sources": [{"name": "drawn", "licence": "CC0", "attribution": "nobody", "used_for": "tests"}],
    }
    return parse_recipe(table)


def write_recipe(path: Path, recipe: Recipe) -> Path:
    """The recipe as TOML, without its sources."""
    lines = [f"name = {json.dumps(recipe.name)}"]
    for name, table in recipe.decisive().items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
    path.write_text("\n".join(lines), "utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)  # numbers, texts, truths and lists of them read the same


def environment(**more: str) -> dict[str, str]:
    """Of a process that shall find the packages of this checkout, and compute with the same bits as this one."""
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "devices", "train", "export"))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def quiet(text: str) -> None:
    """Nobody listens."""


def rows_of(run: Path) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
