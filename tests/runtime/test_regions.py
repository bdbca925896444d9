"""Regions of a mask: what the library's own, slower functions say, and what a person sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nca_edge.regions import _holes, box_of, central, opened, without_specks


def blobs(seed: int, shape: tuple[int, int] = (50, 70)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.5, 5)) > rng.normal() * 0.05)


@given(st.integers(0, 2**32), st.integers(1, 9))
def test_opening_is_scipys(seed: int, radius: int) -> None:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(50, 70)), 2).astype(np.float32)
    line = np.arange(-radius, radius + 1)
    disc = line[:, None] ** 2 + line[None, :] ** 2 <= radius**2
    wide = np.pad(values, 2 * radius, constant_values=values.min())
    inner = slice(2 * radius, -2 * radius)
    assert (opened(values, radius) == ndimage.grey_opening(wide, footprint=disc)[inner, inner]).all()


@given(st.integers(0, 2**32))
def test_holes_are_counted_as_labels_count_them(seed: int) -> None:
    labels, n = ndimage.label(blobs(seed))
    for number in range(1, n + 1):
        patch = labels == number
        assert _holes(patch) == ndimage.label(~np.pad(patch, 1))[1] - 1


def test_the_central_patch_has_no_holes_and_no_neighbours() -> None:
    mask = np.zeros((21, 21), bool)
    mask[6:14, 6:14] = True
    mask[9, 9] = False  # a hole
    mask[17:20, 17:20] = True
    expected = np.zeros_like(mask)
    expected[6:14, 6:14] = True
    assert (central(mask) == expected).all()


def test_of_two_patches_the_one_nearer_to_the_centre_is_taken() -> None:
    mask = np.zeros((11, 31), bool)
    mask[:, :8] = mask[:, 20:] = True
    assert (central(mask) == (np.arange(31) >= 20)[None, :].repeat(11, 0)).all()


@given(st.integers(0, 2**32))
def test_a_box_holds_everything_and_no_more(seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 12)) < 0.03
    mask[4, 5] = True
    rows, columns = box_of(mask)
    part = mask[rows, columns]
    assert part.sum() == mask.sum() and part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
    assert box_of(mask, 99)[0].start == 0 and mask[box_of(mask, 99)].shape == mask.shape


@pytest.mark.parametrize("of_nothing", [central, lambda mask: without_specks(mask, 2)])
def test_nothing_stays_nothing(of_nothing) -> None:
    assert not of_nothing(np.zeros((12, 9), bool)).any()


def test_specks_are_taken_away() -> None:
    mask = np.zeros((8, 8), bool)
    mask[1, 1] = mask[4:7, 4:7] = True
    assert without_specks(mask, 2).sum() == 9
