"""Files that `nca-edge classify` writes beside its answers: masks, figures, animations."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from nca_edge.classifier import Classifier
from nca_edge.errors import StorageError, UsageError
from nca_edge.explain import Question
from nca_edge.measure import CUT, rests_on_background
from nca_edge.single_cell import CropReading
from nca_edge.terminal import printable


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants besides names."""

    masks: Path | None = None
    """Folder for one mask per image."""
    explain: Path | None = None
    """Folder for one figure per image."""
    animate: bool = False
    """Also an animation of the channels beside each figure."""
    asked: Question = field(default_factory=Question)
    """Which class is explained."""


def check(images: list[Path], wishes: Wishes) -> None:
    """Refuse what cannot be written, before anything is.

    Raises
    ------
    UsageError
    """
    if wishes.animate and wishes.explain is None:
        raise UsageError("--animate needs --explain DIR: the animations are written beside the figures.")
    if wishes.masks and wishes.explain and os.path.realpath(wishes.masks) == os.path.realpath(wishes.explain):
        raise UsageError(f"--masks and --explain: both would write into {wishes.masks}; give two folders.")
    if wishes.masks is not None:
        _check_folder(images, wishes.masks, "--masks", "mask")
    if wishes.explain is not None:
        _check_folder(images, wishes.explain, "--explain", "figure")


def make_folders(wishes: Wishes) -> None:
    """Make the folders.

    Raises
    ------
    StorageError
    """
    for option, folder in (("--masks", wishes.masks), ("--explain", wishes.explain)):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{option} {folder}: cannot be made ({error.strerror}); choose a folder that can be written."
            ) from error


def write(image: Path, reading: CropReading, classifier: Classifier, wishes: Wishes) -> None:
    """Write what was wished for one image.

    Raises
    ------
    StorageError
    """
    if wishes.masks is not None and reading.explanation is not None:
        path = _beside(wishes.masks, image)
        try:
            Image.fromarray(reading.explanation.mask).save(path)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror}); choose another --masks folder.") from error
    if wishes.explain is not None:
        path = _beside(wishes.explain, image)
        try:
            _write_figure(path, image, reading, classifier, wishes.animate)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror}); choose another --explain folder.") from error


FLAG = "Relevance outside the cell"
"""What a person reads of a cell that rests on the background."""
REACHES_EDGE = "Outline reaches the edge"
"""What a person reads of a cell that is cut, or whose outline ran into a neighbour that is."""


def flag(reading: CropReading) -> str | None:
    """The warning of a cell whose class, as the model named it, rests on what lies around the cell."""
    why = reading.explanation
    if why is None or why.label != reading.prediction.label or why.against is not None:
        return None
    return FLAG if rests_on_background(why.outside_share) else None


def warnings(reading: CropReading) -> str | None:
    """All that a person should see at once in a figure."""
    why = reading.explanation
    edge = REACHES_EDGE if why is not None and why.measures.reason == CUT else None
    return "; ".join(one for one in (flag(reading), edge) if one) or None


def _write_figure(path: Path, image: Path, reading: CropReading, classifier: Classifier, animate: bool) -> None:
    from nca_edge.figure import Case, animation, figure, save, save_animation

    if reading.shown is None:
        raise RuntimeError("read_crop explains unless told otherwise")
    model = f"{classifier.bundle.manifest.name} ({classifier.backend.name} {classifier.precision})"
    title = printable(image.name)
    answer = (reading.shown, reading.prediction, reading.scale, warnings(reading), reading.no_cell)
    save(figure(Case(title, model, *answer)), path)
    if animate:
        pool = classifier.bundle.manifest.architecture.pool
        frames = animation(classifier.history(reading.shown.view), reading.shown.explanation, title, pool)
        save_animation(frames, path.with_suffix(".gif"))


def _beside(folder: Path, image: Path) -> Path:
    return folder / f"{image.stem}.png"


def _check_folder(images: list[Path], folder: Path, option: str, what: str) -> None:
    """Refuse files that would overwrite each other or an image."""
    if not folder.is_dir() and folder.exists():
        raise UsageError(f"{option} {folder}: is a file; give a folder.")
    # without regard to case: on a USB stick A.png and a.png are one file
    stems = Counter(path.stem.casefold() for path in {os.path.realpath(image): image for image in images}.values())
    for image in images:
        if stems[image.stem.casefold()] > 1:
            raise UsageError(f"{option}: {image.stem!r} is the stem of more than one image; classify them in separate calls.")
        for path in (_beside(folder, image), _beside(folder, image).with_suffix(".gif")):
            if image.exists() and path.exists() and path.samefile(image):
                raise UsageError(
                    f"{option} {folder}: the {what} of {image.name} would overwrite the image itself; choose another folder."
                )
