"""The component of the automaton's state that tells the cell from what is around it, and Otsu's threshold of it.

A base module: anybody may import it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.records import Image32

COMPONENTS = 3
"""Principal components among which the mask's is chosen."""
POWERS = 4
"""Products with their matrix that find them; six leave the overlaps of both segwbc sets the same to three digits."""
LEAST_SPREAD = 1e-12
"""Sum of squares of a state about its means below which it is the same everywhere, but for rounding."""


def cell_component(state: Image32) -> NDArray[np.float64]:
    """The principal component of a state that tells the centred cell from the border, high in the cell, its least value 0.

    NCA-WSS takes the first component. Where red cells crowd a view, the first one often tells red cells from all else; of the
    first ``COMPONENTS`` the one whose middle lies farthest from the border is taken, in units of its spread.

    Parameters
    ----------
    state : (grid, grid, channels)

    Returns
    -------
    (grid, grid) float64
    """
    grid, _, channels = state.shape
    values = np.ascontiguousarray(state).reshape(-1, channels)
    if not np.isfinite(values).all():
        return np.zeros((grid, grid))
    step = max(1, grid // 16)
    sample = (state[::step, ::step] - state[0, 0]).reshape(-1, channels).astype(np.float64)  # exactly 0 where all is the same
    sample -= sample.mean(0)
    spread = np.einsum("ij,ij->j", sample, sample)
    if spread.sum() < LEAST_SPREAD:
        return np.zeros((grid, grid))
    leading = _leading(sample / np.sqrt(spread.sum()), spread, COMPONENTS).T.astype(np.float32)
    components = (leading @ values.T).astype(np.float64)  # whose squares a large state's overflow
    components -= components.mean(1, keepdims=True)
    squares = components.reshape(-1, grid, grid)
    middle = slice(3 * grid // 8, max(5 * grid // 8, 3 * grid // 8 + 1))  # always inside the cell
    border = np.concatenate([squares[:, 0], squares[:, -1], squares[:, :, 0], squares[:, :, -1]], axis=1)
    deviation = np.sqrt(np.einsum("ij,ij->i", components, components) / grid**2)
    apart = (squares[:, middle, middle].mean((1, 2)) - border.mean(1)) / (deviation + 1e-12)
    farthest = int(np.argmax(np.abs(apart)))
    best = np.sign(apart[farthest]) * squares[farthest]
    return np.asarray(best - best.min(), np.float64)


def _leading(sample: NDArray[np.float64], spread: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(channels, at most ``count``) principal axes of a centred sample, (n, channels), of largest variance first.

    By subspace iteration (Rutishauser 1969): numpy.linalg.eigh finds all of them on all cores, and waiting for a busy core took
    100 ms. So do products of more than 2^18 numbers in OpenBLAS; up to 128 channels these are of no more. Five vectors more
    than asked for make the error shrink by the ratio of variances that lie far apart.

    Parameters
    ----------
    spread : (channels,) how far each spreads: the widest ones begin
    """
    width = min(len(spread), count + 5)
    basis = np.zeros((len(spread), width))
    basis[np.argsort(-spread, kind="stable")[:width], np.arange(width)] = 1
    for _ in range(POWERS):
        basis = sample.T @ (sample @ basis)
    basis, _ = np.linalg.qr(basis)
    seen = sample @ basis
    _, turned = np.linalg.eigh(seen.T @ seen)
    return np.asarray(basis @ turned[:, ::-1][:, :count])


def exact_otsu(values: Image32) -> float:
    """Otsu's threshold (Otsu 1979), of all there are: to sort so few takes less time than to count them in bins."""
    ordered = np.sort(values, axis=None)
    n = ordered.size
    below = np.cumsum(ordered, dtype=np.float64)
    counts = np.arange(1, n)
    between = (below[-1] * counts - below[:-1] * n) ** 2 / (counts * (n - counts))
    at = int(np.argmax(between))
    return float(ordered[at] + ordered[at + 1]) / 2
