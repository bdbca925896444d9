"""LiteRT, formerly TensorFlow Lite, on the CPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture
from nca_edge.backends.protocol import Answer, collect, outputs
from nca_edge.errors import BundleError, MissingExtraError
from nca_edge.records import Image32
from nca_edge.threads import MOST, allowed, each


class LitertBackend:
    """The ``ai-edge-litert`` interpreter, or the older ``tflite-runtime`` where a board has that."""

    name = "litert"

    def __init__(self, file: str, graph: bytes, architecture: Architecture, threads: int, mask_step: int | None = None) -> None:
        self.architecture, self.graph, self.threads = architecture, graph, threads
        self.idle: SimpleQueue[Any] = SimpleQueue()
        """Runners of one thread each, for several cells at once: less waiting for one another than many threads in a cell."""
        try:
            self.runner = signature_runner(graph, threads)
        except (ValueError, RuntimeError) as error:
            raise BundleError(
                f"{file}: LiteRT cannot load it ({str(error).splitlines()[0]}); export the bundle again."
            ) from error
        self.outputs = outputs(mask_step)
        if missing := set(self.outputs) - set(self.runner.get_output_details()):
            raise BundleError(f"{file}: gives no {', '.join(sorted(missing))}; export the bundle again.")

    def __call__(self, images: Image32) -> Answer:
        images = np.ascontiguousarray(images, np.float32)
        cells = [images[n : n + 1] for n in range(len(images))]  # one by one: company must not change an answer
        if self.threads < 2 or len(cells) < 2:
            return collect(self.architecture, [self._outputs(self.runner, cell) for cell in cells])
        while self.idle.qsize() < min(self.threads, len(cells), MOST):
            self.idle.put(signature_runner(self.graph, 1))
        with allowed(self.threads):
            return collect(self.architecture, each(self._by_whoever_is_idle, cells))

    def _by_whoever_is_idle(self, cell: Image32) -> list[NDArray[np.float32]]:
        runner = self.idle.get()
        try:
            return self._outputs(runner, cell)
        finally:
            self.idle.put(runner)

    def _outputs(self, runner: Any, cell: Image32) -> list[NDArray[np.float32]]:
        answer = runner(image=cell)
        return [answer[name] for name in self.outputs]


def signature_runner(graph: bytes, threads: int) -> Any:
    """A graph that is ready to be called with its inputs by name."""
    with _quiet():
        interpreter = _interpreter()(model_content=graph, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter.get_signature_runner()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what C++ writes to standard error (a line on each delegate); what goes wrong is raised all the same."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def _interpreter() -> Any:
    """The class, from whichever package is there."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtraError("litert", "the litert backend") from error
    return Interpreter
