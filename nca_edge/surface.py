"""Smooth surfaces over the pixels of an image, fitted by weighted least squares. A base module like records."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nca_edge.records import Image32


class Surfaces:
    """Polynomials of x and y on a grid of pixels, as sums of products of Chebyshev polynomials up to a degree in both together.

    Coefficients are (degree + 1, degree + 1), of y first, 0 above the degree. A product of two of them is half the sum of two
    others, so all sums that a fit needs are moments of its weights: a product with a narrow matrix for each direction, in a
    tenth of the time of the products of all terms with each other.
    """

    def __init__(self, height: int, width: int, degree: int, of: tuple[int, int] | None = None) -> None:
        """``of``: height and width of the grid on which surfaces were fitted that are drawn on this one of the same field."""
        self.degree = degree
        rows, columns = of or (height, width)
        self._down, self._across = _chebyshev(height, rows, 2 * degree), _chebyshev(width, columns, 2 * degree)

    def drawn(self, coefficients: Image32) -> Image32:
        """The surface: (height, width) float32."""
        n = self.degree + 1
        return np.asarray(self._down[:, :n] @ coefficients @ self._across[:, :n].T)

    def fitted(self, weight: Image32, level: Image32) -> Image32:
        """Coefficients by weighted least squares, with a light pull of all but the constant towards 0: corners without
        background stay flat.

        Parameters
        ----------
        weight, level : (height, width) float32
        """
        moments = self._moments(weight).astype(np.float64)
        (y, x), products = _terms(self.degree)
        normal = 0.25 * moments.ravel()[products].sum(axis=0)
        pull = np.full(len(y), 2e-3 * moments[0, 0])
        pull[0] = 1e-9
        normal.flat[:: len(y) + 1] += pull
        out = np.zeros((self.degree + 1, self.degree + 1), np.float32)
        out[y, x] = np.linalg.solve(normal, self._moments(weight * level)[y, x])
        return out

    def _moments(self, values: Image32) -> Image32:
        """Sums of ``values`` times each product of polynomials, up to twice the degree in each direction."""
        return np.asarray(self._down.T @ (values @ self._across))


@lru_cache(maxsize=16)
def _chebyshev(length: int, of: int, degree: int) -> Image32:
    """Values of the polynomials at so many pixels, of a line that ``of`` pixels divide evenly, their middles from -1 to 1; what
    is nearer to its ends is taken for them: (length, degree + 1) float32."""
    place = 2.0 * ((np.arange(length) + 0.5) * (of / length) - 0.5) / max(of - 1, 1) - 1.0
    values = np.polynomial.chebyshev.chebvander(np.clip(place, -1.0, 1.0), degree).astype(np.float32)
    values.setflags(write=False)  # the fields of one camera share them
    return values


@lru_cache(maxsize=4)
def _terms(degree: int) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], NDArray[np.intp]]:
    """Degrees in y and x of the products up to a degree, the constant first, (terms,) each; and where among the moments those
    four lie whose mean is the sum of a product of two terms: (4, terms, terms)."""
    y, x = np.nonzero(np.add.outer(np.arange(degree + 1), np.arange(degree + 1)) <= degree)
    down, across = ((np.add.outer(n, n), abs(np.subtract.outer(n, n))) for n in (y, x))
    return (y, x), np.stack([(2 * degree + 1) * i + j for i in down for j in across])
