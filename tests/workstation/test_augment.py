"""Random variation of training images, and where artefact patches may lie."""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from nca_edge.labelled import half
from nca_edge.preprocess import match_stain, plain_view
from nca_train.augment import Sizes, _blurred, _colour, _compressed, _cut, _Dice, _swap, augment
from nca_train.patches import TRAIN, _read_boxes, field_patches
from nca_train.recipe import Augment, Fields, load_recipe
from tests.workstation.synthetic import write_data

EVERYTHING = load_recipe("edge").augment
PARTS = {TRAIN, "a", "b"}
SIZES = Sizes(wide_um=14.0, view_um=10.0, size=16)


def rings(n: int, side: int = 56) -> tuple[Tensor, np.ndarray]:
    """The same whichever way it is turned or mirrored: (n, side, side, 3) uint8, and one of them as float32."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    bell = np.exp(-(x**2 + y**2) / (2 * (side / 5) ** 2))
    image = np.round(255 * (1 - bell[..., None] * np.array([0.5, 0.8, 0.3]))).astype(np.uint8)
    return torch.from_numpy(np.stack([image] * n)), (image / 255).astype(np.float32)


def dice(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, side: int = 56, seed: int = 0) -> Tensor:
    """(n, side, side, 3) uint8 of no structure at all."""
    return torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=dice(seed))


@pytest.mark.parametrize("options", [Augment(), EVERYTHING], ids=["nothing", "the shipped recipe's"])
def test_range_shape_and_kind(options: Augment) -> None:
    views = augment(noise(64), SIZES, options, dice(0))
    assert views.shape == (64, 16, 16, 3) and views.dtype == torch.float32 and views.is_contiguous()
    assert bool(torch.isfinite(views).all()) and float(views.min()) >= 0 and float(views.max()) <= 1


@pytest.mark.parametrize("options", [Augment(), EVERYTHING], ids=["nothing", "the shipped recipe's"])
def test_the_generator_decides_everything(options: Augment) -> None:
    wide = noise(8)
    drawn = []
    for seed in (1, 1, 2):
        torch.rand(seed)  # whatever else drew numbers in between
        drawn.append(augment(wide, SIZES, options, dice(seed)))
    assert torch.equal(drawn[0], drawn[1])
    assert all(not torch.equal(a, b) for a, b in zip(drawn[0], drawn[2], strict=True))


def test_nothing_but_rotation_and_mirroring() -> None:
    """What looks the same from all sides is seen as the device sees it."""
    wide, image = rings(8)
    views = augment(wide, SIZES, Augment(), dice(0))
    expected = match_stain(plain_view(image, (28.0, 28.0), 0.25, 10.0, 16))
    assert np.abs(views.numpy() - expected).max() < 0.02


def test_rotation_and_mirroring_are_always_on() -> None:
    wide = torch.full((8, 56, 56, 3), 255, dtype=torch.uint8)
    wide[:, 26:30, 34:38] = 40  # a spot beside the centre
    views = augment(wide, SIZES, Augment(), dice(0)).numpy()
    spots = {tuple(np.argwhere(view[..., 0] == view[..., 0].min())[0].tolist()) for view in views}
    assert len(spots) > 4


def test_outside_the_image_is_white() -> None:
    dark = torch.full((4, 56, 56, 3), 60, dtype=torch.uint8)
    shifted = augment(dark, SIZES, Augment(shift_um=30.0), dice(0))
    assert float(shifted.max()) == pytest.approx(1.0, abs=1e-3)


def test_swap_keeps_the_centre() -> None:
    views = torch.arange(1, 7).float().reshape(6, 1, 1, 1).expand(6, 3, 64, 64) / 10
    swapped = _swap(views, 25.6, Augment(swap_share=1.0), _Dice(dice(0)))
    centre, corner = swapped[:, :, 28:36, 28:36], swapped[:, :, 0, 0]
    torch.testing.assert_close(centre, views[:, :, 28:36, 28:36], atol=1e-4, rtol=0)
    assert sorted(round(float(c) * 10) for c in corner[:, 0]) == [1, 2, 3, 4, 5, 6]
    assert not torch.allclose(corner, views[:, :, 0, 0])
    assert torch.equal(_swap(views, 25.6, Augment(), _Dice(dice(0))), views)


def test_cut_whitens_one_side() -> None:
    views = torch.rand(40, 3, 64, 64, generator=dice(1)) * 0.5
    cut = _cut(views, Augment(cut_share=1.0), _Dice(dice(0)))
    for before, after in zip(views, cut, strict=True):
        white = (after == 1).all(0).all(0)  # columns
        width = int(white.sum())
        assert 0.1 * 64 < width < 0.5 * 64
        assert bool(white[:width].all()) and torch.equal(after[..., width:], before[..., width:])
    assert torch.equal(_cut(views, Augment(), _Dice(dice(0))), views)


@pytest.mark.parametrize("name", [field.name for field in fields(Augment)])
def test_every_option_changes_the_view(name: str) -> None:
    plain = {"fringe_um": Augment(blur_um=1.0), "own_colour_share": Augment(tint_sd=0.5)}.get(name, Augment())
    wide, sizes = noise(8), Sizes(35.0, 25.0, 16)
    own_um = torch.full((8,), 9.0)
    before = augment(wide, sizes, plain, dice(1), own_um)
    assert not torch.equal(augment(wide, sizes, replace(plain, **{name: 0.5}), dice(1), own_um), before)


def test_scaled_by_their_own_size_cells_look_equally_large() -> None:
    y, x = np.indices((100, 100)) - 49.5
    drawn = [np.where(np.hypot(x, y) * 0.25 < um / 2, 40, 255) for um in (9.0, 13.0, 17.0)]
    wide = torch.from_numpy(np.stack([np.stack([disc] * 3, 2) for disc in drawn]).astype(np.uint8))
    own = torch.tensor([9.0, 13.0, 17.0])
    views = augment(wide, Sizes(25.0, 17.5, 64), Augment(own_scale_share=1.0), dice(0), own)
    areas = (views[..., 0] < 0.7).sum((1, 2)).float()
    assert float(areas.max() / areas.min()) < 1.1
    unknown = augment(wide, Sizes(25.0, 17.5, 64), Augment(own_scale_share=1.0), dice(0), torch.zeros(3))
    assert float((unknown[2, ..., 0] < 0.7).sum() / (unknown[0, ..., 0] < 0.7).sum()) == pytest.approx((17 / 9) ** 2, rel=0.1)


def test_views_in_their_own_colours_are_turned_and_shifted_only() -> None:
    geometry = replace(Augment(), scale_sd=0.2, shift_um=1.0)
    own = augment(noise(8), SIZES, replace(geometry, own_colour_share=1.0, tint_sd=0.5, noise_sd=0.2, glare=0.9), dice(1))
    torch.testing.assert_close(own, augment(noise(8), SIZES, geometry, dice(1)))


def test_tone_curves_keep_white_and_the_order_of_greys() -> None:
    greys = torch.linspace(0.1, 1, 16).expand(8, 3, 16, 16)
    curved = _colour(greys, Augment(tone_sd=0.5), _Dice(dice(0)))
    torch.testing.assert_close(curved[..., -1], greys[..., -1], rtol=0, atol=1e-3)
    assert bool((curved.diff(dim=3) >= 0).all()) and float((curved - greys).abs().max()) > 0.1
    torch.testing.assert_close(_colour(greys, Augment(), _Dice(dice(0))), greys)


# --- optics -------------------------------------------------------------------------------------------------------------


def test_blurring_is_a_gaussian_of_each_colour() -> None:
    views = torch.rand(2, 3, 20, 24, generator=dice(0))
    sigma = torch.tensor([[0.4, 1.0, 1.7], [2.5, 0.7, 0.1]])
    blurred = _blurred(views, sigma).numpy()
    for i in range(2):
        for c in range(3):
            expected = ndimage.gaussian_filter(views[i, c].numpy(), float(sigma[i, c]), radius=3, mode="nearest")
            assert np.abs(blurred[i, c] - expected).max() < 1e-5


@pytest.mark.parametrize("sigma", [1e-3, 0.3])
def test_a_shift_moves_each_colour_by_the_asked_pixels(sigma: float) -> None:
    views = torch.zeros(1, 3, 16, 16)
    views[:, :, 8, 7] = 1
    shift = torch.tensor([[[2.0, 0.0], [-1.0, 3.0], [0.0, 0.0]]])  # rows, columns
    moved = _blurred(views, torch.full((1, 3), sigma), shift)
    peaks = [divmod(int(plane.argmax()), 16) for plane in moved[0]]
    assert peaks == [(10, 7), (7, 10), (8, 7)]
    assert moved.sum((2, 3)).flatten().tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_a_shift_by_half_a_pixel_lies_between_two() -> None:
    views = torch.zeros(1, 3, 16, 16)
    views[:, :, 8, 8] = 1
    shift = torch.tensor([[[0.5, 0.0], [0.0, -0.5], [0.0, 0.0]]])
    moved = _blurred(views, torch.full((1, 3), 0.3), shift)[0]
    torch.testing.assert_close(moved[0, 8], moved[0, 9])
    torch.testing.assert_close(moved[1, :, 8], moved[1, :, 7])


@pytest.mark.parametrize("sigma", [1e-3, 0.02, 0.1, 3.0])
def test_no_blur_and_no_shift_darkens_what_is_even(sigma: float) -> None:
    even = torch.full((64, 3, 8, 8), 0.7)
    shift = torch.rand(64, 3, 2, generator=dice(0)) * 4 - 2
    torch.testing.assert_close(_blurred(even, torch.full((64, 3), sigma), shift), even)


def test_the_finest_compression_changes_nothing() -> None:
    views = torch.rand(4, 3, 32, 24, generator=dice(0))
    assert float((_compressed(views, torch.zeros(4)) - views).abs().max()) < 1e-3


def test_compression_rounds_the_mean_of_a_block() -> None:
    """0.53 to the nearest fifth, tenth and twentieth of white: a grey block has no detail and no colour to lose."""
    grey = torch.full((3, 3, 16, 16), 0.53)
    compressed = _compressed(grey, torch.tensor([0.2, 0.1, 0.05]))
    expected = torch.tensor([0.6, 0.5, 0.55]).reshape(3, 1, 1, 1).expand(3, 3, 16, 16)
    torch.testing.assert_close(compressed, expected, rtol=0, atol=1e-4)


def test_compression_works_in_blocks_of_eight_and_spares_what_is_coarse() -> None:
    views = torch.rand(1, 3, 16, 16, generator=dice(0))
    other = views.clone()
    other[:, :, :8, :8] = 0.1
    some = torch.tensor([0.02])
    a, b = _compressed(views, some), _compressed(other, some)
    assert torch.equal(a[:, :, 8:], b[:, :, 8:]) and torch.equal(a[:, :, :8, 8:], b[:, :, :8, 8:])
    errors = [float((_compressed(views, torch.tensor([step])) - views).abs().mean()) for step in (0.002, 0.01, 0.05)]
    assert errors == sorted(errors) and errors[2] > 5 * errors[0]


# --- patches of fields --------------------------------------------------------------------------------------------------


def test_parts_of_fields_can_be_read_apart(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", per_class=1) / "fields"
    options = Fields("fields", 0.25, patches=20, platelets=6, white_cells=True)
    together = [patch for _, patch in field_patches(folder, options, 7, PARTS)]
    for part in PARTS:
        alone = [patch for _, patch in field_patches(folder, options, 7, {part})]
        assert alone == [patch for patch in together if patch.part == part]
    assert together != [patch for _, patch in field_patches(folder, options, 8, PARTS)]


def test_platelets_inside_white_cells_are_no_artefacts(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", per_class=1) / "fields"
    boxes = _read_boxes(folder)
    rows = [(file, *box) for file, listed in boxes.items() for box in listed]
    inside = {file: (box[1] + 10, box[2] + 10) for file, (box, *_) in boxes.items()}
    rows += [(file, "Platelets", x - 4, y - 4, 8, 8) for file, (x, y) in inside.items()]
    with (folder / "boxes.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file", "label", "x", "y", "w", "h"), *rows])
    options = Fields("fields", 0.25, patches=0, platelets=100)
    centers = [patch.center for _, patch in field_patches(folder, options, 0, PARTS)]
    assert sorted(set(centers)) == [(104.0, 14.0), (104.0, 74.0)] and len(centers) == 10


def test_patches_keep_away_from_white_cells(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", per_class=1) / "fields"
    options = Fields("fields", 0.25, patches=200, platelets=6, white_cells=True)
    fields_read: list[np.ndarray] = []
    found: list[dict[str, list[tuple[float, float]]]] = []
    for number, (corrected, patch) in enumerate(field_patches(folder, options, 0, PARTS)):
        assert corrected.shape == (90, 120, 3) and patch.um_per_px == 0.25
        if not number or corrected is not fields_read[-1]:
            fields_read.append(corrected)
            found.append({"artefact": [], "white_cell": []})
        found[-1][patch.label].append(patch.center)
        assert patch.part == (half("field3.png") if len(found) == 4 else TRAIN)
    boxes = list(_read_boxes(folder).values())
    assert len(found) == len(boxes) == 5
    assert sum(len(f["artefact"]) for f in found) == 200 + 6
    reach = 3.0 / 0.25
    for centers, listed in zip(found, boxes, strict=True):
        ((_, x, y, w, h),) = (box for box in listed if box[0] == "WBC")
        assert centers["white_cell"] == ([] if centers is found[3] else [(x + w / 2, y + h / 2)])  # they do not validate
        for cx, cy in centers["artefact"]:
            assert not (x - reach < cx < x + w + reach and y - reach < cy < y + h + reach)
