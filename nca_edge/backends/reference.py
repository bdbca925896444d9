"""The reference: plain NumPy, float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights, pool
from nca_edge.backends.protocol import Answer
from nca_edge.errors import BundleError
from nca_edge.records import Image32

Lines = tuple[slice, slice]
"""Rows and columns that a step computes."""


def firing_lines(fire: NDArray[np.uint8] | np.uint8) -> Lines:
    """Of a (grid, grid) mask all, of the phase of a half-lattice step every second row or column."""
    if np.ndim(fire):
        return slice(None), slice(None)
    first = int(fire) % 2
    return (slice(first, None, 2), slice(None)) if fire < 2 else (slice(None), slice(first, None, 2))


def folded(a: Architecture, image: Image32) -> Image32:
    """(size, size, 3) -> (grid, grid, 3 * fold^2); fold 2: colour k of pixel (2r + i, 2c + j) in channel (2i + j) * 3 + k."""
    squares = image.reshape(a.grid, a.fold, a.grid, a.fold, 3).transpose(0, 2, 1, 3, 4)
    return squares.reshape(a.grid, a.grid, a.image_channels)


class NumpyBackend:
    """The reference: plain NumPy, float32, BLAS for the two 1x1 layers; one cell after the other: company changes nothing."""

    name = "numpy"

    def __init__(self, architecture: Architecture, weights: Weights, fire: Fire, mask_step: int | None = None) -> None:
        architecture.check_weights(weights)
        architecture.check_fire(fire)
        self.architecture, self.weights, self.fire, self.mask_step = architecture, weights, fire, mask_step

    def __call__(self, images: Image32) -> Answer:
        a = self.architecture
        logits = np.empty((len(images), a.classes), np.float32)
        states = np.empty((len(images), a.grid, a.grid, a.channels), np.float32)
        mask_states = states if self.mask_step is None else np.empty_like(states)
        for n, image in enumerate(images):
            state = self.seed_state(image)
            for number, fire in enumerate(self.fire, start=1):
                self.step(state, fire)
                if number == self.mask_step:
                    mask_states[n] = state
            logits[n] = self.head(self.pool(state))
            states[n] = state
        return Answer(logits, states, mask_states)

    def seed_state(self, image: Image32) -> Image32:
        """(size, size, 3) -> (grid, grid, channels)."""
        a = self.architecture
        state = np.zeros((a.grid, a.grid, a.channels), np.float32)
        state[..., : a.image_channels] = folded(a, image)
        return state

    def step(self, state: Image32, fire: NDArray[np.uint8] | np.uint8) -> None:
        """Update ``state`` in place; ``fire`` is a (grid, grid) mask or the phase of a half-lattice step."""
        lines = firing_lines(fire)
        firing = state[lines]
        d = (self.hidden(self.perception(state, lines)) @ self.weights["w2"].T).reshape(firing.shape)
        d[..., : self.architecture.image_channels] = 0
        if np.ndim(fire):
            d *= np.asarray(fire, np.float32)[..., None]
        state[lines] = firing + d

    def perception(self, state: Image32, lines: Lines) -> Image32:
        """(grid, grid, channels) -> (rows, columns, 3 * channels) of the lines: state, k1 * state, k2 * state."""
        padded = np.pad(state, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        firing, w = state[lines], self.weights
        rows, columns, channels = firing.shape
        y = np.empty((rows, columns, 3 * channels), np.float32)
        y[..., :channels] = firing
        y[..., channels : 2 * channels] = self._depthwise(padded, w["k1"], w["k1_bias"], lines)
        y[..., 2 * channels :] = self._depthwise(padded, w["k2"], w["k2_bias"], lines)
        return y

    def hidden(self, perceived: Image32) -> Image32:
        """(rows, columns, 3 * channels) -> (rows * columns, hidden)."""
        h = perceived.reshape(-1, perceived.shape[-1]) @ self.weights["w1"].T
        h += self.weights["w1_bias"]
        np.maximum(h, 0, out=h)
        return h

    def _depthwise(self, padded: Image32, kernel: NDArray[np.float32], bias: NDArray[np.float32], lines: Lines) -> Image32:
        grid = self.architecture.grid
        total: Image32 | None = None
        for i in range(3):
            for j in range(3):
                tap = padded[i : i + grid, j : j + grid][lines] * kernel[:, i, j]
                total = tap + bias if total is None else np.add(total, tap, out=total)
        if total is None:
            raise BundleError("a 3x3 kernel has nine taps")
        return total

    def pool(self, state: Image32) -> NDArray[np.float32]:
        """(grid, grid, channels) -> (features,)."""
        return pool(state, self.architecture.pool).astype(np.float32)

    def head(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """(features,) -> (classes,) logits."""
        w = self.weights
        hidden = np.maximum(w["head1"] @ pooled + w["head1_bias"], 0)
        logits: NDArray[np.float32] = w["head2"] @ hidden + w["head2_bias"]
        return logits
