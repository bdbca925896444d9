"""The NumPy reference against arithmetic done by hand and against a slow, independent float64 formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nca_edge.automaton import Architecture, Weights, draw_fire, fire_masks
from nca_edge.backends import BACKENDS, NumpyBackend, resolve
from nca_edge.errors import UsageError


def random_weights(a: Architecture, seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in a.shapes().items()}


def slow_answer(a: Architecture, w: Weights, image: np.ndarray, fire: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The papers' formulas written out cell by cell in float64."""
    x = np.zeros((a.grid, a.grid, a.channels))
    for row in range(a.size):
        for column in range(a.size):
            place = (row % a.fold) * a.fold + column % a.fold
            x[row // a.fold, column // a.fold, 3 * place : 3 * place + 3] = image[row, column]
    reflect = [1, *range(a.grid), a.grid - 2]
    for mask in fire_masks(a, fire):
        new = x.copy()
        for row, column in np.argwhere(mask):
            near = x[np.ix_([reflect[row + i] for i in range(3)], [reflect[column + j] for j in range(3)])]
            y = [x[row, column]]
            y += [np.einsum("ijc,cij->c", near, w[k].astype(float)) + w[f"{k}_bias"] for k in ("k1", "k2")]
            h = np.maximum(w["w1"].astype(float) @ np.concatenate(y) + w["w1_bias"], 0)
            d = w["w2"].astype(float) @ h
            d[: a.image_channels] = 0
            new[row, column] += d
        x = new
    pooled = x.max((0, 1)) if a.pool == "max" else x.mean((0, 1))
    hidden = np.maximum(w["head1"].astype(float) @ pooled + w["head1_bias"], 0)
    return w["head2"].astype(float) @ hidden + w["head2_bias"], x


def test_one_step_by_hand() -> None:
    """One hidden channel that adds up the red of the eight neighbours and itself, where the grid cell fires."""
    a = Architecture(grid=3, fold=1, channels=4, hidden=1, steps=1, pool="max", update="bernoulli", head=1, classes=2)
    w = {name: np.zeros(shape, np.float32) for name, shape in a.shapes().items()}
    w["k1"][0] = 1.0  # sum of the 3x3 neighbourhood of red
    w["w1"][0, 4] = 1.0  # that sum into the hidden layer
    w["w2"][3, 0] = 2.0  # twice into the hidden channel
    w["w2"][0, 0] = 9.0  # the image must not change all the same
    w["head1"][0, 3] = 1.0
    w["head2"][:, 0] = [1.0, -1.0]
    w["head2_bias"][:] = [0.5, 0.0]
    image = np.zeros((1, 3, 3, 3), np.float32)
    image[0, :, :, 0] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    fire = np.zeros((1, 3, 3), np.uint8)
    fire[0, 1, 1] = fire[0, 0, 0] = 1
    logits, state, _ = NumpyBackend(a, w, fire)(image)
    # centre: 1 + ... + 9 = 45; corner, reflected: rows 2,1,2 and columns 2,1,2 of the image: 5+4+5 + 2+1+2 + 5+4+5 = 33
    assert state[0, 1, 1, 3] == 90 and state[0, 0, 0, 3] == 66 and state[0, 2, 2, 3] == 0
    assert np.array_equal(state[0, :, :, :3], image[0])
    assert logits[0].tolist() == [90.5, -90.0]


@settings(max_examples=25)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["bernoulli", "half-lattice"]),
    st.sampled_from(["max", "mean"]),
    st.sampled_from([1, 2]),
)
def test_reference_equals_the_formulas_written_out(seed: int, update: str, pool: str, fold: int) -> None:
    a = Architecture(4, fold, 3 * fold**2 + 2, 5, 5, pool, update, 4, 3)
    weights, fire = random_weights(a, seed), draw_fire(a, seed)
    image = np.random.default_rng(seed).standard_normal((1, a.size, a.size, 3)).astype(np.float32)
    logits, state, _ = NumpyBackend(a, weights, fire)(image)
    expected_logits, expected_state = slow_answer(a, weights, image[0], fire)
    scale = max(1.0, float(np.abs(expected_state).max()))
    assert np.abs(state[0] - expected_state).max() < 1e-5 * scale
    assert np.abs(logits[0] - expected_logits).max() < 1e-4 * scale


def test_company_and_order_change_nothing() -> None:
    a = Architecture(8, 2, 16, 8, 6, "max", "half-lattice", 8, 4)
    backend = NumpyBackend(a, random_weights(a, 1), draw_fire(a, 1))
    images = np.random.default_rng(0).standard_normal((4, a.size, a.size, 3)).astype(np.float32)
    together = backend(images)
    for n in range(4):
        assert np.array_equal(backend(images[n : n + 1]).logits[0], together.logits[n])
    assert np.array_equal(backend(images[::-1]).state[::-1], together.state)


def test_the_mask_state_is_the_state_after_that_step() -> None:
    a = Architecture(6, 1, 8, 4, 5, "max", "half-lattice", 4, 3)
    weights, fire = random_weights(a, 2), draw_fire(a, 2)
    images = np.random.default_rng(1).standard_normal((2, 6, 6, 3)).astype(np.float32)
    early = NumpyBackend(Architecture(6, 1, 8, 4, 3, "max", "half-lattice", 4, 3), weights, fire[:3])(images)
    whole = NumpyBackend(a, weights, fire, mask_step=3)(images)
    assert np.array_equal(whole.mask_state, early.state) and not np.array_equal(whole.mask_state, whole.state)
    assert np.array_equal(NumpyBackend(a, weights, fire)(images).mask_state, whole.state)


def test_no_cells_no_answers() -> None:
    a = Architecture(4, 1, 5, 2, 2, "max", "half-lattice", 2, 3)
    logits, state, _ = NumpyBackend(a, random_weights(a, 0), draw_fire(a, 0))(np.empty((0, 4, 4, 3), np.float32))
    assert logits.shape == (0, 3) and state.shape == (0, 4, 4, 5)


def test_backend_is_chosen_by_name() -> None:
    present = {("onnx", "fp32"): "model.onnx"}
    assert resolve(BACKENDS, "fp32", present) == [("onnx", "model.onnx"), ("numpy", "weights.npz")]
    assert resolve(["numpy", "onnx"], "fp32", present) == [("numpy", "weights.npz"), ("onnx", "model.onnx")]
    assert resolve(BACKENDS, "fp32", {}) == [("numpy", "weights.npz")]
    with pytest.raises(UsageError, match="no onnx model in int8; it has: --backend numpy --precision fp32, --backend onnx"):
        resolve(["onnx"], "int8", present)
