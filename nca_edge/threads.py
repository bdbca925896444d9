"""Work that one field shares out among threads. A base module like records: anybody may import it.

NumPy and SciPy let go of the interpreter's lock inside their loops, so threads suffice. Each share is computed exactly as it
would be alone: the number of threads changes no bit of a result.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

MOST = 4
"""Threads that a field can use: beyond it the shares get so small that handing them out costs more."""

_allowed: ContextVar[int] = ContextVar("threads", default=1)


@contextmanager
def allowed(threads: int) -> Iterator[None]:
    """Inside it ``each`` may use so many threads; elsewhere it uses the caller's own, as training's workers want it."""
    token = _allowed.set(max(1, min(threads, MOST)))
    try:
        yield
    finally:
        _allowed.reset(token)


def sharers() -> int:
    """Threads that ``each`` may use here."""
    return _allowed.get()


def each(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of each item, in order."""
    todo = list(items)
    threads = min(sharers(), len(todo))
    if threads < 2:
        return [function(item) for item in todo]

    left = deque(enumerate(todo))

    def share() -> dict[int, R]:
        """Whatever is next, until nothing is left."""
        done: dict[int, R] = {}
        while True:
            try:
                number, item = left.popleft()
            except IndexError:
                return done
            done[number] = function(item)

    others = [_pool(threads - 1).submit(share) for _ in range(1, threads)]
    try:
        done = share()
    finally:
        wait(others)  # nothing goes on behind the back of a caller who cleans up after an error
    for other in others:
        done |= other.result()
    return [done[number] for number in range(len(todo))]


def both(one: Callable[[], T], other: Callable[[], R]) -> tuple[T, R]:
    """What two calls return that do not hang on each other. Large shares gain most, so they share nothing further."""

    def alone(call: Callable[[], T | R]) -> T | R:
        with allowed(1):
            return call()

    calls: tuple[Callable[[], T | R], ...] = (one, other)
    first, second = each(alone, calls)
    return cast(T, first), cast(R, second)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept: to start threads for every field would cost as much as they save."""
    return ThreadPoolExecutor(threads, "field")


# A child process has the executors of its parent, but not their threads, and would wait for ever.
os.register_at_fork(after_in_child=_pool.cache_clear)
