"""Gaussian blurs as products with a narrow matrix, where the last bit does not count. A base module like records.

A blur is a sum over neighbouring lines, down and then across. Sixteen lines of the result at once are one small product of
matrices, which takes BLAS a quarter of the time of SciPy's loop over pixels; of the whole matrix, which is all but empty, most
of the work would be zeros. All products of one direction are one call, so that threads do not wait for each other. Sums are in
float32, SciPy's in float64 and then rounded. What hangs on last bits must not come from here: the scale of one bccd or chula
field in three moved, mostly by less than 1 %, when it was taken from such sums.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided

from nca_edge.records import Image32

LINES = 16
"""Lines of the result that are one product; 32 took a quarter more."""
REACH_SIGMAS = 4.0
"""A blur reaches so far, as SciPy's."""


def softened(plane: Image32, sigma: float) -> Image32:
    """``scipy.ndimage.gaussian_filter`` but for the last bits; mirrored at the edge like it.

    Parameters
    ----------
    plane : (height, width) float32
    sigma : px, above 0
    """
    band = _band(sigma)
    reach = (band.shape[1] - LINES) // 2
    ends = [(reach, reach + -length % LINES) for length in plane.shape]
    wide = np.pad(plane, ends, "symmetric")
    (rows, columns), (row, column) = wide.shape, wide.strides
    bands = (rows - 2 * reach) // LINES, (columns - 2 * reach) // LINES
    below = as_strided(wide, (bands[0], band.shape[1], columns), (LINES * row, row, column), writeable=False)
    half = np.matmul(band, below).reshape(bands[0] * LINES, columns)
    beside = as_strided(half, (bands[1], len(half), band.shape[1]), (LINES * column, row, column), writeable=False)
    out = np.empty((len(half), bands[1], LINES), np.float32)
    np.matmul(beside, band.T, out=out.transpose(1, 0, 2))
    return np.ascontiguousarray(out.reshape(len(half), -1)[: plane.shape[0], : plane.shape[1]])


@lru_cache(maxsize=512)
def _band(sigma: float) -> Image32:
    """Shares of neighbouring lines in ``LINES`` lines of the result: (LINES, LINES + 2 reach) float32."""
    reach = int(REACH_SIGMAS * sigma + 0.5)
    shares = np.exp(-0.5 / (sigma * sigma) * np.arange(-reach, reach + 1) ** 2)
    shares /= shares.sum()
    band = np.zeros((LINES, LINES + len(shares) - 1), np.float32)
    for line in range(LINES):
        band[line, line : line + len(shares)] = shares
    return band
