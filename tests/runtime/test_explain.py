"""Relevance adds up to the logit; masks and peaks are where they belong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import norm

from nca_edge.component import cell_component, exact_otsu
from nca_edge.explain import SWAY, Relevance, _chance, head_relevance, strongest, top_channels
from nca_edge.mask import NUCLEUS, _enlarged, cell_mask
from nca_edge.mixtures import _gaussian, _terms
from nca_edge.preprocess import otsu, resize


def head(seed: int, channels: int = 6, hidden: int = 5, classes: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"head1": (hidden, channels), "head1_bias": (hidden,), "head2": (classes, hidden), "head2_bias": (classes,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_relevance_by_hand() -> None:
    """v = (2, 3); h = relu(2*1 + 3*2 - 2, 2*(-1) + 0) = (6, 0); logit = 6*0.5 + 1 = 4."""
    weights = {
        "head1": np.array([[1, 2], [-1, 0]], np.float32), "head1_bias": np.array([-2, 0], np.float32),
        "head2": np.array([[0.5, 7]], np.float32), "head2_bias": np.array([1], np.float32),
    }  # fmt: skip
    r = head_relevance(np.array([2.0, 3.0]), weights, 0)
    # of the 3 that the hidden unit brings, its inputs 2, 6 and its bias -2 share 6: 1, 3 and -1
    assert r.channels == pytest.approx([1.0, 3.0], abs=1e-5)
    assert r.bias_share == pytest.approx(1.0 - 1.0, abs=1e-5)
    assert abs(r.epsilon_share) < 2e-6


@given(st.integers(0, 2**32), st.integers(0, 2))
def test_relevance_bias_and_epsilon_add_up_to_the_logit(seed: int, target: int) -> None:
    weights = head(seed)
    v = np.random.default_rng(seed + 1).standard_normal(6) * 5
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    logit = w["head2"][target] @ np.maximum(w["head1"] @ v + w["head1_bias"], 0) + w["head2_bias"][target]
    r = head_relevance(v, weights, target)
    assert r.channels.sum() + r.bias_share + r.epsilon_share == pytest.approx(logit, rel=1e-9, abs=1e-9)


def test_a_logit_of_nothing_but_bias_gives_the_channels_nothing() -> None:
    weights = head(0)
    weights["head1"][:] = 0
    weights["head1_bias"][:] = -1
    r = head_relevance(np.ones(6), weights, 1)
    assert not r.channels.any()
    assert r.bias_share + r.epsilon_share == pytest.approx(float(weights["head2_bias"][1]), rel=1e-12)


def test_peaks_are_the_grid_cells_that_won() -> None:
    state = np.zeros((4, 4, 2), np.float32)
    state[1, 2, 0] = 5
    state[3, 0, 1] = -9
    relevance = head_relevance(np.array([1.0, 1.0]), {k: v[:, :2] if k == "head1" else v for k, v in head(3).items()}, 0)
    by_channel = {t.channel: t.peak for t in top_channels([relevance], [state], "max", 40)}
    assert by_channel[0] == (25, 15)  # middle of column 2, row 1
    assert {t.channel: t.peak for t in top_channels([relevance], [state], "mean", 40)}[1] == (5, 35)


def test_the_peak_of_several_looks_is_that_of_the_loudest() -> None:
    """Channel 0 speaks for the class, channel 1 against it: each peaks where it said most of that; relevance is the mean."""
    each = [Relevance(np.array(said), 0.5, 0.0, np.array(said)) for said in ((1.0, -3.0), (5.0, -1.0))]
    states = [np.zeros((4, 4, 2), np.float32) for _ in each]
    states[0][0, 0], states[1][3, 3] = 1, 1
    by_channel = {t.channel: (t.relevance, t.peak) for t in top_channels(each, states, "max", 40)}
    assert by_channel == {0: (3.0, (35, 35)), 1: (-2.0, (5, 5))}


def barely_on(sum_of_first: float) -> Relevance:
    """Of a head whose first hidden unit, of this sum, pits channels 0 and 1 against each other; the second, on, hears 2."""
    weights = {
        "head1": np.array([[5, -5, 0], [0, 0, 1]], np.float32), "head1_bias": np.zeros(2, np.float32),
        "head2": np.array([[1, 3]], np.float32), "head2_bias": np.zeros(1, np.float32),
    }  # fmt: skip
    return head_relevance(np.array([1 + sum_of_first / 5, 1.0, 2.0]), weights, 0)


def test_a_unit_that_is_barely_on_does_not_change_the_top_channels() -> None:
    """A sum of 0.01 or -0.01 is nothing to a logit of 6; the relevance of channels 0 and 1 jumps by 5, their order does not."""
    on, off = barely_on(0.01), barely_on(-0.01)
    assert on.channels == pytest.approx([5.01, -5, 6], rel=1e-3) and off.channels == pytest.approx([0, 0, 6])
    assert on.expected == pytest.approx([2.5, -2.5, 6], rel=0.1) and off.expected == pytest.approx([2.5, -2.5, 6], rel=0.1)
    assert strongest(on)[0] == strongest(off)[0] == 2


def test_expected_relevance_is_the_relevance_where_every_unit_is_clearly_on() -> None:
    weights = {**head(3), "head1_bias": np.full_like(head(3)["head1_bias"], 1e3)}
    relevance = head_relevance(np.linspace(1, 2, weights["head1"].shape[1]), weights, 0)
    assert relevance.expected == pytest.approx(relevance.channels, rel=1e-6)


def test_the_chance_to_be_on_is_that_of_a_normal_distribution() -> None:
    sums = np.array([-3.0, -0.2, 0.0, 0.4, 5.0])
    assert _chance(sums) == pytest.approx(norm.cdf(sums / (SWAY * sums.std())), abs=1e-12)
    assert _chance(np.zeros(2)).tolist() == [0.5, 0.5] and _chance(np.array([2.0])).tolist() == [1.0]


def test_the_ten_are_chosen_by_expected_relevance_and_listed_by_relevance() -> None:
    channels, expected = np.arange(12.0), np.arange(12.0)
    expected[[0, 11]] = 20, 0.5
    top = top_channels([Relevance(channels, 0.0, 0.0, expected)], [np.zeros((4, 4, 12), np.float32)], "max", 40)
    assert [c.channel for c in top] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 0]


@given(st.integers(0, 2**32))
def test_otsu_finds_the_split_of_largest_variance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0, 1, 50), rng.normal(rng.uniform(1, 8), 1, 30)])
    values -= values.min()  # what it is used on is never negative

    def between(threshold: float) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        return float(len(low) * len(high) * (low.mean() - high.mean()) ** 2) if len(low) and len(high) else 0.0

    best = max(between(t) for t in values)
    assert between(otsu(values)) >= 0.97 * best  # a histogram of 256 bins is not exact


@given(st.integers(0, 2**32), st.integers(2, 200), st.booleans())
def test_few_values_are_split_where_the_variance_between_is_largest(seed: int, n: int, coarse: bool) -> None:
    values = np.random.default_rng(seed).gamma(2.0, 1.0, n).astype(np.float32)
    if coarse:
        values = np.round(values)
    if np.ptp(values) == 0:
        return

    def between(threshold: float) -> float:
        low, high = values[values <= threshold].astype(float), values[values > threshold].astype(float)
        return float(len(low) * len(high) * (low.mean() - high.mean()) ** 2) if len(low) and len(high) else 0.0

    assert between(exact_otsu(values)) == pytest.approx(max(between(float(t)) for t in values), rel=1e-6)


def test_mask_is_the_centred_disc_and_its_dark_core() -> None:
    row, column = np.indices((64, 64)) - 31.5
    radius = np.hypot(row, column)
    crop = np.ones((64, 64, 3), np.float32)
    crop[radius < 20] = 0.7
    crop[radius < 9] = 0.2
    crop[np.hypot(row - 26, column - 26) < 4] = 0.7  # a neighbour in the corner
    state = np.stack([1 - crop[::2, ::2, 0], np.zeros((32, 32), np.float32)], axis=-1)
    mask = cell_mask(state, crop)
    assert mask.shape == (64, 64) and set(np.unique(mask)) == {0, 128, 255}
    assert mask[32, 32] == 255 and mask[32, 32 + 15] == 128 and mask[0, 0] == 0 and mask[58, 58] == 0
    cell, nucleus = (mask > 0).sum(), (mask == 255).sum()
    assert nucleus == pytest.approx(np.pi * 9**2, rel=0.15)
    assert cell == pytest.approx(np.pi * 20**2, rel=0.5)


@given(st.integers(0, 2**32))
def test_a_gaussian_written_as_ten_factors_is_the_one_of_its_moments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    colours = rng.normal(rng.uniform(0, 2, 3), rng.uniform(0.02, 0.5, 3), (300, 3)).astype(np.float32)
    weights, terms = rng.random((1, 300)), _terms(np.ascontiguousarray(colours.T))
    (sums,) = (weights @ terms.T.astype(np.float64)).tolist()
    factors = np.array(_gaussian(sums, weights.sum() / 0.3))
    x = colours.astype(np.float64)
    mean = weights[0] @ x / weights.sum()
    covariance = (x - mean).T @ ((x - mean) * weights.T) / weights.sum() + 2e-3 * np.eye(3)
    far = np.einsum("ni,ij,nj->n", x - mean, np.linalg.inv(covariance), x - mean)
    expected = np.log(0.3) - 0.5 * np.log(np.linalg.det(covariance)) - 0.5 * far
    largest = float(np.abs(factors[:, None] * terms).max())  # its terms cancel: of float32 stays that share of the largest
    assert factors @ terms == pytest.approx(expected, abs=4e-7 * largest)


@given(st.sampled_from([-1.0, 1.0]))
def test_the_border_is_background_whatever_the_components_sign(sign: float) -> None:
    row, column = np.indices((16, 16)) - 7.5
    disc = (np.hypot(row, column) < 5).astype(np.float32)
    component = cell_component(np.stack([disc * sign, disc * 0.5], axis=-1))
    assert component[8, 8] > component[0, 0]


def test_a_state_of_nothing_has_no_mask_and_no_crash() -> None:
    crop = np.ones((20, 20, 3), np.float32)
    crop[5:15, 5:15] = 0.3
    for level in (0.0, 0.7):
        mask = cell_mask(np.full((8, 8, 3), level, np.float32), crop)
        assert mask.shape == (20, 20) and not mask.any()


def test_a_platelet_is_outlined_without_the_gap_around_it() -> None:
    row, column = np.indices((64, 64)) - 31.5
    crop = np.full((64, 64, 3), 0.99, np.float32)
    for y, x in ((-24, -10), (-14, 22), (10, -26), (16, 20), (27, -4)):
        crop[np.hypot(row - y, column - x) < 9] = 0.9, 0.75, 0.78  # red cells
    crop[np.hypot(row, column) < 4] = 0.45, 0.3, 0.6
    crop = ndimage.gaussian_filter(crop, (0.8, 0.8, 0))
    state = np.repeat((np.hypot(row, column)[::2, ::2] < 10).astype(np.float32)[..., None], 2, axis=-1)
    mask = cell_mask(state, crop)
    assert (mask > 0).sum() == pytest.approx(np.pi * 4**2, rel=0.5)  # 51 times that with the gap


def test_a_touching_cell_that_is_told_of_its_own_stays_outside() -> None:
    row, column = np.indices((64, 64)) - 31.5
    both = (np.hypot(row, column) < 11) | (np.hypot(row, column - 20) < 10)
    crop = np.where(both[..., None], np.array([0.5, 0.35, 0.65]), 0.98).astype(np.float32)
    state = np.repeat(both[::2, ::2].astype(np.float32)[..., None], 2, axis=-1)
    assert cell_mask(state, crop)[32, 52] > 0
    mask = cell_mask(state, crop, [(0.5 + 20 / 64, 0.5, 10 / 11)])
    assert mask[32, 52] == 0 and (mask > 0).sum() == pytest.approx(np.pi * 11**2, rel=0.1)


def test_an_outline_is_enlarged_as_images_are() -> None:
    values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    for side in (20, 64, 114, 160):
        assert (_enlarged(values, side) == (resize(values, side, side) > 0)).mean() > 0.9999


def test_red_cells_that_dominate_the_state_do_not_take_the_mask() -> None:
    """The strongest component tells red cells from all else; the white cell in the middle must be outlined all the same."""
    row, column = np.indices((32, 32)) - 15.5
    white = (np.hypot(row, column) < 7).astype(np.float32)
    red = ((np.hypot(row - 12, column) < 5) | (np.hypot(row, column - 13) < 5) | (np.hypot(row + 12, column) < 5)).astype(
        np.float32
    )
    state = np.stack([3 * red, 1.5 * white], axis=-1)
    fine = np.kron(np.stack([white, red, np.hypot(row, column) < 4]), np.ones((2, 2)))
    colours = np.array([[0.75, 0.7, 0.85], [0.9, 0.75, 0.75], [0.3, 0.2, 0.6]], np.float32)  # cytoplasm, red cells, nucleus
    crop = np.ones((64, 64, 3), np.float32)
    for where, colour in zip(fine.astype(bool), colours, strict=True):
        crop[where] = colour
    crop += np.random.default_rng(0).normal(0, 0.02, crop.shape).astype(np.float32)
    mask = cell_mask(state, crop)
    assert mask[32, 32] == NUCLEUS and mask[32 + 24, 32] == 0
    assert (mask > 0).sum() == pytest.approx(np.pi * 14**2, rel=0.15)
    assert (mask == NUCLEUS).sum() == pytest.approx(np.pi * 8**2, rel=0.15)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e25])
def test_the_size_of_a_states_values_does_not_matter(scale: float) -> None:
    row, column = np.indices((64, 64)) - 31.5
    crop = np.where((np.hypot(row, column) < 20)[..., None], np.float32(0.4), np.float32(1)) * np.ones(3, np.float32)
    state = np.random.default_rng(0).normal(0, 0.1, (32, 32, 5)) + (np.hypot(row, column) < 18)[::2, ::2, None] * np.arange(5)
    mask = cell_mask((scale * state).astype(np.float32), crop)
    assert (mask > 0).sum() == pytest.approx(np.pi * 20**2, rel=0.1)


@pytest.mark.parametrize("n", [24, 64, 160, 161, 320])
def test_a_mask_has_the_size_of_its_crop(n: int) -> None:
    row, column = (np.indices((n, n)) - (n - 1) / 2) / n
    crop = np.ones((n, n, 3), np.float32)
    crop[np.hypot(row, column) < 0.25] = 0.4
    crop += np.random.default_rng(0).normal(0, 0.02, crop.shape).astype(np.float32)
    row, column = (np.indices((32, 32)) - 15.5) / 32
    mask = cell_mask((np.hypot(row, column) < 0.2).astype(np.float32)[..., None], crop)
    assert mask.shape == (n, n) and mask.dtype == np.uint8
    assert (mask > 0).mean() == pytest.approx(np.pi * 0.25**2, rel=0.2)


def test_an_arm_is_no_part_of_the_cell() -> None:
    row, column = np.indices((64, 64)) - 31.5
    cell = np.hypot(row, column) < 14
    shown = cell | ((np.abs(row) < 1.2) & (column > 0) & (column < 26))  # the edge of a red cell that touches it
    crop = np.where(shown[..., None], np.float32(0.4), np.float32(1)) * np.ones(3, np.float32)
    crop += np.random.default_rng(0).normal(0, 0.02, crop.shape).astype(np.float32)
    mask = cell_mask(cell[::2, ::2].astype(np.float32)[..., None], crop)
    assert mask[32, 32 + 12] > 0 and not mask[28:36, 32 + 20 :].any()


def test_nothing_in_the_crop_is_no_cell() -> None:
    state = np.random.default_rng(0).normal(0, 1, (32, 32, 4)).astype(np.float32)
    assert not cell_mask(state, np.full((50, 50, 3), 0.8, np.float32)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_outlines_nothing(value: float) -> None:
    state = np.zeros((8, 8, 3), np.float32)
    state[4, 4] = value
    crop = np.ones((20, 20, 3), np.float32)
    crop[5:15, 5:15] = 0.3
    assert not cell_mask(state, crop).any()
