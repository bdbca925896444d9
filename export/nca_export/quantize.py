"""What 8 bits need: what the steps hold on real cells, and channels made alike before they are rounded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights
from nca_edge.backends import NumpyBackend, firing_lines
from nca_edge.backends.native.graph import MOST_KERNEL
from nca_edge.records import Image32
from nca_export.rounding import LEAST, Moments

LEVELS = 255
ALPHA = 0.5
"""How much of a channel's reach moves from the activations into the weights."""
STEEPEST = 0.9 * MOST_KERNEL
"""Largest sum of a kernel's weights without their signs, for what the compiled step can hold of it."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What each step of an automaton holds on real cells; float32."""

    low: NDArray[np.float32]
    """(steps, 3 * channels) least of what is perceived: state, k1 * state, k2 * state; 0 or below."""
    high: NDArray[np.float32]
    """(steps, 3 * channels) largest; 0 or above."""
    hidden: NDArray[np.float32]
    """(steps, hidden) largest of the hidden layer."""
    delta: NDArray[np.float32]
    """(steps, channels) largest change, of either sign."""
    moments: Moments = field(default_factory=Moments)
    """Of what the layers read."""

    def widest(self, step: int) -> tuple[float, float, float]:
        """Least and largest of all that is perceived in a step, and the largest of the hidden layer."""
        return float(self.low[step].min()), float(self.high[step].max()), float(self.hidden[step].max())


def reach(architecture: Architecture, weights: Weights, fire: Fire, images: Image32) -> Reach:
    """Run normalised cells (n, size, size, 3) through the reference and keep the extremes."""
    backend, a = NumpyBackend(architecture, weights, fire), architecture
    states = [backend.seed_state(image) for image in images]
    low, high = np.zeros((2, a.steps, 3 * a.channels), np.float32)
    hidden, delta = np.full((a.steps, a.hidden), LEAST, np.float32), np.zeros((a.steps, a.channels), np.float32)
    for n, step in enumerate(fire):
        lines = firing_lines(step)
        for state in states:
            perceived = backend.perception(state, lines)
            for whole, part in ((low, np.minimum), (high, np.maximum)):
                extreme = part.reduce(perceived, axis=(0, 1))
                neighbours = part.reduce(state, axis=(0, 1))  # they too are rounded
                extreme[: a.channels] = part(extreme[: a.channels], neighbours)
                whole[n] = part(whole[n], extreme)
            between = backend.hidden(perceived)
            hidden[n] = np.maximum(hidden[n], between.max(0))
            delta[n] = np.maximum(delta[n], np.abs(between @ weights["w2"].T).max(0))
            backend.step(state, step)
    return Reach(low, high, hidden, delta)


def moments(architecture: Architecture, weights: Weights, fire: Fire, images: Image32) -> Moments:
    """Run normalised cells (n, size, size, 3) through the reference and sum up what its layers read."""
    backend, a = NumpyBackend(architecture, weights, fire), architecture
    read, between, pooled = (np.zeros((n, n)) for n in (3 * a.channels, a.hidden, a.features))
    for state in map(backend.seed_state, images):
        for step in fire:
            perceived = backend.perception(state, firing_lines(step))
            hidden, flat = backend.hidden(perceived), perceived.reshape(-1, 3 * a.channels)
            read += flat.T @ flat
            between += hidden.T @ hidden
            backend.step(state, step)
        last = backend.pool(state)
        pooled += np.outer(last, last)
    return Moments(read, between, pooled)


@dataclass(frozen=True, slots=True)
class Equalised:
    """An automaton whose perceived and hidden channels reach about equally far: what it computes is the same."""

    weights: Weights
    """To be used on a state that is multiplied by the first ``channels`` of ``perceived``."""
    perceived: NDArray[np.float32]
    """(3 * channels,) what each perceived channel was multiplied by."""
    hidden: NDArray[np.float32]
    """(hidden,) the same of the hidden layer."""
    reach: Reach
    """Of the new channels."""


def equalise(weights: Weights, reached: Reach) -> Equalised:
    """Scale each perceived and each hidden channel down by what it reaches, and the weights that read it up.

    A depthwise convolution commutes with a factor for each channel, a ReLU with a positive one, so that nothing changes but how
    well 8 bits serve (Nagel et al. 2019; the square root shares the burden between activations and weights: Xiao et al. 2023).
    """
    largest = np.maximum(np.maximum(reached.high, -reached.low).max(0), LEAST)
    columns = _balance(largest, np.abs(weights["w1"]).max(0))
    state, *by_kernels = np.split(columns, 3)
    for own, name in zip(by_kernels, ("k1", "k2"), strict=True):  # parts of `columns`, changed in place
        sums = np.maximum(np.abs(weights[name]).reshape(len(own), -1).sum(1), LEAST)
        np.minimum(own, STEEPEST * state / sums, out=own)
    # the longer side of every channel upwards: scale and zero point are shared, and span the longest of both sides
    columns = np.where(-reached.low.min(0) > reached.high.max(0), -columns, columns)
    hidden = _balance(reached.hidden.max(0), np.abs(weights["w2"]).max(0))
    state, first, second = np.split(columns, 3)
    made = dict(weights)
    for name, own in (("k1", first), ("k2", second)):
        made[name] = (weights[name] * (own / state)[:, None, None]).astype(np.float32)
        made[f"{name}_bias"] = weights[f"{name}_bias"] * own
    made["w1"] = (weights["w1"] / columns * hidden[:, None]).astype(np.float32)
    made["w1_bias"] = weights["w1_bias"] * hidden
    made["w2"] = (weights["w2"] / hidden).astype(np.float32)
    ends, seen = (reached.low * columns, reached.high * columns), reached.moments.multiplied(columns, hidden)
    largest = reached.hidden * hidden, reached.delta * np.abs(state)
    return Equalised(made, columns, hidden, Reach(np.minimum(*ends), np.maximum(*ends), *largest, seen))


def _balance(reached: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Factors on activations that reach so far and are read by weights of that size; their geometric mean is 1."""
    factors = np.maximum(weight, LEAST) ** (1 - ALPHA) / np.maximum(reached, LEAST) ** ALPHA
    logs = np.clip(np.log(factors) - np.log(factors).mean(), -4, 4)  # a channel that nobody reads must not run away
    balanced: NDArray[np.float32] = np.exp(logs).astype(np.float32)
    return balanced


def asymmetric(low: float, high: float, grades: int = 0) -> tuple[np.float32, np.uint8]:
    """Scale and zero point by which 0..255 span the range, 0 exactly included.

    Parameters
    ----------
    grades : the scale is the nearest of so many to an octave; 0: of any size
    """
    exact = (high - low) / LEVELS
    scale = np.float32(2 ** (np.round(np.log2(exact) * grades) / grades) if grades else exact)
    return scale, np.uint8(np.clip(round(-low / float(scale)), 0, LEVELS))
