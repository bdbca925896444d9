"""Small automata with random weights, of every pool, update rule and fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nca_edge.automaton import Architecture, Weights

BASE = Architecture(grid=8, fold=1, channels=12, hidden=10, steps=6, pool="max", update="bernoulli", head=7, classes=4)
SMALL = [
    replace(BASE, pool=pool, update=update, fold=fold, channels=3 * fold**2 + 5)
    for pool in ("max", "mean", "max+mean")
    for update in ("bernoulli", "half-lattice")
    for fold in (1, 2, 3)
]


def name_of(a: Architecture) -> str:
    return f"{a.pool}-{a.update}-fold{a.fold}"


def random_weights(a: Architecture) -> Weights:
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(0, 0.5 / np.sqrt(max(1, np.prod(s[1:]))), s).astype(np.float32) for name, s in a.shapes().items()
    }
    weights["w2"][: a.image_channels] = 0
    return weights


def random_images(a: Architecture, n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(0, 1, (n, a.size, a.size, 3)).astype(np.float32)
