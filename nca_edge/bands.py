"""Gaussian blurs as products with narrow matrices, where the last bit does not count. A base module like records.

A blur is a sum over neighbouring lines, down and then across. Sixteen lines of the result at once are one small product of
matrices, which takes BLAS a quarter of the time of SciPy's loop over pixels; of the whole matrix, which is all but empty, most
of the work would be zeros. Sums are in float32, SciPy's in float64 and then rounded. What hangs on last bits must not come from
here: the scale of one bccd or chula field in three moved, mostly by less than 1 %, when it was taken from such sums alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nca_edge.records import Image32

LINES = 16
"""Lines of the result that are one product; 32 took a quarter more."""
REACH_SIGMAS = 4.0
"""A blur reaches so far, as SciPy's."""
OFF = 1e-5
"""By what share of a sum of values that are not negative its rounding can be off at most, with room: sums have some hundred
terms, each of which is rounded by 6e-8."""


@dataclass(frozen=True, slots=True)
class Band:
    """Neighbouring lines of a result."""

    out: slice
    """Which ones."""
    of: slice
    """Lines of the plane that they are sums of."""
    shares: Image32
    """(lines of the result, lines of the plane) float32."""


def weights(sigma: float) -> NDArray[np.float64]:
    """SciPy's: (2 reach + 1,) that sum to 1."""
    reach = int(REACH_SIGMAS * sigma + 0.5)
    shares = np.exp(-0.5 / (sigma * sigma) * np.arange(-reach, reach + 1) ** 2)
    return np.asarray(shares / shares.sum())


def softened(plane: Image32, sigma: float) -> Image32:
    """``scipy.ndimage.gaussian_filter`` but for the last bits; mirrored at the edge like it.

    Parameters
    ----------
    plane : (height, width) float32
    sigma : px, above 0
    """
    half, out = np.empty_like(plane), np.empty_like(plane)
    for band in _bands(plane.shape[0], sigma):
        np.matmul(band.shares, plane[band.of], out=half[band.out])
    for band in _bands(plane.shape[1], sigma):
        np.matmul(half[:, band.of], band.shares.T, out=out[:, band.out])
    return out


@lru_cache(maxsize=512)  # two for each radius of red cells: less than 1 MB for the fields of one camera
def _bands(length: int, sigma: float) -> tuple[Band, ...]:
    """Of a blur along one axis."""
    shares = weights(sigma)
    reach = len(shares) // 2
    inner: Image32 | None = None  # the same for all bands that no edge is near
    bands = []
    for start in range(0, length, LINES):
        out = slice(start, min(start + LINES, length))
        of = slice(max(0, start - reach), min(length, out.stop + reach))
        far = of.stop - of.start == LINES + 2 * reach
        matrix = inner if far and inner is not None else _mirrored(out, of, shares, length)
        inner = matrix if far else inner
        bands.append(Band(out, of, matrix))
    return tuple(bands)


def _mirrored(out: slice, of: slice, shares: NDArray[np.float64], length: int) -> Image32:
    """Shares of the lines ``of`` in the lines ``out``; what lies beyond the edge is mirrored, more than once if need be."""
    reach, count = len(shares) // 2, out.stop - out.start
    at = (np.arange(out.start, out.stop)[:, None] + np.arange(-reach, reach + 1)) % (2 * length)
    at = np.where(at < length, at, 2 * length - 1 - at) - of.start
    matrix = np.zeros((count, of.stop - of.start))
    np.add.at(matrix, (np.arange(count)[:, None], at), np.broadcast_to(shares, at.shape))
    return matrix.astype(np.float32)
