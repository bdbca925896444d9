"""What a backend is asked and what it answers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture
from nca_edge.records import Image32


class Answer(NamedTuple):
    """What a backend says of a batch."""

    logits: NDArray[np.float32]
    """(n, classes) float32."""
    state: Image32
    """(n, grid, grid, channels) float32 after the last step."""
    mask_state: Image32
    """(n, grid, grid, channels) float32 after the bundle's ``mask_step``; the final state where it names none."""


class Backend(Protocol):
    """Runs one automaton."""

    name: str
    """As on the command line."""

    def __call__(self, images: Image32) -> Answer:
        """(n, size, size, 3) normalised images -> answer for each."""
        ...


def collect(architecture: Architecture, answers: list[list[NDArray[np.float32]]]) -> Answer:
    """Put the outputs of single cells, each (1, ...), in the order of ``Answer``, together."""
    a = architecture
    if not answers:
        state = np.empty((0, a.grid, a.grid, a.channels), np.float32)
        return Answer(np.empty((0, a.classes), np.float32), state, state)
    logits, state, *mask_state = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    return Answer(logits, state, mask_state[0] if mask_state else state)


def outputs(mask_step: int | None) -> list[str]:
    """Names of a graph's outputs, in the order of ``Answer``."""
    return ["logits", "state"] if mask_step is None else ["logits", "state", "mask_state"]
