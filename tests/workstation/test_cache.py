"""Decoded cells are kept, shared, and made again when what decides them has changed; the parts of the data stay apart."""

from __future__ import annotations

import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nca_edge.errors import StorageError, UsageError
from nca_edge.labelled import half, read_labelled
from nca_train.cache import cached_cells
from nca_train.data import Cells, load_cells, load_views
from nca_train.patches import TRAIN, field_patches, labelled_patches
from tests.workstation.synthetic import quiet, tiny_recipe

SPLIT = (3, 0)


def same(first: Cells, second: Cells) -> bool:
    return all(np.array_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(Cells))


def test_the_cache_holds_what_was_read(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = cached_cells(tiny_recipe(), data, SPLIT, tmp_path, said.append)
    again = cached_cells(tiny_recipe(), data, SPLIT, tmp_path, said.append)
    assert said == ["reading the images"]
    assert same(first, load_cells(tiny_recipe(), data, *SPLIT)) and same(first, again)
    assert isinstance(again.wide, np.memmap) and len(list(tmp_path.iterdir())) == 1


def test_whatever_decides_the_cells_makes_another_cache(data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    recipe, cache = tiny_recipe(), tmp_path / "cache"

    def caches() -> int:
        return len(list(cache.iterdir()))

    cached_cells(recipe, copy, SPLIT, cache, quiet)
    cached_cells(replace(recipe, train=replace(recipe.train, epochs=99)), copy, SPLIT, cache, quiet)
    assert caches() == 1  # the same cells
    cached_cells(recipe, copy, (3, 1), cache, quiet)
    assert caches() == 2
    cached_cells(replace(recipe, data=replace(recipe.data, um_per_px=0.4)), copy, SPLIT, cache, quiet)
    assert caches() == 3
    changed = copy / read_labelled(copy)[0].file
    Image.fromarray(np.full((24, 24, 3), 200, np.uint8)).save(changed)
    os.utime(changed, ns=(0, 0))
    cached_cells(recipe, copy, SPLIT, cache, quiet)
    assert caches() == 4


def test_a_cache_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        cached_cells(tiny_recipe(), data, SPLIT, tmp_path / "file", quiet)


def test_wrong_data_leaves_no_cache(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        cached_cells(tiny_recipe(), tmp_path / "gone", SPLIT, tmp_path / "cache", quiet)
    assert not (tmp_path / "cache").exists()


def test_the_halves_of_the_fold_stay_apart(data: Path) -> None:
    """Half a is what training validates on; half b is seen by nobody before the end; together they are the fold."""
    recipe = tiny_recipe()
    cells = load_cells(recipe, data, *SPLIT)
    chosen, reported = (load_views(recipe, data, SPLIT, part, cells.classes) for part in "ab")
    assert np.array_equal(chosen.images, cells.views) and np.array_equal(chosen.labels, cells.view_labels)
    listed = [image for image in read_labelled(data) if image.fold == 3]
    counts = {part: sum(half(image.file) == part for image in listed) for part in "ab"}
    assert len(chosen.images) >= counts["a"] > 0 and len(reported.images) >= counts["b"] > 0
    taken = {view.tobytes() for view in chosen.images}
    assert not taken & {view.tobytes() for view in reported.images}


def test_parts_read_apart_are_what_they_are_together(data: Path) -> None:
    """A patch depends on the seed and its image, not on which other images are read."""
    recipe = tiny_recipe()
    assert recipe.fields is not None
    listed, folder = read_labelled(data), data / recipe.fields.folder

    def found(parts: set[str]) -> list[tuple[str, tuple[float, float], str]]:
        cells = [patch for _, patch in labelled_patches(listed, data, recipe.data, SPLIT, parts)]
        cells += [patch for _, patch in field_patches(folder, recipe.fields, 0, parts)] if recipe.fields else []
        return [(patch.part, patch.center, patch.label) for patch in cells]

    together = found({TRAIN, "a", "b"})
    for part in (TRAIN, "a", "b"):
        assert found({part}) == [patch for patch in together if patch[0] == part]


def test_data_without_folds_are_split_by_name(data: Path, tmp_path: Path) -> None:
    """One sub-folder per class, as torchvision's ImageFolder reads it."""
    for image in read_labelled(data):
        (tmp_path / image.label).mkdir(exist_ok=True)
        shutil.copy(data / image.file, tmp_path / image.label)
    recipe = replace(tiny_recipe(), fields=None)
    folds = [load_cells(recipe, tmp_path, fold, 0) for fold in range(4)]
    assert all(0 < len(cells.views) < len(cells.wide) for cells in folds)
    assert folds[0].classes == ("basophil", "eosinophil", "artefact")
