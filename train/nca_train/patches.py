"""Where cells and artefacts lie in the images of a data set: cell crops, their corners, and whole fields with boxes.

Every image belongs to one part of the data: ``train``, or half ``a`` or ``b`` of what validates. What an image gives depends on
the seed and the data set alone, so the parts can be read apart.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nca_edge.camera import read_image
from nca_edge.errors import InputError, UsageError
from nca_edge.labelled import LabelledImage, half
from nca_edge.preprocess import correct, crop_background
from nca_edge.records import Image32
from nca_train.recipe import Data, Fields

ARTEFACT = "artefact"
WHITE_CELL = "white_cell"
"""Label of a boxed cell of unknown class: anything but an artefact."""
TRAIN = "train"

_Box = tuple[str, float, float, float, float]
"""Label, x, y, w, h of a row of ``boxes.csv``, px."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One cell or artefact: where it lies in an image that was read."""

    center: tuple[float, float]
    """(x, y) px."""
    um_per_px: float
    label: str
    part: str
    """``train``, ``a`` or ``b``."""


def _read(path: Path) -> Image32:
    try:
        rgb = read_image(path)
    except InputError as error:
        raise UsageError(f"{error} Training stops before it starts: repair or remove the image.") from error
    return correct(rgb, crop_background(rgb))


def part_of(image: LabelledImage, fold: int) -> str:
    """The part that an image of the manifest belongs to."""
    return half(image.file) if image.fold == fold else TRAIN


def labelled_patches(
    listed: list[LabelledImage], folder: Path, data: Data, split: tuple[int, int], parts: set[str]
) -> Iterator[tuple[Image32, Patch]]:
    """Each labelled cell of ``parts``, and patches of the corners of some of the images.

    Parameters
    ----------
    split : the fold that validates, and the seed
    """
    fold, seed = split
    rng = np.random.default_rng(seed)
    corners = set(rng.choice(len(listed), min(data.corner_patches, len(listed)), replace=False).tolist())
    for number, image in enumerate(listed):
        part = part_of(image, fold)
        if part not in parts:
            continue
        corrected = _read(folder / image.file)
        height, width = corrected.shape[:2]
        label = data.map.get(image.label, image.label)
        if part == TRAIN or "|" not in label:
            yield corrected, Patch((width / 2, height / 2), data.um_per_px, label, part)
        if number in corners:
            rng = np.random.default_rng([seed, number])
            away = rng.uniform(0.04, 0.14, 2)
            share = np.where(rng.random(2) < 0.5, away, 1 - away)
            yield corrected, Patch((width * share[0], height * share[1]), data.um_per_px, ARTEFACT, part)


def field_patches(folder: Path, options: Fields, seed: int, parts: set[str]) -> Iterator[tuple[Image32, Patch]]:
    """Patches whose centre is no white cell: away from every WBC box, and platelets; and WBC boxes, if the recipe wants them.

    Every fourth field validates.
    """
    boxes = _read_boxes(folder)
    files = sorted(boxes)
    per_field = -(-options.patches // len(files))
    platelets = [
        (file, box)
        for file in files
        for box in boxes[file]
        if box[0] == "Platelets" and not any(_holds(white, box) for white in boxes[file] if white[0] == "WBC")
    ]
    order = np.random.default_rng(seed).permutation(len(platelets))
    chosen = {platelets[i] for i in order[: options.platelets].tolist()}
    for number, file in enumerate(files):
        part = half(file) if number % 4 == 3 else TRAIN
        if part not in parts:
            continue
        corrected = _read(folder / file)
        white = [b for b in boxes[file] if b[0] == "WBC"]
        centers = [(b[1] + b[3] / 2, b[2] + b[4] / 2) for b in boxes[file] if (file, b) in chosen]
        centers += _empty_places(corrected, white, per_field, options, np.random.default_rng([seed, number]))
        for center in centers:
            yield corrected, Patch(center, options.um_per_px, ARTEFACT, part)
        for _, x, y, w, h in white if options.white_cells and part == TRAIN else ():
            yield corrected, Patch((x + w / 2, y + h / 2), options.um_per_px, WHITE_CELL, part)


def _empty_places(
    field: Image32, white: list[_Box], count: int, options: Fields, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """At most ``count`` places whose patch's centre keeps 3 um from every white cell's box."""
    height, width = field.shape[:2]
    reach = 3.0 / options.um_per_px
    tried = [(rng.uniform(0, width), rng.uniform(0, height)) for _ in range(20 * count)]
    empty = [
        (x, y)
        for x, y in tried
        if all(not (b[1] - reach < x < b[1] + b[3] + reach and b[2] - reach < y < b[2] + b[4] + reach) for b in white)
    ]
    return empty[:count]


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


def _holds(outer: _Box, inner: _Box) -> bool:
    """Whether the centre of ``inner`` lies in ``outer``: a platelet "in" a white cell is a mistake in the boxes."""
    x, y = inner[1] + inner[3] / 2, inner[2] + inner[4] / 2
    return outer[1] < x < outer[1] + outer[3] and outer[2] < y < outer[2] + outer[4]
