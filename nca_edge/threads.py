"""Work that one field shares out among threads. A base module like records: anybody may import it.

NumPy and SciPy let go of the interpreter's lock inside their loops, so threads suffice. Each share is computed exactly as it
would be alone: the number of threads changes no bit of a result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

import numpy as np

from nca_edge.records import Image32

T = TypeVar("T")
R = TypeVar("R")

MOST = 4
"""Threads that a field can use: beyond it the shares get so small that handing them out costs more."""
BAND_PX = 40_000
"""Images of fewer pixels are blurred by one thread."""

_allowed: ContextVar[int] = ContextVar("threads", default=1)


@contextmanager
def allowed(threads: int) -> Iterator[None]:
    """Inside it ``each`` may use so many threads; elsewhere it uses the caller's own, as training's workers want it."""
    token = _allowed.set(min(threads, MOST))
    try:
        yield
    finally:
        _allowed.reset(token)


def each(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of each item, in order."""
    threads = _allowed.get()
    return list(map(function, items) if threads < 2 else _pool(threads).map(function, items))


def blurred(image: Image32, sigma: float) -> Image32:
    """``scipy.ndimage.gaussian_filter``, bit for bit: lines are independent, so each thread takes some of them.

    Parameters
    ----------
    image : (height, width) float32
    sigma : px
    """
    from scipy import ndimage

    threads = _allowed.get()
    if threads < 2 or image.size < BAND_PX:
        return np.asarray(ndimage.gaussian_filter(image, sigma))
    down, out = np.empty_like(image), np.empty_like(image)

    def columns(band: slice) -> None:
        ndimage.gaussian_filter1d(image[:, band], sigma, axis=0, output=down[:, band])

    def rows(band: slice) -> None:
        ndimage.gaussian_filter1d(down[band], sigma, axis=1, output=out[band])

    each(columns, _bands(image.shape[1], threads))
    each(rows, _bands(image.shape[0], threads))
    return out


def _bands(length: int, n: int) -> list[slice]:
    """So many slices of about the same length."""
    return [slice(i * length // n, (i + 1) * length // n) for i in range(n)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept: to start threads for every field would cost as much as they save."""
    return ThreadPoolExecutor(threads, "field")


# A child process has the executors of its parent, but not their threads, and would wait for ever.
os.register_at_fork(after_in_child=_pool.cache_clear)
