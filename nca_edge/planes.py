"""What SciPy and NumPy do with a plane of pixels, bit for bit, in less time. A base module like records.

Tried and left: Gaussians by FFTs or products of whole matrices, in float64 too, and the separable filters in NumPy (no faster
than SciPy's loops at these widths). tests/benchmarks/field.py measures what the whole comes to.
"""

from __future__ import annotations

import platform

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nca_edge.records import Image32
from nca_edge.threads import each, sharers

BAND_PX = 40_000
"""Planes of fewer pixels are blurred by one thread."""
MANY = 5_000
"""Of fewer values a partition finds a rank in less time than it takes to be clever."""
VECTORS = platform.machine() in ("x86_64", "AMD64")
"""NumPy's partition has vector instructions here."""


def blurred(plane: Image32, sigma: float) -> Image32:
    """``scipy.ndimage.gaussian_filter``: lines are independent, so each thread takes some of them.

    Parameters
    ----------
    plane : (height, width) float32
    sigma : px
    """
    from scipy import ndimage

    threads = sharers()
    if threads < 2 or plane.size < BAND_PX:
        return np.asarray(ndimage.gaussian_filter(plane, sigma))
    down, out = np.empty_like(plane), np.empty_like(plane)

    def columns(band: slice) -> None:
        ndimage.gaussian_filter1d(plane[:, band], sigma, axis=0, output=down[:, band])

    def rows(band: slice) -> None:
        ndimage.gaussian_filter1d(down[band], sigma, axis=1, output=out[band])

    each(columns, _bands(plane.shape[1], threads))
    each(rows, _bands(plane.shape[0], threads))
    return out


def _bands(length: int, n: int) -> list[slice]:
    """So many slices of about the same length."""
    return [slice(i * length // n, (i + 1) * length // n) for i in range(n)]


def rim(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that have one of the four neighbours outside it; beyond the edge counts as inside."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return np.asarray(mask & ~inner)


def counted(values: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Counts of 256 even steps between the least and the largest value, and the 257 edges.

    A value within a hundredth of a step of an edge may be counted on either side; ``numpy.histogram``, which does not err,
    takes four times as long.
    """
    flat = values.ravel()
    first, span = flat.min(), np.ptp(flat)
    if not np.float32(1e-30) < span < np.float32(np.inf):
        return np.histogram(flat, 256)
    return np.diff(_up_to_step(_steps(flat, first, span)), prepend=0), np.linspace(first, first + span, 257, dtype=flat.dtype)


def _steps(flat: NDArray[np.floating], first: np.floating, span: np.floating) -> NDArray[np.uint8]:
    """In which of 256 even steps from the first value each lies: of two values the larger is in no lower one, whatever the
    rounding."""
    return ((flat - first) * (np.float32(255.99) / span)).astype(np.uint8)


def _up_to_step(steps: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How many are in each step or below it: (256,)."""
    return np.cumsum(Image.fromarray(steps[None]).histogram())


def percentile(values: Image32, percent: float) -> np.float32:
    """``numpy.percentile``: between the two values beside it by a straight line, in float32 like it."""
    at = (values.size - 1) * (percent / 100)
    rank = int(at)
    low, high = successive(values, rank)
    part = np.float32(at - rank)
    return low + (high - low) * part if at - rank < 0.5 else high - (high - low) * np.float32(1 - (at - rank))


def middle(values: Image32) -> np.float32:
    """``numpy.median``."""
    low, high = successive(values, (values.size - 1) // 2)
    return low if values.size % 2 else (low + high) / np.float32(2)


def successive(values: Image32, rank: int) -> tuple[np.float32, np.float32]:
    """The value of so high a rank (the least has rank 0) and the next one, as a sort has them; the last is its own next.

    Asked for one rank, NumPy's partition takes a sixth of the time that it takes for two where it has vector instructions;
    where it has none, only values about as large as the one looked for are given to it.

    Parameters
    ----------
    values : float32 of any shape, at least one
    """
    flat = values.ravel()
    if not VECTORS and flat.size >= MANY:
        flat, rank = _about(flat, rank)
    ordered = np.partition(flat, rank)
    above = ordered[rank + 1 :]
    return ordered[rank], above.min() if above.size else ordered[rank]


def _about(flat: Image32, rank: int) -> tuple[Image32, int]:
    """The values of the one of 256 even steps that holds the rank, all that are larger up to the next step that holds any, and
    the rank among them."""
    first, span = flat.min(), np.ptp(flat)
    if not np.float32(1e-30) < span < np.float32(np.inf):
        return flat, rank
    step = _steps(flat, first, span)
    below = _up_to_step(step)
    low, high = (int(np.searchsorted(below, r, side="right")) for r in (rank, min(rank + 1, flat.size - 1)))
    return flat[(step >= low) & (step <= high)], rank - (int(below[low - 1]) if low else 0)
