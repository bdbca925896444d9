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

__all__ = ["NativeBackend", "NativeGraph", "head", "read_graph", "unalike"]


class NativeBackend:
    """Several cells run side by side, a thread each; one cell runs on one."""

    name = "native"

    def __init__(self, file: str, graph: bytes, architecture: Architecture, threads: int, mask_step: int | None = None) -> None:
        self.graph, self.threads, self.architecture = read_graph(file, graph), threads, architecture
        if (self.graph.architecture, self.graph.mask_step) != (architecture, mask_step):
            raise BundleError(f"{file}: is of another automaton than the manifest; export the bundle again.")
        self.library = load()
        self.automaton, self._arrays = lay_out(self.graph, bool(self.library.nca_signed()))
        self.idle: SimpleQueue[tuple[Image32, NDArray[np.uint8]]] = SimpleQueue()
        """States and scratch memory, one of each for a thread."""

    def __call__(self, images: Image32) -> Answer:
        a, n = self.architecture, len(images)
        images = np.ascontiguousarray(images, np.float32)
        logits = np.empty((n, a.classes), np.float32)
        states = np.empty((n, a.grid, a.grid, a.channels), np.float32)
        mask_states = states if self.graph.mask_step is None else np.empty_like(states)
        while self.idle.qsize() < max(1, min(self.threads, n, MOST)):
            self.idle.put(self._memory())

        def answer(cell: int) -> None:
            """Into its place: states of several megabytes are not copied."""
            self._run(images[cell], states[cell], mask_states[cell])
            logits[cell] = head(states[cell], self.graph)

        with allowed(self.threads):
            each(answer, range(n))
        return Answer(logits, states, mask_states)

    def _memory(self) -> tuple[Image32, NDArray[np.uint8]]:
        grid, bytes_ = self.architecture.grid, self.library.nca_scratch(ctypes.byref(self.automaton))
        state = np.zeros((grid, grid, self.automaton.channels), np.float32)
        return aligned(state, np.float32), aligned(np.zeros(bytes_, np.uint8), np.uint8)

    def _run(self, image: Image32, last: Image32, at_mask_step: Image32) -> None:
        """One cell; its states are written to ``last`` and ``at_mask_step``."""
        a, graph = self.architecture, self.graph
        memory = self.idle.get()
        try:
            state, scratch = memory
            pixels, first = folded(a, image), a.image_channels
            np.multiply(pixels, graph.arrays["factors"][:first], out=state[..., :first])
            state[..., first:] = 0
            done = 0
            for step, into in ((graph.mask_step, at_mask_step), (a.steps, last)):
                if step is not None:
                    self.library.nca_run(ctypes.byref(self.automaton), _at(state), _at(scratch), done, step)
                    unalike(state[..., : a.channels], pixels, graph, into)
                    done = step
        finally:
            self.idle.put(memory)


def _at(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def unalike(state: Image32, pixels: Image32, graph: NativeGraph, into: Image32) -> None:
    """Write the state as the reference has it; the image's channels to the bit, which a factor there and back is not.

    Parameters
    ----------
    pixels : (grid, grid, image_channels)
    """
    np.multiply(state, np.float32(1) / graph.arrays["factors"], out=into)
    into[..., : graph.architecture.image_channels] = pixels


def head(state: Image32, graph: NativeGraph) -> NDArray[np.float32]:
    """(grid, grid, channels) -> (classes,) logits."""
    x = graph.arrays
    pooled = pool(state, graph.architecture.pool).astype(np.float32)
    first = x["head1"].astype(np.float32) * x["head1_scale"]
    hidden = np.maximum(first @ pooled + x["head1_bias"], 0)
    logits: NDArray[np.float32] = x["head2"] @ hidden + x["head2_bias"]
    return logits
