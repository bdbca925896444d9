"""Temperature and the threshold of unsure, from validation data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nca_export.calibration import PASSES, Looks, calibrate, fit_temperature, prior_shift, probabilities, unsure_threshold


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 7.0])
def test_known_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(1)
    calibrated = rng.normal(0, 2, (20_000, 5))
    p = probabilities(calibrated, 1.0)
    labels = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)  # drawn from p, so temperature 1 is right for these logits
    assert fit_temperature((calibrated * temperature).astype(np.float32), labels) == pytest.approx(temperature, rel=0.05)


def test_temperature_stays_in_its_range() -> None:
    logits = np.eye(3, dtype=np.float32).repeat(4, axis=0)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.05, rel=0.05)  # all right: as sure as allowed
    assert fit_temperature(logits, (logits.argmax(1) + 1) % 3) == pytest.approx(20, rel=0.05)  # all wrong: as unsure


def test_probabilities_of_large_logits() -> None:
    p = probabilities(np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32), 0.05)
    np.testing.assert_allclose(p, [[1, 0], [0.5, 0.5]])


def _two_classes(cases: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """(confidence of the answer, whether it is right) -> probabilities and labels; the answer is always class 0."""
    confidence = np.array([c for c, _ in cases])
    return np.stack([confidence, 1 - confidence], 1), np.array([0 if right else 1 for _, right in cases])


@pytest.mark.parametrize(
    "cases, accuracy, expected",
    [
        pytest.param([(0.9, True), (0.8, True), (0.7, True)], 0.9, 0.7, id="all right: the lowest"),
        pytest.param([(0.9, True), (0.8, True), (0.7, False)], 0.9, 0.8, id="above the first error"),
        pytest.param([(0.9, True), (0.8, False), (0.7, True), (0.6, True)], 0.75, 0.6, id="an error is made up for"),
        pytest.param([(0.9, False), (0.8, True), (0.7, False)], 0.9, 0.8, id="out of reach: the best accuracy"),
        pytest.param([(0.9, False), (0.8, False)], 0.5, 0.8, id="all wrong: as good as any"),
        pytest.param([(0.6004, True), (0.6002, False)], 0.9, 0.6, id="a tie after rounding goes down together"),
        pytest.param([(0.9, True), (0.7, True), (0.7, False), (0.7, False)], 0.6, 0.9, id="equal confidences stay together"),
        pytest.param([(0.8, True)], 0.9, 0.8, id="one answer"),
    ],
)
def test_small_cases(cases: list[tuple[float, bool]], accuracy: float, expected: float) -> None:
    p, labels = _two_classes(cases)
    assert unsure_threshold(p, labels, accuracy) == pytest.approx(expected)


def test_a_tenth_of_the_answers_must_remain() -> None:
    cases = [(0.99, True), *((0.9, n < 15) for n in range(19)), *((0.6, n % 2 == 0) for n in range(20))]
    p, labels = _two_classes(cases)
    assert unsure_threshold(p, labels, 0.95) == pytest.approx(0.9)  # one of forty alone would be right always: too few


@given(
    st.lists(st.tuples(st.floats(0.5, 1.0), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.75, 0.9, 0.95]),
)
def test_sure_answers_are_right_often_enough(cases: list[tuple[float, bool]], accuracy: float) -> None:
    p, labels = _two_classes(cases)
    threshold = unsure_threshold(p, labels, accuracy)
    right = np.array([r for _, r in cases])
    confidence = p.max(1)

    def share(t: float) -> float:
        sure = confidence >= t
        return float(right[sure].mean()) if sure.sum() >= max(1, len(cases) // 10) else -1.0

    assert 0 <= threshold <= 1
    assert share(threshold) >= 0, "some answers stay sure"
    steps = np.arange(1001) / 1000
    reachable = [t for t in steps if share(t) >= accuracy]
    if reachable:
        assert share(threshold) >= accuracy
        assert not any(share(t) >= accuracy for t in np.unique(np.floor(confidence * 1000) / 1000) if t < threshold), (
            "the lowest"
        )
    else:
        assert share(threshold) >= max(share(t) for t in steps) - 1e-12


def test_a_prior_moves_the_odds_by_the_ratio_of_the_priors() -> None:
    logits = np.array([[1.0, 0.0], [-2.0, 0.5]])
    moved = logits.copy()
    moved[:, 1] += prior_shift(0.5, 0.1, temperature=0.7)
    before, after = probabilities(logits, 0.7), probabilities(moved, 0.7)
    assert after[:, 1] / after[:, 0] == pytest.approx(before[:, 1] / before[:, 0] / 9)
    assert prior_shift(0.2, 0.2, 1.3) == 0


def test_the_exporter_decides_on_more_looks_as_the_device_does() -> None:
    """What is calibrated must be what is answered: the mean only where the first look is less sure than the bound."""
    rng = np.random.default_rng(3)
    first, mean = (rng.normal(0, 2, (50, 4)).astype(np.float32) for _ in range(2))
    seen = Looks(first, mean).logits(1.5)
    again = probabilities(first, 1.5).max(1) < PASSES.below
    assert 0 < again.sum() < 50
    assert np.array_equal(seen, np.where(again[:, None], mean, first))


def test_the_temperature_is_that_of_the_answers_after_all_looks() -> None:
    rng = np.random.default_rng(4)
    first, labels = rng.normal(0, 2, (400, 4)).astype(np.float32), rng.integers(0, 4, 400)
    first[np.arange(400), labels] += 3
    looks = Looks(first, first * np.float32(1.2))
    found = calibrate(looks, labels)
    assert found.temperature == pytest.approx(fit_temperature(looks.logits(found.temperature), labels), rel=1e-2)
    assert calibrate(Looks(first, first), labels).temperature == pytest.approx(fit_temperature(first, labels))
