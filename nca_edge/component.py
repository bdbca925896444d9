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
    if not np.isfinite(state).all():
        return np.zeros((grid, grid))
    step = max(1, grid // 16)
    sample = (state[::step, ::step] - state[0, 0]).reshape(-1, channels).astype(np.float64)  # exactly 0 where all is the same
    sample -= sample.mean(0)
    products = _products(sample)
    if np.trace(products) < LEAST_SPREAD:
        return np.zeros((grid, grid))
    leading = _leading(products, COMPONENTS).T.astype(np.float32)
    components = (leading @ state.reshape(-1, channels).T).astype(np.float64)  # whose squares a large state's overflow
    components -= components.mean(1, keepdims=True)
    squares = components.reshape(-1, grid, grid)
    middle = slice(3 * grid // 8, max(5 * grid // 8, 3 * grid // 8 + 1))  # always inside the cell
    border = np.concatenate([squares[:, 0], squares[:, -1], squares[:, :, 0], squares[:, :, -1]], axis=1)
    apart = (squares[:, middle, middle].mean((1, 2)) - border.mean(1)) / (components.std(1) + 1e-12)
    farthest = int(np.argmax(np.abs(apart)))
    best = np.sign(apart[farthest]) * squares[farthest]
    return np.asarray(best - best.min(), np.float64)


def _leading(matrix: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(n, at most ``count``) eigenvectors of a symmetric matrix, of the largest eigenvalues, largest first.

    By subspace iteration (Rutishauser 1969): numpy.linalg.eigh finds all of them on all cores, and waiting for a busy core took
    100 ms. Five vectors more than asked for make the error shrink by the ratio of eigenvalues that lie far apart.
    """
    width = min(len(matrix), count + 5)
    matrix = matrix / (np.trace(matrix) or 1.0)
    basis = np.eye(len(matrix))[:, np.argsort(-np.diag(matrix), kind="stable")[:width]]
    for _ in range(POWERS):
        basis = matrix @ basis
    basis, _ = np.linalg.qr(basis)
    _, turned = np.linalg.eigh(basis.T @ (matrix @ basis))
    return np.asarray(basis @ turned[:, ::-1][:, :count])


def _products(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """values.T @ values, in blocks that OpenBLAS (from 2^18 products on) does not share between threads: waking them took
    60 ms where other programs kept the cores busy, the product itself takes 0.2."""
    rows = max(1, 2**18 // values.shape[1] ** 2)
    total = np.zeros((values.shape[1],) * 2)
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        total += block.T @ block
    return total


def split(values: Image32) -> float:
    """Otsu's threshold (Otsu 1979), of all there are: to sort so few takes less time than to count them in bins."""
    ordered = np.sort(values, axis=None)
    n = ordered.size
    below = np.cumsum(ordered, dtype=np.float64)
    counts = np.arange(1, n)
    between = (below[-1] * counts - below[:-1] * n) ** 2 / (counts * (n - counts))
    at = int(np.argmax(between))
    return float(ordered[at] + ordered[at + 1]) / 2
