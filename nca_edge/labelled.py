"""Labelled images on disk: a folder with ``manifest.csv`` (file,label[,fold]) or one sub-folder per class."""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nca_edge.camera import IMAGE_SUFFIXES
from nca_edge.errors import UsageError


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image file and what it shows."""

    file: str
    """Path relative to the data folder, with forward slashes."""
    label: str
    """As the data set names it."""
    fold: int | None
    """Which part of a split it belongs to; None where the data set has no folds."""


FOLDS = 4
"""Folds of a data set that names none."""


def fold_of(file: str) -> int:
    """Fold of an image of a data set that names none, by the SHA-256 of its file name."""
    return _digest(file)[1] % FOLDS


def half(file: str) -> str:
    """Which half of a validation fold an image belongs to, by the SHA-256 of its file name: ``a`` selects, stops, calibrates
    and sets thresholds; every reported figure is on ``b``."""
    return "ab"[_digest(file)[0] % 2]


def _digest(file: str) -> bytes:
    return hashlib.sha256(PurePosixPath(file).name.encode()).digest()


def read_labelled(folder: Path) -> list[LabelledImage]:
    """List a data set in the order of its manifest, or by name.

    Raises
    ------
    UsageError
        Missing folder, no manifest and no class folders, a manifest without the columns, a listed file that is not there.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give --data a folder with manifest.csv or one sub-folder per class.")
    manifest = folder / "manifest.csv"
    images = _from_manifest(manifest) if manifest.is_file() else _from_folders(folder)
    if not images:
        raise UsageError(
            f"{folder}: holds no labelled image; it needs manifest.csv (file,label[,fold]) or one sub-folder per class."
        )
    missing = [image.file for image in images if not os.path.isfile(folder / image.file)]
    if missing:
        raise UsageError(
            f"{folder}: {len(missing)} listed images are missing, the first is {missing[0]}; complete the data set."
        )
    return images


def _from_manifest(manifest: Path) -> list[LabelledImage]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{manifest}: cannot be read as CSV ({error}); save it as CSV in UTF-8.") from error
    if rows and not {"file", "label"} <= set(rows[0]):
        raise UsageError(
            f"{manifest}: needs the columns file and label, has {', '.join(str(k) for k in rows[0])}; mend its first line."
        )
    images = []
    for number, row in enumerate(rows, start=2):
        file, label, fold = row["file"], row["label"], row.get("fold")
        if not file or not label:
            raise UsageError(f"{manifest}: line {number} has no file or no label; complete it.")
        try:
            images.append(LabelledImage(file, label, int(fold) if fold else None))
        except ValueError as error:
            raise UsageError(f"{manifest}: line {number} has fold {fold!r}, which is no whole number; mend it.") from error
    return images


def _from_folders(folder: Path) -> list[LabelledImage]:
    return [
        LabelledImage(path.relative_to(folder).as_posix(), sub.name, None)
        for sub in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        for path in sorted(sub.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
