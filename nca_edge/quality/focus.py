"""How sharp a field is, told by its own cells: no scale, no colour and no level of grey is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca_edge.bands import softened
from nca_edge.records import Image32

FINEST = 0.0016
"""Width of the finest blur under which slopes are taken, in long sides of the field: keeps noise and JPEG blocks out."""

STEPS = 12
"""Widths, each 1.4 times the one before: up to a fifteenth of the field, as wide as the largest cells need."""

SPARED = 2
"""So many of the finest widths are looked at only where cells are small enough to ask for them: they take half of the time."""

LEAST_CELL = 0.0125
"""A cell is taken for no smaller than this (blur that brings out its size, in long sides): the dark rims of sharp red cells
would else be taken for cells."""

FINE, WIDE = 8.0, 3.0
"""What is compared: slopes at an eighth and at a third of the blur that brings out the cells."""

LARGE = 2.5
"""Power of the blur's width by which slope energy is multiplied to bring out the cells: 2 would make all details of one shape
alike, a little more prefers the large."""


@dataclass(frozen=True, slots=True)
class Sharpness:
    """What the slopes of a field say."""

    edges: float
    """Slope energy at the scale of borders over that at the scale of cells, in the direction that has least: about 1 for what
    is blurred, and the ratio of the two blurs, 2.7, for borders like steps."""
    evenness: float
    """Least over largest slope energy of all directions at the scale of borders: near 0 where the stage moved, 1 where none is
    preferred."""


def sharpness(total: Image32) -> Sharpness:
    """Compare slopes at the scale of borders with slopes at the scale of cells.

    The mean squared slope of a step under a Gaussian of width s falls as 1 / s, that of what is blurred already does not fall
    until s reaches its own blur. The size of the cells is where slopes, weighed by s, are largest (Lindeberg 1998, Int J Comput
    Vision 30:79). A test blur of a share of the stained patches, used before, let 11 of 40 blurred chula fields pass: patches
    that run together grow as fast as their borders.

    Parameters
    ----------
    total : (height, width) float32, absorbance summed over channels
    """
    long_side = max(total.shape)
    widths = np.array([FINEST * long_side * 2.0 ** (step / 2) for step in range(STEPS)])
    for asked in (widths[SPARED:], widths):
        least, largest = slope_energies(total, asked)
        cell = max(float(asked[np.argmax((least + largest) * asked**LARGE)]), LEAST_CELL * long_side)
        if cell / FINE >= asked[0]:
            break
    widths = asked
    fine, wide = (_between(least, widths, cell / FINE), _between(least + largest, widths, cell / WIDE))
    return Sharpness(2.0 * fine / max(wide, 1e-12), fine / max(_between(largest, widths, cell / FINE), 1e-12))


def slope_energies(total: Image32, widths: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean squared slope under each blur, in the direction that has least and in the one across it: (widths,) float64 each.

    The more a plane is blurred the fewer of its pixels are needed: each is made from the one before.
    """
    plane, step, have = total, 1, 0.0
    energies = np.empty((len(widths), 2))
    for number, width in enumerate(widths):
        more = float(np.sqrt(max(width**2 - have**2, 0.0))) / step
        if more > 0.2:
            plane, have = softened(plane, more), float(width)
        down, across = (plane[2:, 1:-1] - plane[:-2, 1:-1]).ravel(), (plane[1:-1, 2:] - plane[1:-1, :-2]).ravel()
        tensor = np.array([[down @ down, down @ across], [down @ across, across @ across]], np.float64)
        energies[number] = np.linalg.eigvalsh(tensor / (4.0 * step**2 * down.size))
        if have / step >= 2.0 and min(plane.shape) >= 32:
            plane, step = np.ascontiguousarray(plane[::2, ::2]), 2 * step
    return np.maximum(energies[:, 0], 1e-15), np.maximum(energies[:, 1], 1e-15)


def _between(energies: NDArray[np.float64], widths: NDArray[np.float64], width: float) -> float:
    """Energy at a width between those taken, by straight lines in logarithms."""
    return float(np.exp(np.interp(np.log(width), np.log(widths), np.log(energies))))
