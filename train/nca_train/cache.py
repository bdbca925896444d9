"""Decoded cells on disk: read once, shared by all processes of a run and by every later run of the same data.

A cache holds what ``load_cells`` made, uncompressed so that it can be mapped into memory: 61 kB a training cell at a view of
25.6 um. Its name is a hash of all that decides its content; a changed image, recipe or program makes another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from nca_edge import camera, labelled, preprocess
from nca_edge.errors import StorageError
from nca_edge.labelled import read_labelled
from nca_edge.scale import crop, voting
from nca_train import data as data_module
from nca_train import patches
from nca_train.data import Cells, load_cells
from nca_train.recipe import Recipe

CACHE = ".cells"
"""Folder of caches, beside the run folders."""


def cached_cells(recipe: Recipe, folder: Path, split: tuple[int, int], cache: Path, say: Callable[[str], None]) -> Cells:
    """``load_cells``, from the cache where it holds them.

    Parameters
    ----------
    split : the fold that validates, and the seed
    cache : folder that holds the caches

    Raises
    ------
    UsageError
        As of ``load_cells``.
    StorageError
        The cache cannot be written.
    """
    place = cache / _key(recipe, folder, split)
    if not place.is_dir():
        say("reading the images")
        _write(load_cells(recipe, folder, *split), place)
    return _read(place)


def _key(recipe: Recipe, folder: Path, split: tuple[int, int]) -> str:
    """Hash of what the images, the recipe and the programs that read them are."""
    digest = hashlib.sha256(json.dumps([asdict(recipe.data), asdict(recipe.view), split], sort_keys=True).encode())
    digest.update(json.dumps([recipe.size, asdict(recipe.fields) if recipe.fields else None]).encode())
    for module in (camera, labelled, preprocess, crop, voting, data_module, patches):
        digest.update(Path(str(module.__file__)).read_bytes())
    files = [folder / image.file for image in read_labelled(folder)]
    listed = [folder / "manifest.csv"]
    if recipe.fields is not None:
        fields_folder = folder / recipe.fields.folder
        files += sorted(path for path in fields_folder.rglob("*") if path.is_file())
        listed.append(fields_folder / "boxes.csv")
    for path in files:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    for path in listed:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


def _write(cells: Cells, place: Path) -> None:
    """Write beside, then rename: a cache is whole or absent, also when two processes write it at once."""
    beside = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.mkdir(parents=True)
        for field in fields(cells):
            if field.name not in ("classes", "wide_um"):
                np.save(beside / f"{field.name}.npy", getattr(cells, field.name))
        (beside / "facts.json").write_text(json.dumps([cells.classes, cells.wide_um]), "utf-8")
        try:
            os.replace(beside, place)
        except OSError:
            if not place.is_dir():
                raise
            shutil.rmtree(beside)  # another process was faster
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise StorageError(f"{place}: cannot be written ({error.strerror}); make room or choose another --out.") from error


def _read(place: Path) -> Cells:
    classes, wide_um = json.loads((place / "facts.json").read_text("utf-8"))
    arrays = {
        field.name: np.load(place / f"{field.name}.npy", mmap_mode="r" if field.name == "wide" else None)
        for field in fields(Cells)
        if field.name not in ("classes", "wide_um")
    }
    return Cells(classes=tuple(classes), wide_um=wide_um, **arrays)
