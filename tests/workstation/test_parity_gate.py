"""The gate before a variant is written: it passes what is right and says where a broken one began."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nca_edge.automaton import draw_fire, pool
from nca_edge.backends import NumpyBackend
from nca_export import onnx_int8_graph, parity
from nca_export.quantize import LEVELS, asymmetric, equalise, moments, reach
from nca_export.rounding import narrow_head, quantized
from nca_export.variants import Automaton, build
from tests.workstation.automata import BASE, random_images, random_weights

A = replace(BASE, update="half-lattice", fold=2, channels=20, hidden=24, steps=8)
IMAGES = random_images(A, 12)


@pytest.fixture(scope="module")
def automaton() -> Automaton:
    weights, fire = random_weights(A), draw_fire(A, 1)
    return Automaton(A, weights, fire, None, reach(A, weights, fire, IMAGES))


@pytest.fixture(scope="module")
def reference(automaton: Automaton) -> np.ndarray:
    return NumpyBackend(A, automaton.weights, automaton.fire)(IMAGES).logits


@pytest.mark.parametrize("form", ["onnx", "litert"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_honest_variants_pass(automaton: Automaton, reference: np.ndarray, form: str, precision: str) -> None:
    measured = parity.measure(form, precision, automaton, IMAGES, reference)
    assert measured.problem() is None
    assert len(measured.steps["state"]) == A.steps and measured.n == len(IMAGES)
    assert measured.graph == build(form, precision, automaton)  # what was measured is what is written
    if precision == "fp32":
        assert measured.logits <= 1e-5 and measured.state <= 1e-5 and measured.agreement == 1


@pytest.mark.parametrize("tensor", ["perceived", "hidden"])
def test_a_broken_scale_is_refused_by_step_and_tensor(
    automaton: Automaton, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch, tensor: str
) -> None:
    """Step 5 is told a tenth of what it holds: everything larger is cut off."""
    honest = onnx_int8_graph.Reach.widest

    def broken(self: object, step: int) -> tuple[float, float, float]:
        low, high, hidden = honest(self, step)  # type: ignore[arg-type]
        if step != 4:
            return low, high, hidden
        return (low / 30, high / 30, hidden) if tensor == "perceived" else (low, high, hidden / 30)

    monkeypatch.setattr(onnx_int8_graph.Reach, "widest", broken)
    problem = parity.measure("onnx", "int8", automaton, IMAGES, reference).problem()
    assert problem is not None and problem.startswith("model.int8.onnx: not written: ")
    assert f"first beyond its bound: {tensor} of step 5 " in problem


def test_a_wrong_head_is_refused_though_every_step_is_right(automaton: Automaton, reference: np.ndarray) -> None:
    problem = parity.measure("litert", "fp32", automaton, IMAGES, reference + 1).problem()
    assert problem is not None and "logits differ" in problem and "no step is beyond its own bound" in problem


def test_equalised_weights_compute_the_same(automaton: Automaton) -> None:
    assert automaton.reach is not None
    equal = equalise(automaton.weights, automaton.reach)
    plain, alike = (NumpyBackend(A, w, automaton.fire) for w in (automaton.weights, equal.weights))
    state = np.random.default_rng(3).normal(0, 2, (A.grid, A.grid, A.channels)).astype(np.float32)
    lines = (slice(None), slice(None))
    expected = plain.perception(state, lines)
    found = alike.perception(state * equal.perceived[: A.channels], lines)
    assert np.allclose(found, expected * equal.perceived, atol=1e-5)
    hidden = plain.hidden(expected)
    assert np.allclose(alike.hidden(found), hidden * equal.hidden, atol=1e-5)
    assert np.allclose(alike.hidden(found) @ equal.weights["w2"].T, hidden @ automaton.weights["w2"].T, atol=1e-5)
    assert (equal.hidden > 0).all() and (equal.reach.high.max(0) >= -equal.reach.low.min(0) - 1e-6).all()


def test_reach_holds_all_that_the_reference_shows(automaton: Automaton) -> None:
    assert automaton.reach is not None
    for step, seen in enumerate(parity.trace(automaton, IMAGES)):
        perceived, hidden = seen["perceived"], seen["hidden"]
        assert (perceived.max((0, 1, 2)) <= automaton.reach.high[step] + 1e-6).all()
        assert (perceived.min((0, 1, 2)) >= automaton.reach.low[step] - 1e-6).all()
        assert np.allclose(hidden.max((0, 1)), automaton.reach.hidden[step], atol=1e-5)
        changed = np.abs(seen["delta"]).reshape(-1, A.channels).max(0)
        assert np.allclose(changed, automaton.reach.delta[step], atol=1e-5)


@given(low=st.floats(-50, 0), high=st.floats(0.01, 50), grades=st.integers(1, 12))
def test_a_graded_scale_is_the_nearest_of_so_many_to_an_octave(low: float, high: float, grades: int) -> None:
    (exact, middle), (scale, zero) = asymmetric(low, high), asymmetric(low, high, grades)
    assert (high - low) / LEVELS == pytest.approx(exact) and -low / exact == pytest.approx(middle, abs=0.5 + 1e-3)
    steps = np.log2(scale) * grades
    assert steps == pytest.approx(round(steps), abs=1e-3) and abs(np.log2(scale / exact)) <= 0.5 / grades + 1e-3
    assert 0 <= zero <= LEVELS  # 0 itself is a number that is kept exactly


def test_rounded_weights_keep_their_largest_exactly() -> None:
    weight = np.array([[0.5, -1.27, 0.0], [0.0, 0.0, 0.0]], np.float32)
    numbers, scales = quantized(weight)
    assert numbers.tolist() == [[50, -127, 0], [0, 0, 0]] and scales.tolist() == pytest.approx([0.01, 0.01])


@pytest.mark.parametrize("seen", [np.diag([3.0, 0.5, 2.0]), np.zeros((3, 3))], ids=["nothing in common", "nothing"])
def test_weights_of_channels_that_have_nothing_in_common_are_rounded_to_the_nearest(seen: np.ndarray) -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert np.array_equal(quantized(weight, seen)[0], quantized(weight)[0])


def test_two_channels_that_are_always_alike_share_a_rounding_error() -> None:
    """Both weights lie 0.4 above a number: rounded by themselves they lose 0.8 of the sum, together 0.2."""
    weight = np.array([[127.0, 10.4, 20.4]], np.float32)
    alike = np.array([[1e-3, 0, 0], [0, 1.0, 1.0], [0, 1.0, 1.0]])
    together = quantized(weight, alike)[0][0]
    assert together[0] == 127 and together[1:].sum() == 31 and (quantized(weight)[0][0] == [127, 10, 20]).all()


def test_what_the_layers_read_on_real_cells_halves_what_their_rounding_costs(automaton: Automaton) -> None:
    weights, seen = automaton.weights, moments(A, automaton.weights, automaton.fire, IMAGES)
    steps = list(parity.trace(automaton, IMAGES))
    read, between = (
        np.concatenate([step[name].reshape(-1, step[name].shape[-1]) for step in steps]).astype(float)
        for name in ("perceived", "hidden")
    )
    pooled = np.stack([pool(state, A.pool) for state in steps[-1]["state"]]).astype(float)

    def lost(x: np.ndarray, name: str, moment: np.ndarray | None) -> float:
        if name == "head1":
            narrow = narrow_head(weights, moment)
            numbers, scales = narrow.head1, narrow.scale * weights["head1_bias"] / narrow.head1_bias
        else:
            numbers, scales = quantized(weights[name], moment)
        return float(np.square(x @ (numbers * scales[:, None] - weights[name]).T).sum())

    for name, x, moment in (("w1", read, seen.perceived), ("w2", between, seen.hidden), ("head1", pooled, seen.pooled)):
        assert np.allclose(moment, x.T @ x, rtol=1e-4, atol=1e-4 * moment.max())
        assert lost(x, name, moment) < 0.6 * lost(x, name, None), name
