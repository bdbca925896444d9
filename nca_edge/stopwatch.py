"""Where the time of a field goes: the pipeline names its stages, whoever wants to know adds them up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Watch = Callable[[str], AbstractContextManager[None]]
"""Called with the name of a stage, around it."""


def untimed(stage: str) -> AbstractContextManager[None]:
    """Nobody wants to know."""
    return nullcontext()


class Stopwatch:
    """Adds up the wall time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Stage -> s, in the order in which they first began."""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self.seconds.setdefault(stage, 0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started
