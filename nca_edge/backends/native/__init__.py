"""The automaton's steps in 8 bits, compiled: all parts of a step in one pass over a few rows (``step.c``)."""

from __future__ import annotations

import ctypes
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture
from nca_edge.backends.native.graph import NativeGraph, read_graph
from nca_edge.backends.native.layout import Asked, aligned, lay_out
from nca_edge.backends.native.library import load
from nca_edge.backends.protocol import Answer
from nca_edge.backends.reference import folded
from nca_edge.errors import BundleError
from nca_edge.records import Image32
from nca_edge.threads import MOST, allowed, each

__all__ = ["NativeBackend", "NativeGraph", "read_graph"]


class NativeBackend:
    """Several cells run side by side, a thread each; one cell runs on one."""

    name = "native"

    def __init__(self, file: str, graph: bytes, architecture: Architecture, threads: int, mask_step: int | None = None) -> None:
        self.graph, self.threads, self.architecture = read_graph(file, graph), threads, architecture
        if (self.graph.architecture, self.graph.mask_step) != (architecture, mask_step):
            raise BundleError(f"{file}: is of another automaton than the manifest; export the bundle again.")
        self.library = load()
        self.automaton, self._arrays = lay_out(self.graph, bool(self.library.nca_signed()))
        x = self.graph.arrays
        self.head1 = x["head1"].astype(np.float32) * x["head1_scale"]
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
            logits[cell] = self._head(self._run(images[cell], states[cell], mask_states[cell]))

        with allowed(self.threads):
            each(answer, range(n))
        return Answer(logits, states, mask_states)

    def _run(self, image: Image32, last: Image32, at_mask_step: Image32) -> NDArray[np.float32]:
        """One cell; its states are written to ``last`` and ``at_mask_step``. Returns (features,) pooled from the last."""
        a, pixels = self.architecture, np.ascontiguousarray(folded(self.architecture, image))
        most, total = np.full(a.channels, -np.inf, np.float32), np.zeros(a.channels)
        asked = Asked(_at(last), None if a.pool == "mean" else _at(most), None if a.pool == "max" else _at(total))
        runs = [(a.steps, asked)]
        if self.graph.mask_step not in (None, a.steps):
            runs.insert(0, (self.graph.mask_step, Asked(_at(at_mask_step))))
        memory = self.idle.get()
        try:
            done = 0
            for step, end in runs:
                self.library.nca_run(ctypes.byref(self.automaton), _at(pixels), _at(memory), done, step, end)
                done = step
        finally:
            self.idle.put(memory)
        means = (total / a.grid**2).astype(np.float32)
        return {"max": most, "mean": means, "max+mean": np.concatenate([most, means])}[a.pool]

    def _head(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(features,) -> (classes,) logits."""
        x = self.graph.arrays
        hidden = np.maximum(self.head1 @ features + x["head1_bias"], 0)
        logits: NDArray[np.float32] = x["head2"] @ hidden + x["head2_bias"]
        return logits


def _at(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
