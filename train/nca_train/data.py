"""From images on disk to arrays: every image passes the device's own pixel contract once, then stays in memory.

A training cell is kept as a *wide* crop, larger than the view, so that rotation, shift and scale find real pixels; a validation cell is
kept as exactly the view that the device would make.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nca_edge.camera import read_image
from nca_edge.errors import InputError, UsageError
from nca_edge.labelled import LabelledImage, read_labelled
from nca_edge.preprocess import cell_view, correct, crop_background
from nca_edge.records import Image8, Image32
from nca_train.recipe import Data, Fields, Recipe

ARTEFACT = "artefact"
WIDE_UM_PER_PX = 0.25


@dataclass(frozen=True, slots=True)
class Cells:
    """Training and validation cells of one run."""

    classes: tuple[str, ...]
    """Sorted, ``artefact`` last."""
    wide: Image8
    """(n, p, p, 3) training crops that span ``wide_um``."""
    wide_um: float
    wide_labels: NDArray[np.int64]
    """(n,) index into ``classes``."""
    views: Image8
    """(m, size, size, 3) validation views."""
    view_labels: NDArray[np.int64]
    """(m,)"""
    mean: Image32
    """(3,) of the training cells, 0..1."""
    std: Image32
    """(3,)"""


@dataclass(frozen=True, slots=True)
class _Patch:
    """One cell or artefact: where it lies in an image that was read."""

    center: tuple[float, float]
    um_per_px: float
    label: str
    validation: bool


def load_cells(recipe: Recipe, folder: Path, fold: int, seed: int) -> Cells:
    """Read, correct and crop everything that a recipe asks for.

    Parameters
    ----------
    folder : the labelled data
    fold : the fold of the manifest that validates
    seed : places the artefact patches

    Raises
    ------
    UsageError
        Missing data, no such fold, a class without training images, a corrupt image.
    """
    listed = [image for image in read_labelled(folder) if image.label not in recipe.data.exclude]
    folds = {image.fold for image in listed}
    if fold not in folds or len(folds) < 2:
        raise UsageError(f"{folder}: has no fold {fold} to validate on; its manifest has {sorted(f for f in folds if f is not None)}.")
    side_um = recipe.view.view_um * 1.4
    size = recipe.model.grid * recipe.model.fold
    wide_px = round(side_um / WIDE_UM_PER_PX)
    wide: list[Image8] = []
    views: list[Image8] = []
    labels: tuple[list[str], list[str]] = ([], [])
    rng = np.random.default_rng(seed)
    streams = [_labelled_patches(listed, folder, recipe.data, fold, rng)]
    if recipe.fields is not None:
        streams.append(_field_patches(folder / recipe.fields.folder, recipe.fields, rng))
    for stream in streams:
        for corrected, patch in stream:
            if patch.validation:
                views.append(_to_8bit(cell_view(corrected, patch.center, patch.um_per_px, recipe.view.view_um, size)))
            else:
                wide.append(_to_8bit(cell_view(corrected, patch.center, patch.um_per_px, side_um, wide_px)))
            labels[patch.validation].append(patch.label)
    found = set(labels[0])
    classes = (*sorted(found - {ARTEFACT}), *([ARTEFACT] if ARTEFACT in found else []))
    unknown = sorted(set(labels[1]) - found)
    if unknown:
        raise UsageError(f"{folder}: {', '.join(unknown)} has validation images but none to train on; exclude it in the recipe.")
    stacked = np.stack(wide)
    margin = (wide_px - round(recipe.view.view_um / WIDE_UM_PER_PX)) // 2
    inner = stacked[:: max(1, len(stacked) // 2000), margin:-margin, margin:-margin].astype(np.float32) / 255
    return Cells(
        classes, stacked, side_um, np.array([classes.index(label) for label in labels[0]]), np.stack(views),
        np.array([classes.index(label) for label in labels[1]]),
        inner.mean((0, 1, 2), dtype=np.float64).astype(np.float32), inner.std((0, 1, 2), dtype=np.float64).astype(np.float32),
    )  # fmt: skip


def _to_8bit(view: Image32) -> Image8:
    return np.round(view * 255).astype(np.uint8)


def _read(path: Path) -> Image32:
    try:
        rgb = read_image(path)
    except InputError as error:
        raise UsageError(f"{error} Training stops before it starts: repair or remove the image.") from error
    return correct(rgb, crop_background(rgb))


def _labelled_patches(
    listed: list[LabelledImage], folder: Path, data: Data, fold: int, rng: np.random.Generator
) -> Iterator[tuple[Image32, _Patch]]:
    """Each labelled cell, and patches of the corners of some of the images."""
    corners = set(rng.choice(len(listed), min(data.corner_patches, len(listed)), replace=False).tolist())
    for number, image in enumerate(listed):
        corrected = _read(folder / image.file)
        height, width = corrected.shape[:2]
        validation = image.fold == fold
        label = data.map.get(image.label, image.label)
        yield corrected, _Patch((width / 2, height / 2), data.um_per_px, label, validation)
        if number in corners:
            away = rng.uniform(0.04, 0.14, 2)
            share = np.where(rng.random(2) < 0.5, away, 1 - away)
            yield corrected, _Patch((width * share[0], height * share[1]), data.um_per_px, ARTEFACT, validation)


def _field_patches(folder: Path, options: Fields, rng: np.random.Generator) -> Iterator[tuple[Image32, _Patch]]:
    """Patches without a white cell: away from every WBC box, and platelets; every fourth field validates."""
    boxes: dict[str, list[tuple[str, float, float, float, float]]] = {}
    try:
        with (folder / "boxes.csv").open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                place = (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
                boxes.setdefault(row["file"], []).append((row["label"], *place))
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(f"{folder}: needs boxes.csv (file,label,x,y,w,h) for the recipe's [fields] ({error}).") from error
    files = sorted(boxes)
    per_field = -(-options.patches // len(files))
    platelets = [(file, box) for file in files for box in boxes[file] if box[0] == "Platelets"]
    chosen = {platelets[i] for i in rng.permutation(len(platelets))[: options.platelets].tolist()}
    for number, file in enumerate(files):
        corrected = _read(folder / file)
        height, width = corrected.shape[:2]
        centers = [(b[1] + b[3] / 2, b[2] + b[4] / 2) for b in boxes[file] if (file, b) in chosen]
        white = [b for b in boxes[file] if b[0] == "WBC"]
        for _ in range(20 * per_field):
            if len(centers) >= per_field + sum((file, b) in chosen for b in boxes[file]):
                break
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            reach = 3.0 / options.um_per_px  # px: the patch's centre keeps this far from a white cell's box
            if all(not (b[1] - reach < x < b[1] + b[3] + reach and b[2] - reach < y < b[2] + b[4] + reach) for b in white):
                centers.append((x, y))
        for center in centers:
            yield corrected, _Patch(center, options.um_per_px, ARTEFACT, number % 4 == 3)
