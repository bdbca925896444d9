"""From images on disk to arrays: every image passes the device's own pixel contract once, then stays in memory.

A training cell is kept as a *wide* crop, larger than the view, so that rotation, shift and scale find real pixels; a validation
cell is kept as exactly the view that the device would make.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nca_edge.camera import read_image
from nca_edge.classifier import from_8bit
from nca_edge.errors import InputError, UsageError
from nca_edge.labelled import LabelledImage, read_labelled
from nca_edge.preprocess import cell_view, correct, crop_background, match_stain, plain_view
from nca_edge.records import Image8, Image32
from nca_train.recipe import Data, Fields, Recipe

ARTEFACT = "artefact"
WIDE_UM_PER_PX = 0.25
WIDER = 1.4
"""Side of a wide crop over the side of the view: what a square needs to be turned by any angle."""

_Box = tuple[str, float, float, float, float]
"""Label, x, y, w, h of a row of ``boxes.csv``, px."""


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


class _Stack:
    """Square 8-bit views and their labels, one behind the other in one buffer.

    A list of 10,000 views that is stacked in the end needs its memory twice: 1.2 GB at 143 px a side.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.labels: list[str] = []
        self._pixels = bytearray()

    def add(self, view: Image32, label: str) -> None:
        """Keep a (side, side, 3) view, 0..1."""
        self._pixels += np.round(view * 255).astype(np.uint8).tobytes()
        self.labels.append(label)

    def images(self) -> Image8:
        """(n, side, side, 3); nothing can be added any more."""
        return np.frombuffer(self._pixels, np.uint8).reshape(-1, self.side, self.side, 3)

    def indices(self, classes: tuple[str, ...]) -> NDArray[np.int64]:
        """(n,) index of each label."""
        return np.array([classes.index(label) for label in self.labels], np.int64)


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
    listed = _listed(recipe.data, folder, fold)
    view_um, side_um = recipe.view.view_um, recipe.view.view_um * WIDER
    wide = _Stack(round(side_um / WIDE_UM_PER_PX))
    views = _Stack(recipe.model.grid * recipe.model.fold)
    rng = np.random.default_rng(seed)
    streams = [_labelled_patches(listed, folder, recipe.data, fold, rng)]
    if recipe.fields is not None:
        streams.append(_field_patches(folder / recipe.fields.folder, recipe.fields, rng))
    for stream in streams:
        for corrected, patch in stream:
            if patch.validation:
                views.add(cell_view(corrected, patch.center, patch.um_per_px, view_um, views.side), patch.label)
            else:
                wide.add(plain_view(corrected, patch.center, patch.um_per_px, side_um, wide.side), patch.label)
    found = set(wide.labels)
    _check_classes(folder, found, set(views.labels))
    classes = (*sorted(found - {ARTEFACT}), *([ARTEFACT] if ARTEFACT in found else []))
    stacked = wide.images()
    mean, std = _statistics(stacked, round(view_um / WIDE_UM_PER_PX))
    return Cells(classes, stacked, side_um, wide.indices(classes), views.images(), views.indices(classes), mean, std)


def _listed(data: Data, folder: Path, fold: int) -> list[LabelledImage]:
    """The images of a recipe, once it is sure that they can train and validate; no pixel is read yet."""
    listed = [image for image in read_labelled(folder) if image.label not in data.exclude]
    folds = {image.fold for image in listed}
    if fold not in folds or len(folds) < 2:
        present = ", ".join(str(f) for f in sorted(f for f in folds if f is not None)) or "none"
        raise UsageError(
            f"{folder}: needs fold {fold} to validate on and others to train on; folds in its manifest.csv: {present}."
        )
    training = {data.map.get(image.label, image.label) for image in listed if image.fold != fold}
    validation = {data.map.get(image.label, image.label) for image in listed if image.fold == fold}
    _check_classes(folder, {*training, ARTEFACT}, validation)  # artefacts may come from corners and fields
    return listed


def _check_classes(folder: Path, training: set[str], validation: set[str]) -> None:
    unknown = sorted(validation - training)
    if unknown:
        raise UsageError(
            f"{folder}: {', '.join(unknown)} has validation images but none to train on; exclude it in the recipe."
        )
    if len(training) < 2 or not validation - {ARTEFACT}:
        raise UsageError(f"{folder}: needs two classes to train on, and cells that are no artefact to validate on.")


def _statistics(wide: Image8, inner_px: int) -> tuple[Image32, Image32]:
    """Mean and standard deviation of the colours in the middle of at most 4,000 crops, each (3,), 0..1."""
    margin = (wide.shape[1] - inner_px) // 2
    inside = slice(margin, wide.shape[1] - margin)
    inner8 = wide[:: max(1, len(wide) // 2000), inside, inside]
    inner = match_stain(from_8bit(inner8))
    mean, std = inner.mean((0, 1, 2), dtype=np.float64), inner.std((0, 1, 2), dtype=np.float64)
    return mean.astype(np.float32), np.maximum(std, 1 / 255).astype(np.float32)  # one colour everywhere must not divide by 0


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


def _read_boxes(folder: Path) -> dict[str, list[_Box]]:
    boxes: dict[str, list[_Box]] = {}
    try:
        with (folder / "boxes.csv").open(newline="", encoding="utf-8-sig") as stream:
            for row in csv.DictReader(stream):
                place = (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
                boxes.setdefault(row["file"], []).append((row["label"], *place))
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise UsageError(f"{folder}: needs boxes.csv (file,label,x,y,w,h) for the recipe's [fields] ({error}).") from error
    if not boxes:
        raise UsageError(f"{folder}: boxes.csv lists no box; complete it or leave [fields] out of the recipe.")
    return boxes


def _field_patches(folder: Path, options: Fields, rng: np.random.Generator) -> Iterator[tuple[Image32, _Patch]]:
    """Patches whose centre is no white cell: away from every WBC box, and platelets; every fourth field validates."""
    boxes = _read_boxes(folder)
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
