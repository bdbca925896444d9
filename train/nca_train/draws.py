"""Where randomness comes from: every draw belongs to (seed, update, place in the batch), never to what was drawn before.

A run that was killed and resumed, and one that is shared by several processes, then draw what an unbroken single process draws.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nca_edge.automaton import Architecture, draw_fire

GROUP = 8
"""Images that are augmented together (and may lend each other their surroundings): the smallest part of a batch that one
process can have."""
_ORDER, _SCHEDULE, _AUGMENT, _DROPOUT = range(4)


def _number(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def order(seed: int, epoch: int, weights: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(n,) indices of the crops of one epoch, drawn with replacement by weight."""
    generator = torch.Generator().manual_seed(_number(seed, _ORDER, epoch))
    drawn: np.ndarray[tuple[int], np.dtype[np.int64]] = torch.multinomial(
        weights, len(weights), replacement=True, generator=generator
    ).numpy()
    return drawn


def schedule(architecture: Architecture, seed: int, update: int, which: int, batch: int) -> Tensor:
    """Fire schedule of one update: (steps,) phases of a half-lattice, or (steps, batch, grid, grid) bool, one of each image.

    Parameters
    ----------
    which : 0 for the network that learns, 1 for the one it should agree with
    """
    number = _number(seed, _SCHEDULE, update, which)
    if architecture.update == "half-lattice":
        return torch.from_numpy(draw_fire(architecture, number))
    a, generator = architecture, torch.Generator().manual_seed(number)
    return torch.rand((a.steps, batch, a.grid, a.grid), generator=generator) < 0.5


def augmentation(seed: int, update: int, group: int, device: torch.device) -> torch.Generator:
    """Generator for one group of ``GROUP`` images of an update."""
    return torch.Generator(device).manual_seed(_number(seed, _AUGMENT, update, group))


def dropout(seed: int, update: int, rank: int) -> None:
    """Set torch's own generator, which a teacher's dropout draws from, for one process's part of an update."""
    torch.manual_seed(_number(seed, _DROPOUT, update, rank))
