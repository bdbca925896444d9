"""Surfaces are those of plain least squares over all terms at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from nca_edge.surface import Surfaces


def terms_of(height: int, width: int, degree: int) -> np.ndarray:
    """(pixels, terms), the constant first."""
    y, x = (chebyshev.chebvander(np.linspace(-1, 1, n), degree) for n in (height, width))
    pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack([np.outer(y[:, i], x[:, j]).ravel() for i, j in pairs], axis=1)


@given(st.integers(0, 2**32), st.integers(6, 40), st.integers(6, 40), st.integers(1, 4))
def test_a_fit_is_that_of_weighted_least_squares(seed: int, height: int, width: int, degree: int) -> None:
    rng = np.random.default_rng(seed)
    level, weight = rng.normal(5.0, 0.3, (2, height, width))
    weight = np.abs(weight)
    terms = terms_of(height, width, degree)
    pull = np.full(terms.shape[1], 2e-3 * weight.sum())  # all but the constant, towards 0
    pull[0] = 1e-9
    rows = np.concatenate([terms * np.sqrt(weight.reshape(-1, 1)), np.diag(np.sqrt(pull))])
    sought = np.concatenate([(level * np.sqrt(weight)).ravel(), np.zeros(len(pull))])
    expected = (terms @ np.linalg.lstsq(rows, sought, rcond=None)[0]).reshape(height, width)
    fit = Surfaces(height, width, degree)
    found = fit.drawn(fit.fitted(weight.astype(np.float32), level.astype(np.float32)))
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=2e-4)


@given(st.integers(0, 2**32), st.integers(2, 30), st.integers(2, 30), st.integers(1, 5))
def test_a_surface_drawn_larger_goes_through_the_middles_of_its_pixels(seed: int, height: int, width: int, half: int) -> None:
    """Times an odd number, so that each small pixel's middle is a large one's; the ends are not guessed."""
    coefficients = np.random.default_rng(seed).normal(size=(5, 5)).astype(np.float32)
    times = 2 * half + 1
    small = Surfaces(height, width, 4).drawn(coefficients)
    large = Surfaces(height * times, width * times, 4, (height, width)).drawn(coefficients)
    assert large[half::times, half::times] == pytest.approx(small, abs=1e-4)
    assert large[0, 0] == large[half, half]
