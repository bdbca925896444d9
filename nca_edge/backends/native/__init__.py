"""The automaton's steps in 8 bits, compiled: all parts of a step in one pass over a few rows (``step.c``)."""

from __future__ import annotations

import ctypes
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, pool
from nca_edge.backends.native.graph import NativeGraph, read_graph
from nca_edge.backends.native.layout import aligned, lay_out
from nca_edge.backends.native.library import load
from nca_edge.backends.protocol import Answer
from nca_edge.backends.reference import folded
from nca_edge.errors import BundleError
from nca_edge.records import Image32
from nca_edge.threads import MOST, allowed, each

__all__ = ["NativeBackend", "NativeGraph", "head", "read_graph"]


class NativeBackend:
    """Several cells run side by side, a thread each; one cell runs on one."""

    name = "native"

    def __init__(self, file: str, graph: bytes, architecture: Architecture, threads: int, mask_step: int | None = None) -> None:
        self.graph, self.threads, self.architecture = read_graph(file, graph), threads, architecture
        if (self.graph.architecture, self.graph.mask_step) != (architecture, mask_step):
            raise BundleError(f"{file}: is of another automaton than the manifest; export the bundle again.")
        self.library = load()
        self.automaton, self._arrays = lay_out(self.graph, bool(self.library.nca_signed()))
        self.idle: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
        """Memory of a cell, one for each thread."""

    def __call__(self, images: Image32) -> Answer:
        a, n = self.architecture, len(images)
        images = np.ascontiguousarray(images, np.float32)
        logits = np.empty((n, a.classes), np.float32)
        states = np.empty((n, a.grid, a.grid, a.channels), np.float32)
        mask_states = states if self.graph.mask_step in (None, a.steps) else np.empty_like(states)
        while self.idle.qsize() < max(1, min(self.threads, n, MOST)):
            self.idle.put(aligned(np.zeros(self.library.nca_memory(ctypes.byref(self.automaton)), np.uint8), np.uint8))

        def answer(cell: int) -> None:
            """Into its place: states of several megabytes are not copied."""
            self._run(images[cell], states[cell], mask_states[cell])
            logits[cell] = head(states[cell], self.graph)

        with allowed(self.threads):
            each(answer, range(n))
        return Answer(logits, states, mask_states)

    def _run(self, image: Image32, last: Image32, at_mask_step: Image32) -> None:
        """One cell; its states are written to ``last`` and ``at_mask_step``."""
        a, pixels = self.architecture, np.ascontiguousarray(folded(self.architecture, image))
        memory = self.idle.get()
        try:
            done = 0
            for step, into in ((self.graph.mask_step, at_mask_step), (a.steps, last)):
                if step not in (None, done):
                    self.library.nca_run(ctypes.byref(self.automaton), _at(pixels), _at(memory), done, step, _at(into))
                    done = step
        finally:
            self.idle.put(memory)


def _at(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def head(state: Image32, graph: NativeGraph) -> NDArray[np.float32]:
    """(grid, grid, channels) -> (classes,) logits."""
    x = graph.arrays
    pooled = pool(state, graph.architecture.pool).astype(np.float32)
    first = x["head1"].astype(np.float32) * x["head1_scale"]
    hidden = np.maximum(first @ pooled + x["head1_bias"], 0)
    logits: NDArray[np.float32] = x["head2"] @ hidden + x["head2_bias"]
    return logits
