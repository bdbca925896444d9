"""Cells of clinics that no pixel of the model comes from, and the five groups that they are named by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from naming import read_boxes

from nca_edge.bundle import Manifest
from nca_edge.camera import read_image
from nca_edge.errors import UsageError
from nca_edge.labelled import read_labelled
from nca_edge.records import Image8

GROUPS = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
BOXED = "chula"
"""The set of whole fields with a box around each cell; all others are images of one cell."""
CROP_OVER_BOX = 2.4
"""Side of a crop over the longer side of its cell's box: what crops of one cell usually show around it."""


class Cell(NamedTuple):
    """One image of one cell."""

    label: str
    rgb: Image8
    """(height, width, 3) uint8, as the clinic's camera gave it."""


def read_cells(folder: Path, every: int = 1) -> Iterator[Cell]:
    """Every n-th cell of a data set; a boxed cell's crop is cut off at its field's edge."""
    if folder.name != BOXED:
        for image in read_labelled(folder)[::every]:
            yield Cell(image.label, read_image(folder / image.file))
        return
    if not (folder / "boxes.csv").is_file():
        raise UsageError(f"{folder}: holds no boxes.csv (file,label,x,y,w,h); give --data the folder above it.")
    listed = [(file, truth) for file, truths in read_boxes(folder).items() for truth in truths]
    for file, (label, x, y, w, h) in listed[::every]:
        field = read_image(folder / file)
        side, across, down = round(CROP_OVER_BOX * max(w, h)), x + w / 2, y + h / 2
        top, left = max(0, round(down - side / 2)), max(0, round(across - side / 2))
        yield Cell(label, np.ascontiguousarray(field[top : round(down + side / 2), left : round(across + side / 2)]))


def best_group(probabilities: dict[str, float], manifest: Manifest) -> str:
    """The group of the largest summed probability: classes outside the five do not compete.

    Raises
    ------
    UsageError
        The model has no class for one of the five.
    """
    members = {group: manifest.groups.get(group, (group,)) for group in GROUPS}
    missing = [group for group, classes in members.items() if not set(classes) <= set(manifest.classes)]
    if missing:
        raise UsageError(
            f"model {manifest.name}: has no class for {', '.join(missing)}; choose one that names all five groups."
        )
    return max(GROUPS, key=lambda group: sum(probabilities[name] for name in members[group]))
