"""What is seen of a frame at the camera's rate: a small grey picture to find its place with, and how sharp it is.

Places are found by normalised cross-correlation over every shift at once: the numerator by FFT, the sums of each overlap from
running sums. Unlike phase correlation it says how alike the overlap is, at any size of overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nca_edge.bands import softened
from nca_edge.records import Image8, Image32

GRID_PX = 160
"""Long side of the small picture, at least; below twice this."""
FOCUS_PX = 640
"""Long side at which sharpness is measured, at least; below twice this."""
DARK = 40
"""Grey level that the brightest hundredth of a frame with light exceeds, as the quality gate has it."""
EMPTY = 0.01
"""Contrast of nothing but noise, at most: 0.002 of a blank field of a quiet sensor, 0.05 and more of fields with cells."""
LEAST_OVERLAP = 0.08
"""Share of a frame that two frames must have in common to be compared."""
ALIKE = 0.9
"""Likeness of two frames as they lie from which on no other shift is tried: two places have 0.73 at most."""
COARSELY = 0.65
"""Likeness at half of the size that frames of one place have: 0.73 and more (425 pairs of bccd and chula fields whose likeness
is enough to know a place by); one in fourteen pairs of two places, or fewer, has it too."""
STRIP = 4
"""Of fewer rows or columns nothing is told at half the size, or by a shift."""


@dataclass(frozen=True)
class Glance:
    """One frame, reduced. What most frames are never asked for is made when it is: a frame at rest is looked at in a third of
    the time, while a field is read beside it."""

    small: Image32
    """(h, w) float32, the logarithm of its green light without the slow changes of the lamp, mean 0."""
    factor: int
    """Frame pixels to one pixel of ``small``."""
    contrast: float
    """Standard deviation of ``small``: below ``EMPTY`` there is nothing to tell a place by; 0 of a dark frame."""
    grey: Image8 | None = None
    """Its green light at ``FOCUS_PX`` and more; None where it was not kept."""

    @cached_property
    def focus(self) -> float:
        """Share of fine detail, 0..1; compare within one place only."""
        return 0.0 if self.grey is None else _focus(self.grey)

    @cached_property
    def coarse(self) -> Glance:
        """The same at half the size; without sharpness."""
        h, w = (n // 2 * 2 for n in self.small.shape)
        half = self.small[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3))
        half -= half.mean()
        return Glance(half, 2 * self.factor, float(half.std()))

    @cached_property
    def spectrum(self) -> NDArray[np.complex64]:
        """rfft2 of ``small``, padded to ``padded(small.shape)``."""
        from scipy import fft

        return np.asarray(fft.rfft2(self.small, padded(self.small.shape)), np.complex64)

    @cached_property
    def sums(self) -> NDArray[np.float64]:
        """(2, h + 1, w + 1) float64, running sums of ``small`` and of its square."""
        h, w = self.small.shape
        sums = np.zeros((2, h + 1, w + 1))
        sums[0, 1:, 1:] = self.small.cumsum(0, np.float64).cumsum(1)
        sums[1, 1:, 1:] = (self.small**2).cumsum(0, np.float64).cumsum(1)
        return sums


@dataclass(frozen=True, slots=True)
class Match:
    """How one frame lies over another."""

    dx: float
    """Columns that the second lies to the right of the first, px of the frame."""
    dy: float
    """Rows that it lies lower."""
    likeness: float
    """Correlation of what both show, -1..1."""
    overlap: float
    """Share of a frame that both show."""


def glance(rgb: Image8) -> Glance:
    """Reduce a frame.

    Parameters
    ----------
    rgb : (height, width, 3) uint8
    """
    green = Image.fromarray(np.ascontiguousarray(rgb[..., 1]))
    middle = green.reduce(max(1, max(rgb.shape[:2]) // FOCUS_PX))
    factor = max(1, max(rgb.shape[:2]) // GRID_PX)
    level = np.log(np.asarray(green.reduce(factor), np.float32) + 8.0)  # + 8: noise in black frames stays small
    # Fall-off and tint of the lamp stay where they are while the smear moves, and would correlate at rest.
    small = level - softened(level, 0.12 * max(level.shape))
    small -= small.mean()
    dark = float(np.percentile(rgb[::8, ::8].max(axis=2), 99)) < DARK  # what is left then is noise
    contrast = 0.0 if dark else float(small.std())
    return Glance(small, factor, contrast, np.asarray(middle))


@dataclass(frozen=True, slots=True)
class Kept:
    """A glance in 8 bits: 19 kB where the whole takes 700, so that the places of a long count stay a few megabytes."""

    small: NDArray[np.int8]
    """(h, w), ``Glance.small`` in steps of ``step``."""
    step: float
    factor: int

    def glance(self) -> Glance:
        """The whole again; sharpness is not kept."""
        small = self.small.astype(np.float32) * np.float32(self.step)
        return Glance(small, self.factor, float(small.std()))


def keep(seen: Glance) -> Kept:
    """What is remembered of a frame."""
    step = max(float(np.abs(seen.small).max()), 1e-6) / 127
    return Kept(np.rint(seen.small / step).astype(np.int8), step, seen.factor)


def padded(shape: tuple[int, ...]) -> tuple[int, int]:
    """Size of a transform in which no shift wraps round."""
    from scipy import fft

    return fft.next_fast_len(2 * shape[0], True), fft.next_fast_len(2 * shape[1], True)


def _focus(grey: NDArray[np.uint8]) -> float:
    """Share of the variance that lies between blurs of 3 and 7 px. A blur of 1 px lowers it by a third on bccd fields and by an
    eighth on chula's, noise changes it by 0.2 %; mean squared slopes over variance fall half as far.

    Blurs are sums of whole numbers, 3 x 3 and 7 x 7 around the pixels that have all of these neighbours: a tenth of the time of
    filters of fractions.
    """
    if min(grey.shape) < 7:
        return 0.0
    levels = grey.astype(np.uint16)
    near, wide = (_sums(_sums(levels, n).T, n).T for n in (3, 7))
    detail = near[2:-2, 2:-2] * np.float32(1 / 9)
    detail -= wide * np.float32(1 / 49)
    every = grey.astype(np.float32)
    every -= every.mean()
    return _power(detail) / (_power(every) + 1e-3)


def _power(plane: Image32) -> float:
    """Mean of the squares."""
    flat = plane.ravel("K")
    return float(flat @ flat) / flat.size


def _sums(levels: NDArray[np.uint16], n: int) -> NDArray[np.uint16]:
    """Sums of 3 or 7 successive rows, in the memory layout that they have; 7 x 7 pixels of 255 fit into 16 bits."""
    rows = len(levels) - n + 1
    pair = levels[:-1] + levels[1:]
    if n == 3:
        return np.asarray(pair[:rows] + levels[2:])
    four = pair[:-2] + pair[2:]
    return np.asarray(four[:rows] + pair[4 : 4 + rows] + levels[6:])


def match(first: Glance, second: Glance, least: float = LEAST_OVERLAP) -> Match | None:
    """The shift at which two frames are most alike; None where they cannot be compared.

    Parameters
    ----------
    least : smallest overlap that is looked at, share of a frame
    """
    from scipy import fft

    if first.small.shape != second.small.shape:
        return None
    h, w = first.small.shape
    shifts = _shifts(h, w)
    cross = fft.irfft2(first.spectrum * second.spectrum.conj(), padded((h, w)), overwrite_x=True)
    cross = np.roll(cross, (h - 1, w - 1), (0, 1))[: 2 * h - 1, : 2 * w - 1]
    one, two = _overlap_sums(first.sums), _overlap_sums(second.sums)[:, ::-1, ::-1]
    covariance = cross - one[0] * two[0] * shifts.per_n
    power = (one[1] - one[0] ** 2 * shifts.per_n) * (two[1] - two[0] ** 2 * shifts.per_n)
    likeness = np.where(shifts.share >= least, covariance / np.sqrt(np.maximum(power, np.float32(1e-9))), np.float32(-1))
    # Chance likeness grows as the overlap shrinks, as 1 / sqrt(n): a large overlap may be a little less alike.
    y, x = np.unravel_index(int(np.argmax(likeness * shifts.weight)), likeness.shape)
    fy, fx = _peak(likeness[:, x], int(y)), _peak(likeness[y], int(x))
    share = float(shifts.share[y, x])
    return Match((fx - w + 1) * first.factor, (fy - h + 1) * first.factor, float(likeness[y, x]), share)


def recognised(first: Glance, second: Glance) -> Match | None:
    """What ``match`` says of two frames that most likely show two places, in a quarter of its time; None, too, where they are
    not alike at half of their size."""
    if min(first.small.shape + second.small.shape) < STRIP:
        return match(first, second)
    coarse = match(first.coarse, second.coarse)
    return match(first, second) if coarse is not None and coarse.likeness >= COARSELY else None


def rested(first: Glance, second: Glance) -> Match | None:
    """What ``match`` says of two frames between which the stage hardly moved, in a twentieth of its time; None where it would
    have to be asked: they are not alike as they lie, or more alike a pixel further."""
    if first.small.shape != second.small.shape or min(first.small.shape) < STRIP:
        return None
    at = {shift: _likeness(first.small, second.small, *shift) for shift in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))}
    here = at[0, 0]
    if here < ALIKE or here <= max(at[shift] for shift in at if shift != (0, 0)):
        return None
    up, down, left, right = (at[shift] for shift in ((-1, 0), (1, 0), (0, -1), (0, 1)))
    fy, fx = (_peak(np.array([before, here, after]), 1) - 1 for before, after in ((up, down), (left, right)))
    return Match(fx * first.factor, fy * first.factor, here, 1.0)


def _likeness(first: Image32, second: Image32, dy: int, dx: int) -> float:
    """Correlation of what both show where the second lies so many pixels lower and to the right."""
    h, w = first.shape
    one = first[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)].ravel()
    two = second[max(-dy, 0) : h + min(-dy, 0), max(-dx, 0) : w + min(-dx, 0)].ravel()
    a, b, n = float(one.sum()), float(two.sum()), one.size
    power = (float(one @ one) - a * a / n) * (float(two @ two) - b * b / n)
    return float((float(one @ two) - a * b / n) / np.sqrt(max(power, 1e-9)))


@dataclass(frozen=True, slots=True)
class _Shifts:
    """All shifts of one frame over another of its size, and what only depends on that size."""

    per_n: Image32
    """1 / pixels of the overlap: (2h - 1, 2w - 1)."""
    share: Image32
    """Overlap, share of a frame."""
    weight: Image32
    """Fourth root of the share."""


@lru_cache(4)
def _shifts(h: int, w: int) -> _Shifts:
    dy, dx = np.arange(-h + 1, h), np.arange(-w + 1, w)
    n = np.multiply.outer(h - np.abs(dy), w - np.abs(dx)).astype(np.float32)
    share = n / np.float32(h * w)
    return _Shifts(1 / n, share, share ** np.float32(0.25))


def _overlap_sums(sums: NDArray[np.float64]) -> Image32:
    """Sums over the part of a frame that another one covers, for each shift: (2, 2h - 1, 2w - 1) float32.

    A part begins at the frame's edge or ends at it, so that every running sum is asked for in its turn.
    """
    h, w = sums.shape[1] - 1, sums.shape[2] - 1
    across = np.empty((2, h + 1, 2 * w - 1))
    across[..., : w - 1] = sums[..., 1:w]  # from the first column on
    np.subtract(sums[..., w:], sums[..., :w], out=across[..., w - 1 :])  # up to the last one
    out = np.empty((2, 2 * h - 1, 2 * w - 1), np.float32)
    out[:, : h - 1] = across[:, 1:h]
    np.subtract(across[:, h:], across[:, :h], out=out[:, h - 1 :], casting="same_kind")
    return out


def _peak(values: Image32, at: int) -> float:
    """Place of a maximum to a part of a pixel: the parabola through three neighbours."""
    if not 0 < at < len(values) - 1:
        return float(at)
    left, middle, right = (float(v) for v in values[at - 1 : at + 2])
    bend = left - 2.0 * middle + right
    return at + (0.5 * (left - right) / bend if bend < -1e-12 else 0.0)
