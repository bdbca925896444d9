"""Quicker ways give the very bits of the slow ones, on any number of threads; what does not says how near it is."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import ndimage

from nca_edge.bands import softened
from nca_edge.planes import MANY, blurred, counted, middle, percentile, rim, successive
from nca_edge.quality.gate import _grey_percentile
from nca_edge.samples import sample_fields
from nca_edge.scale.voting import _peaks, split
from nca_edge.threads import allowed, each, sharers


def field(name: str = "bccd-BloodImage_00209.jpg") -> np.ndarray:
    with Image.open(Path(str(sample_fields())) / name) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("sigma", [0.7, 3.0, 12.0])
def test_a_blur_is_scipys(threads: int, sigma: float) -> None:
    plane = field()[..., 1].astype(np.float32)
    with allowed(threads):
        assert_array_equal(blurred(plane, sigma), ndimage.gaussian_filter(plane, sigma))


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12))
def test_the_rim_is_what_an_erosion_takes(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.7
    assert_array_equal(rim(mask), mask & ~ndimage.binary_erosion(mask, border_value=1))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(["even", "clipped", "steps", "far from zero", "on edges", "constant"]))
def test_counts_err_beside_an_edge_only(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random(int(rng.integers(200, 4 * MANY))) * 10.0 ** rng.integers(-6, 6)
    if kind == "clipped":
        values = np.minimum(values, np.percentile(values, 90))
    elif kind == "steps":
        values = np.log(rng.integers(1, 256, values.size))
    elif kind == "far from zero":
        values += values.max() * 10.0 ** rng.integers(0, 3)
    elif kind == "on edges":
        values = rng.choice(np.linspace(values.min(), values.max(), 257), values.size)
    elif kind == "constant":
        values[:] = 0.25  # of a large one NumPy cannot make bins
    values = values.astype(np.float32)
    counts, edges = counted(values)
    assert len(counts) == 256 and counts.sum() == values.size
    assert_allclose(edges, np.histogram(values, 256)[1], rtol=1e-6)
    beside = 0.01 * float(np.ptp(values)) / 256 + 2 * float(np.spacing(np.abs(values).max()))
    ordered = np.sort(values.astype(float))
    fewest, most = (np.searchsorted(ordered, edges[1:-1].astype(float) + by) for by in (-beside, beside))
    below = np.cumsum(counts)[:-1]
    assert (fewest <= below).all() and (below <= most).all()


@given(st.integers(0, 2**32), st.integers(1, 400), st.sampled_from([0.0, 2.0, 37.5, 99.0, 100.0]))
def test_a_percentile_of_grey_levels_is_numpys(seed: int, size: int, percent: float) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (1, size)).astype(np.uint8)
    assert _grey_percentile(grey, percent) == pytest.approx(float(np.percentile(grey, percent)), abs=1e-9)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 3 * MANY), st.sampled_from(["even", "few levels", "clipped", "constant", "tiny"]))
def test_ranks_percentiles_and_medians_are_numpys(seed: int, size: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size).astype(np.float32)
    if kind == "few levels":
        values = np.round(values)
    elif kind == "clipped":
        values = np.minimum(values, np.percentile(values, 90))
    elif kind == "constant":
        values[:] = 0.25
    elif kind == "tiny":
        values *= np.float32(1e-38)
    ordered = np.sort(values)
    for vectors in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nca_edge.planes.VECTORS", vectors)
            for rank in {0, size // 3, size - 1}:
                assert successive(values, rank) == (ordered[rank], ordered[min(rank + 1, size - 1)])
            assert middle(values) == np.median(values)
            for percent in (0, 37.5, 90, 99, 100):
                assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)), rel=1e-6, abs=1e-44)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 90), st.integers(1, 90), st.floats(0.2, 30))
def test_a_soft_blur_is_as_near_to_scipys_as_it_says(seed: int, height: int, width: int, sigma: float) -> None:
    plane = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    assert_allclose(softened(plane, sigma), ndimage.gaussian_filter(plane, sigma), rtol=5e-6, atol=1e-12)


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_peaks_are_those_of_a_filter_for_maxima(seed: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    inner = rng.integers(0, 9, (20, 31)).astype(np.float32)  # few levels: many ties, which are all peaks
    padded = np.pad(inner, reach)
    expected = np.flatnonzero((padded == ndimage.maximum_filter(padded, 2 * reach + 1)) & (padded > 5))
    assert_array_equal(_peaks(padded, reach, 5.0), expected)


@given(st.integers(0, 2**32), st.integers(1, 4000))
def test_classes_lie_apart_as_their_values_say(seed: int, size: int) -> None:
    values = np.random.default_rng(seed).gamma(0.5, 0.4, size).astype(np.float32)
    level, apart = split(values)
    low, high = values[values <= level].astype(float), values[values > level].astype(float)
    expected = (high.mean() - low.mean()) / (low.std() + 1e-3) if high.size and low.size else 0.0
    assert apart == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_work_is_shared_and_comes_back_in_order() -> None:
    meeting = threading.Barrier(3)  # opens when three threads wait at it

    def square(n: int) -> tuple[int, int, bool]:
        if n < 3:
            meeting.wait(30)
        return n * n, sharers(), threading.current_thread() is threading.main_thread()

    with allowed(3):
        found = each(square, range(7))
        assert [n for n, _, _ in found] == [n * n for n in range(7)]
        assert sum(main for *_, main in found[:3]) == 1
        assert all(threads == (3 if main else 1) for _, threads, main in found)  # a share in the pool does not share again
        assert each(abs, []) == [] and each(abs, [-5]) == [5]
    assert sharers() == 1
    assert each(lambda n: threading.current_thread() is threading.main_thread(), range(3)) == [True] * 3


@pytest.mark.parametrize("asked, used", [(0, 1), (-2, 1), (1, 1), (2, 2), (64, 4)])
def test_threads_that_are_used(asked: int, used: int) -> None:
    with allowed(asked):
        assert sharers() == used


def test_an_error_waits_for_the_other_shares() -> None:
    done = []

    def work(n: int) -> None:
        if n == 0:
            raise ValueError("the first")
        time.sleep(0.05)
        done.append(n)

    with allowed(2), pytest.raises(ValueError, match="the first"):
        each(work, range(2))
    assert done == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_gets_threads_of_its_own() -> None:
    with allowed(2):
        assert each(abs, [-1, -2]) == [1, 2]
        if (child := os.fork()) == 0:
            os._exit(0 if each(abs, [-3, -4]) == [3, 4] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
