"""From images on disk to arrays: every image passes the device's own pixel contract once, then stays in a compact cache.

A training cell is kept as a *wide* crop, larger than the view, so that rotation, shift and scale find real pixels; a validation
cell is kept as exactly the view that the device would make.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nca_edge.classifier import from_8bit
from nca_edge.errors import UsageError
from nca_edge.labelled import LabelledImage, fold_of, read_labelled
from nca_edge.preprocess import cell_view, match_stain, plain_view
from nca_edge.records import Image8, Image32
from nca_edge.scale import cell_diameter_um
from nca_train.patches import ARTEFACT, TRAIN, WHITE_CELL, Patch, field_patches, labelled_patches
from nca_train.recipe import Data, Recipe

WIDE_UM_PER_PX = 0.25
WIDER = 1.4
"""Side of a wide crop over the side of the view: what a square needs to be turned by any angle."""


@dataclass(frozen=True, slots=True)
class Views:
    """Cells as the device sees them."""

    images: Image8
    """(m, size, size, 3)"""
    labels: NDArray[np.int64]
    """(m,) index into the classes."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Training and validation cells of one run."""

    classes: tuple[str, ...]
    """Sorted, ``artefact`` last."""
    wide: Image8
    """(n, p, p, 3) training crops that span ``wide_um``."""
    wide_um: float
    own_um: NDArray[np.float32]
    """(n,) diameter that the device would take the cell of a training crop for; 0: none found."""
    kinds: NDArray[np.int64]
    """(n,) which set of classes a training crop may belong to, index into ``allowed``."""
    allowed: NDArray[np.bool_]
    """(kinds, classes); one class for most, several where only the group is known."""
    views: Image8
    """(m, size, size, 3) validation views, half a of the fold: what selects and calibrates."""
    view_labels: NDArray[np.int64]
    """(m,)"""
    mean: Image32
    """(3,) of the training cells, 0..1."""
    std: Image32
    """(3,)"""


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
    view_um, side_um = recipe.view.view_um, recipe.view.view_um * WIDER
    wide = _Stack(round(side_um / WIDE_UM_PER_PX))
    own_um: list[float] = []
    views = _Stack(recipe.size)
    for corrected, patch in _patches(recipe, folder, (fold, seed), {TRAIN, "a"}):
        if patch.part == TRAIN:
            crop = plain_view(corrected, patch.center, patch.um_per_px, side_um, wide.side)
            wide.add(crop, patch.label)
            own_um.append(cell_diameter_um(crop, side_um / wide.side))
        else:
            views.add(cell_view(corrected, patch.center, patch.um_per_px, view_um, views.side), patch.label)
    found = {name for label in wide.labels for name in label.split("|")} - {WHITE_CELL}
    _check_classes(folder, found, set(views.labels))
    classes = (*sorted(found - {ARTEFACT}), *([ARTEFACT] if ARTEFACT in found else []))
    stacked = wide.images()
    mean, std = _statistics(stacked, round(view_um / WIDE_UM_PER_PX))
    names = (*classes, *sorted(set(wide.labels) - set(classes)))
    allowed = np.array([_allowed(name, classes) for name in names])
    kinds, labels = wide.indices(names), views.indices(classes)
    own = np.array(own_um, np.float32)
    return Cells(classes, stacked, side_um, own, kinds, allowed, views.images(), labels, mean, std)


def load_views(recipe: Recipe, folder: Path, split: tuple[int, int], half: str, classes: tuple[str, ...]) -> Views:
    """The validation cells of one half of a fold, as the device sees them.

    Parameters
    ----------
    split : the fold that validates, and the seed of the run
    half : ``a`` selects and calibrates, ``b`` is what is reported
    classes : of the run

    Raises
    ------
    UsageError
        As of ``load_cells``, or a label that the run does not know.
    """
    views = _Stack(recipe.size)
    for corrected, patch in _patches(recipe, folder, split, {half}):
        if patch.label not in classes:
            raise UsageError(f"{folder}: {patch.label} is none of the classes of the run; give the data of that run.")
        views.add(cell_view(corrected, patch.center, patch.um_per_px, recipe.view.view_um, views.side), patch.label)
    return Views(views.images(), views.indices(classes))


def _patches(recipe: Recipe, folder: Path, split: tuple[int, int], parts: set[str]) -> Iterator[tuple[Image32, Patch]]:
    yield from labelled_patches(_listed(recipe.data, folder, split[0]), folder, recipe.data, split, parts)
    if recipe.fields is not None:
        yield from field_patches(folder / recipe.fields.folder, recipe.fields, split[1], parts)


def _allowed(label: str, classes: tuple[str, ...]) -> list[bool]:
    """Which classes a label may mean."""
    among = set(classes) - {ARTEFACT} if label == WHITE_CELL else set(label.split("|"))
    return [name in among for name in classes]


def _listed(data: Data, folder: Path, fold: int) -> list[LabelledImage]:
    """The images of a recipe, once it is sure that they can train and validate; no pixel is read yet."""
    listed = [image for image in read_labelled(folder) if image.label not in data.exclude]
    if all(image.fold is None for image in listed):  # one folder per class, say
        listed = [replace(image, fold=fold_of(image.file)) for image in listed]
    folds = {image.fold for image in listed}
    if fold not in folds or len(folds) < 2:
        present = ", ".join(str(f) for f in sorted(f for f in folds if f is not None)) or "none"
        raise UsageError(
            f"{folder}: needs fold {fold} to validate on and others to train on; folds in its manifest.csv: {present}."
        )
    training = {data.map.get(image.label, image.label) for image in listed if image.fold != fold}
    validation = {data.map.get(image.label, image.label) for image in listed if image.fold == fold}
    training, validation = ({name for name in names if "|" not in name} for names in (training, validation))
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
