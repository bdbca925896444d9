"""Several looks at one cell: as it is, turned and mirrored, their logits averaged.

A cell has no right way up, but a network whose steps update rows and columns by turns answers each side a little differently.
Where the first look is sure nothing changes; where it is not, the mean of several is right more often and depends less on the
fire schedule (`train/README.md`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca_edge.backends import Answer
from nca_edge.records import Image32

TURNS = ((0, False), (1, False), (2, True), (3, True), (2, False), (3, False), (0, True), (1, True))
"""Quarter turns, and whether mirrored then, of each pass. The first four hold both mirror images and all four directions."""

ALWAYS = 2.0
"""A bound that no confidence reaches."""


@dataclass(frozen=True, slots=True)
class Passes:
    """How often a cell is looked at."""

    most: int = 1
    """At most, 1 to 8."""
    below: float = 0.0
    """Calibrated confidence of the first look below which the others follow; above 1: always."""


@dataclass(frozen=True, slots=True)
class Look:
    """What all looks at one cell gave."""

    each: NDArray[np.float32]
    """(passes, classes) logits of each."""
    states: tuple[Image32, ...]
    """(grid, grid, channels) after the last step, of each; the cell lies in them as it was turned, in the first as it is."""
    mask_states: tuple[Image32, ...]
    """The same after the bundle's ``mask_step``."""

    @property
    def logits(self) -> NDArray[np.float64]:
        """(classes,) mean over the passes."""
        mean: NDArray[np.float64] = self.each.mean(0, dtype=np.float64)
        return mean


def turned(images: NDArray[np.generic], number: int) -> NDArray[np.generic]:
    """(n, side, side, ...) as pass ``number`` sees them, counted from 0."""
    quarters, mirrored = TURNS[number]
    out = np.rot90(images, quarters, (1, 2))
    return np.ascontiguousarray(out[:, :, ::-1] if mirrored else out)


def turned_back(images: NDArray[np.generic], number: int) -> NDArray[np.generic]:
    """The inverse of ``turned``."""
    quarters, mirrored = TURNS[number]
    return np.ascontiguousarray(np.rot90(images[:, :, ::-1] if mirrored else images, -quarters, (1, 2)))


def look_again(seen: Look, image: Image32, answer: Callable[[Image32], Answer], most: int) -> Look:
    """The same cell in so many passes: those that it has not had yet are added.

    Parameters
    ----------
    image : (size, size, 3)
    answer : the network, for any number of images
    most : 1 to 8
    """
    more = [answer(np.asarray(turned(image[None], number), np.float32)) for number in range(len(seen.each), most)]
    return Look(
        np.concatenate([seen.each, *(one.logits for one in more)]),
        (*seen.states, *(one.state[0] for one in more)),
        (*seen.mask_states, *(one.mask_state[0] for one in more)),
    )


def look(
    images: Image32, answer: Callable[[Image32], Answer], passes: Passes, confidence: Callable[[NDArray[np.float32]], float]
) -> list[Look]:
    """Look at each cell as often as it needs; its answer depends on no other cell of the call.

    Parameters
    ----------
    images : (n, size, size, 3)
    answer : the network, for any number of images
    confidence : (classes,) logits -> calibrated confidence
    """
    first = answer(images)
    parts = [[(first.logits[i], first.state[i], first.mask_state[i])] for i in range(len(images))]
    again = [i for i in range(len(images)) if confidence(first.logits[i]) < passes.below]
    if again and passes.most > 1:
        views = [np.asarray(turned(images[again], number), np.float32) for number in range(1, passes.most)]
        more = answer(np.concatenate(views))  # all at once: threads share them out
        for k in range(len(views) * len(again)):
            parts[again[k % len(again)]].append((more.logits[k], more.state[k], more.mask_state[k]))
    return [Look(np.stack([p[0] for p in cell]), tuple(p[1] for p in cell), tuple(p[2] for p in cell)) for cell in parts]
