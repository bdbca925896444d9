"""The graph of an automaton in each format and precision, and how to run one without a bundle around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights
from nca_edge.backends.litert import signature_runner
from nca_edge.backends.native import NativeBackend, read_graph
from nca_edge.errors import UsageError
from nca_edge.records import Image32
from nca_export.litert_graph import build_litert
from nca_export.litert_int8_graph import build_litert_int8
from nca_export.native_graph import NumpyNative, build_native
from nca_export.onnx_graph import build_onnx
from nca_export.onnx_int8_graph import build_onnx_int8
from nca_export.quantize import Reach, equalise


@dataclass(frozen=True, slots=True)
class Automaton:
    """All that a graph is made of."""

    architecture: Architecture
    weights: Weights
    fire: Fire
    mask_step: int | None = None
    """Step whose state gives the mask; None: the last."""
    reach: Reach | None = None
    """What its steps hold on real cells; int8 needs it."""


Outputs = dict[str, NDArray[Any]]
"""By name."""
Run = Callable[[Image32], Outputs]
"""Normalised cells (n, size, size, 3) in, all outputs by name out, one cell after the other."""


def build(form: str, precision: str, automaton: Automaton, probe: bool = False) -> bytes:
    """The graph file.

    Parameters
    ----------
    form : name of one of ``nca_edge.formats.FORMATS``
    probe : also give what lies inside each step; of the compiled step ``inside`` does

    Raises
    ------
    UsageError
        No cells have shown what the steps hold.
    """
    m = _with_fixed_image(automaton)
    if precision == "int8" and m.reach is None:
        raise UsageError("int8 needs cells to find its scales with, and this bundle keeps none; export the run again.")
    if m.reach is None or precision == "fp32":
        plain = {"onnx": build_onnx, "litert": build_litert}[form]
        return plain(m.architecture, m.weights, m.fire, m.mask_step, probe)
    if form == "native":
        return build_native(m.architecture, m.weights, m.fire, m.reach, m.mask_step)
    small = {"onnx": build_onnx_int8, "litert": build_litert_int8}[form]
    return small(m.architecture, m.weights, m.fire, m.reach, m.mask_step, probe)


def _with_fixed_image(automaton: Automaton) -> Automaton:
    w2 = automaton.weights["w2"].copy()
    w2[: automaton.architecture.image_channels] = 0  # the image channels stay as they are
    return replace(automaton, weights={**automaton.weights, "w2": w2})


def runner(form: str, graph: bytes, threads: int = 1) -> Run:
    """Load a graph."""
    if form == "native":
        return _native(graph, threads)
    if form == "litert":
        one = signature_runner(graph, threads)
        run: Run = lambda images: dict(one(image=images))  # noqa: E731
    else:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        run = lambda images: dict(zip(names, session.run(names, {"image": images}), strict=True))  # noqa: E731
    return _one_by_one(run)


def inside(form: str, precision: str, automaton: Automaton) -> Run:
    """What lies inside each step too, as ``parity`` compares it; of the compiled step, which tells nothing, by its equal."""
    if form != "native" or automaton.reach is None:
        return runner(form, build(form, precision, automaton, probe=True))
    equal = equalise(_with_fixed_image(automaton).weights, automaton.reach)
    by = {"perceived": equal.perceived, "hidden": equal.hidden, "delta": equal.perceived[: automaton.architecture.channels]}
    numpy = NumpyNative(read_graph("", build(form, precision, automaton)))

    def run(images: Image32) -> Outputs:
        found = numpy(images[0])
        found |= {name: value / by[kind] for name, value in found.items() if (kind := name.partition("/")[0]) in by}
        return {name: value[None] for name, value in found.items()}

    return _one_by_one(run)


def _native(graph: bytes, threads: int) -> Run:
    read = read_graph("the graph", graph)
    backend = NativeBackend("the graph", graph, read.architecture, threads, read.mask_step)
    return lambda images: dict(backend(images)._asdict())


def _one_by_one(run: Run) -> Run:
    def answer(images: Image32) -> Outputs:
        answers = [run(images[n : n + 1]) for n in range(len(images))]
        return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}

    return answer
