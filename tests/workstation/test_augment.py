"""Random variation of training images, and where artefact patches may lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nca_edge.preprocess import match_stain, plain_view
from nca_train.augment import _cut, _swap, augment
from nca_train.data import _field_patches, _read_boxes
from nca_train.recipe import Augment, load_recipe
from tests.workstation.synthetic import write_data

EVERYTHING = load_recipe("edge").augment


def rings(n: int, side: int = 56) -> tuple[Tensor, np.ndarray]:
    """The same whichever way it is turned or mirrored: (n, side, side, 3) uint8, and one of them as float32."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    bell = np.exp(-(x**2 + y**2) / (2 * (side / 5) ** 2))
    image = np.round(255 * (1 - bell[..., None] * np.array([0.5, 0.8, 0.3]))).astype(np.uint8)
    return torch.from_numpy(np.stack([image] * n)), (image / 255).astype(np.float32)


@pytest.mark.parametrize("options", [Augment(), EVERYTHING], ids=["nothing", "the shipped recipe's"])
def test_range_shape_and_kind(options: Augment) -> None:
    torch.manual_seed(0)
    wide = torch.randint(0, 256, (6, 56, 56, 3), dtype=torch.uint8)
    views = augment(wide, 14.0, 10.0, 16, options)
    assert views.shape == (6, 16, 16, 3) and views.dtype == torch.float32 and views.is_contiguous()
    assert bool(torch.isfinite(views).all()) and float(views.min()) >= 0 and float(views.max()) <= 1


def test_same_seed_same_views() -> None:
    wide, _ = rings(4)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augment(wide, 14.0, 10.0, 16, EVERYTHING))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_nothing_but_rotation_and_mirroring() -> None:
    """What looks the same from all sides is seen as the device sees it."""
    torch.manual_seed(0)
    wide, image = rings(8)
    views = augment(wide, 14.0, 10.0, 16, Augment())
    expected = match_stain(plain_view(image, (28.0, 28.0), 0.25, 10.0, 16))
    assert np.abs(views.numpy() - expected).max() < 0.02


def test_rotation_and_mirroring_are_always_on() -> None:
    torch.manual_seed(0)
    wide = torch.full((8, 56, 56, 3), 255, dtype=torch.uint8)
    wide[:, 26:30, 34:38] = 40  # a spot beside the centre
    views = augment(wide, 14.0, 10.0, 16, Augment()).numpy()
    spots = {tuple(np.argwhere(view[..., 0] == view[..., 0].min())[0].tolist()) for view in views}
    assert len(spots) > 4


def test_outside_the_image_is_white() -> None:
    torch.manual_seed(0)
    dark = torch.full((4, 56, 56, 3), 60, dtype=torch.uint8)
    shifted = augment(dark, 14.0, 10.0, 16, Augment(shift_um=30.0))
    assert float(shifted.max()) == pytest.approx(1.0, abs=1e-3)


def test_swap_keeps_the_centre() -> None:
    torch.manual_seed(0)
    views = torch.arange(1, 7).float().reshape(6, 1, 1, 1).expand(6, 3, 64, 64) / 10
    swapped = _swap(views, 25.6, Augment(swap_share=1.0))
    centre, corner = swapped[:, :, 28:36, 28:36], swapped[:, :, 0, 0]
    torch.testing.assert_close(centre, views[:, :, 28:36, 28:36], atol=1e-4, rtol=0)
    assert sorted(round(float(c) * 10) for c in corner[:, 0]) == [1, 2, 3, 4, 5, 6]
    assert not torch.allclose(corner, views[:, :, 0, 0])
    assert torch.equal(_swap(views, 25.6, Augment()), views)


def test_cut_whitens_one_side() -> None:
    torch.manual_seed(0)
    views = torch.rand(40, 3, 64, 64) * 0.5
    cut = _cut(views, Augment(cut_share=1.0))
    for before, after in zip(views, cut, strict=True):
        white = (after == 1).all(0).all(0)  # columns
        width = int(white.sum())
        assert 0.1 * 64 < width < 0.5 * 64
        assert bool(white[:width].all()) and torch.equal(after[..., width:], before[..., width:])
    assert torch.equal(_cut(views, Augment()), views)


def test_every_option_changes_the_view() -> None:
    torch.manual_seed(0)
    wide = torch.randint(0, 256, (4, 56, 56, 3), dtype=torch.uint8)
    plain = Augment()
    torch.manual_seed(1)
    before = augment(wide, 35.0, 25.0, 16, plain)
    for name in Augment.__dataclass_fields__:
        torch.manual_seed(1)
        after = augment(wide, 35.0, 25.0, 16, replace(plain, **{name: 0.5}))
        assert not torch.equal(after, before), name


def test_patches_keep_away_from_white_cells(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", per_class=1) / "fields"
    options = load_recipe("edge").fields
    assert options is not None
    options = replace(options, um_per_px=0.25, patches=200, platelets=6)
    fields: list[np.ndarray] = []
    centers: list[list[tuple[float, float]]] = []
    for corrected, patch in _field_patches(folder, options, np.random.default_rng(0)):
        assert patch.label == "artefact" and corrected.shape == (90, 120, 3)
        if not fields or corrected is not fields[-1]:
            fields.append(corrected)
            centers.append([])
        centers[-1].append(patch.center)
    boxes = list(_read_boxes(folder).values())
    assert len(centers) == len(boxes) == 5
    assert sum(map(len, centers)) == 200 + 6
    for found, listed in zip(centers, boxes, strict=True):
        for _, x, y, w, h in (box for box in listed if box[0] == "WBC"):
            reach = 3.0 / 0.25
            for cx, cy in found:
                assert not (x - reach < cx < x + w + reach and y - reach < cy < y + h + reach)
