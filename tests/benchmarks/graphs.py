"""How long one cell takes in each graph, on one thread; whether one graph of all steps, blocks or single steps are faster; and
what eight cells cost together, on two threads.

python -m tests.benchmarks.graphs [--rounds 15] [--part latency|blocks|company] [--json FILE]      (extras train and export)

Random weights: no time depends on them. Beside the paper's automaton stands what a user would pick instead: a plain PyTorch
model as the paper's text reads (``training_step.Plain``), its traced export in ONNX Runtime, and what ONNX Runtime's own tool
makes of our float32 graph. All of them take turns, so that whatever else the machine does strikes all.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from nca_edge.automaton import PRESETS, Architecture, draw_fire
from nca_edge.backends import LitertBackend, NativeBackend, OnnxBackend
from nca_edge.backends.litert import signature_runner
from nca_edge.formats import FORMATS
from nca_edge.records import Image32
from nca_export import litert_graph, litert_int8_graph, onnx_graph, onnx_int8_graph
from nca_export.quantize import equalise, reach
from nca_export.variants import Automaton, build, runner
from nca_train.model import NCA
from tests.benchmarks.graph_tables import block_table, company_table, latency_table
from tests.benchmarks.int8_error import stock, stock_litert
from tests.benchmarks.training_step import Plain

BLOCKS = (1, 4, 16)
"""Steps in one graph; the last is the whole of ``edge``."""
EIGHT = 8
"""Cells in company."""
TURNS = {"": True, ", channels_last": False}
"""How a plain model turns its state around the convolutions: as the released code does, which swaps axes 1 and 3, and to
channel, row, column, which PyTorch takes for channels_last and does not copy."""
BACKENDS: dict[str, Callable[..., Any]] = {"onnx": OnnxBackend, "litert": LitertBackend, "native": NativeBackend}
GRAPHS = tuple(form for form in FORMATS if form.name != "native")
"""What is cut into blocks, and takes a batch: the compiled step has a loop of its own."""
Run = Callable[[], object]


def automaton(a: Architecture) -> Automaton:
    """Random weights under which the state changes a little at each step."""
    torch.manual_seed(0)
    model = NCA(a)
    torch.nn.init.normal_(model.w2.weight, std=0.02)
    weights, fire = model.weights(), draw_fire(a, 0)
    return Automaton(a, weights, fire, None, reach(a, weights, fire, noise(a)))


def noise(a: Architecture) -> Image32:
    """One normalised image."""
    return np.random.default_rng(0).normal(0, 1, (1, a.size, a.size, 3)).astype(np.float32)


def instead(m: Automaton) -> dict[str, Run]:
    """What a user would pick instead of ours, with the weights of ``m``, the paper's automaton."""
    image = noise(m.architecture)
    dynamic = runner("litert", stock_litert(m, False))
    sessions = {
        "stock static int8": _session(stock(m, image, True, False)),
        "stock dynamic int8": _session(stock(m, image, False, False)),
    }
    runs: dict[str, Run] = {"stock LiteRT dynamic int8": lambda: dynamic(image)}
    for turn, swapped in TURNS.items():
        model = Plain(swapped).eval()
        model.load_weights(m.weights)
        runs[f"plain PyTorch{turn}"] = partial(eager, model, torch.from_numpy(image))
        sessions[f"plain export{turn}"] = _session(exported(model))
    for name, session in sessions.items():
        runs[name] = lambda session=session: session.run(None, {"image": image})  # type: ignore[misc]
    return runs


def eager(model: torch.nn.Module, image: torch.Tensor) -> None:
    """One cell through PyTorch."""
    with torch.inference_mode():
        model(image)


def exported(model: torch.nn.Module) -> bytes:
    """The traced ONNX graph."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 64, 64, 3),), stream, input_names=["image"], dynamo=False)
    return stream.getvalue()


def _session(graph: bytes, threads: int = 1) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def whole(a: Architecture, m: Automaton) -> tuple[dict[str, Run], dict[str, int]]:
    """Each variant of an automaton: what runs it, and the bytes of its file."""
    runs: dict[str, Run] = {}
    sizes = {}
    for form in FORMATS:
        for precision in form.precisions:
            graph = build(form.name, precision, m)
            run, image, name = runner(form.name, graph), noise(a), f"{form.name} {precision}"
            runs[name] = lambda run=run, image=image: run(image)  # type: ignore[misc]
            sizes[name] = len(graph)
    return runs, sizes


def block(form: str, precision: str, m: Automaton, first: int, steps: int) -> bytes:
    """Some steps of a half-lattice automaton, state in and state out."""
    a, shape = m.architecture, [m.architecture.grid, m.architecture.grid, m.architecture.channels]
    phases = [int(phase) for phase in m.fire[first : first + steps]]
    if form == "litert":
        return _litert_block(m, precision, phases, first)
    if precision == "fp32":
        g = onnx_graph.Graph()
        y = g.one("Transpose", ["state"], perm=[0, 3, 1, 2])
        for phase in phases:
            y = onnx_graph._half_step(g, a, m.weights, y, phase, None)
        g.output(g.one("Transpose", [y], perm=[0, 2, 3, 1]), "after", shape)
        return g.finish("state", shape)
    if m.reach is None:
        raise ValueError("int8 needs the reach of the steps")
    eight = onnx_int8_graph._Drawing(a, equalise(m.weights, m.reach), False)
    y = "state"
    for number, phase in enumerate(phases, start=first + 1):
        eight.begin(number)
        y = eight.half_step(y, phase)
    eight.graph.output(eight.graph.one("Identity", [y]), "after", shape)
    return eight.graph.finish("state", shape, contrib=True)


def _litert_block(m: Automaton, precision: str, phases: list[int], first: int) -> bytes:
    a = m.architecture
    shape = (-1, a.grid, a.grid, a.channels)
    if m.reach is None or precision == "fp32":
        plain = litert_graph._Drawing(a, m.weights, False)
        x = state = plain.graph.tensor("state", shape)
        for phase in phases:
            x = plain.half_step(x, phase)
        return plain.graph.finish({"state": state}, {"after": x})
    small = litert_int8_graph._Drawing(a, equalise(m.weights, m.reach), False)
    state = small.graph.tensor("state", shape)
    quarters = small.split(state)
    for number, phase in enumerate(phases, start=first + 1):
        small.begin(number)
        quarters = small.half_step(quarters, phase)
    return small.graph.finish({"state": state}, {"after": small.joined(quarters)})


def in_blocks(form: str, precision: str, m: Automaton, steps: int) -> tuple[Run, int]:
    """All steps of the automaton, so many in a graph: what runs them, and the bytes of all files."""
    a = m.architecture
    own_scales = precision == "int8"  # only there a step differs from the next one of its phase
    starts = range(0, a.steps, steps)
    keys = [(start if own_scales else 0, *map(int, m.fire[start : start + steps])) for start in starts]
    distinct = dict(zip(keys, starts, strict=True))
    graphs = {key: block(form, precision, m, start, steps) for key, start in distinct.items()}
    if form == "litert":
        ready = {key: signature_runner(graph, 1) for key, graph in graphs.items()}
        step = lambda key, state: ready[key](state=state)["after"]  # noqa: E731
    else:
        sessions = {key: _session(graph) for key, graph in graphs.items()}
        step = lambda key, state: sessions[key].run(["after"], {"state": state})[0]  # noqa: E731
    seed = np.random.default_rng(0).normal(0, 1, (1, a.grid, a.grid, a.channels)).astype(np.float32)

    def run() -> None:
        state = seed
        for key in keys:
            state = step(key, state)

    return run, sum(map(len, graphs.values()))


def medians(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Milliseconds of each; they take turns, and in each turn the second call counts: after seconds of other programs' work
    a call of one millisecond takes four, for want of its own code and pages in the caches."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            run()
            started = time.perf_counter()
            run()
            if number:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def in_company(m: Automaton) -> dict[str, Run]:
    """Eight cells on two threads, in each variant: eight calls, one call of the program's backend, one batch in the graph."""
    a = m.architecture
    cells = np.random.default_rng(1).normal(0, 1, (EIGHT, a.size, a.size, 3)).astype(np.float32)
    runs: dict[str, Run] = {}
    for form in FORMATS:
        for precision in form.precisions:
            graph, name = build(form.name, precision, m), f"{form.name} {precision}"
            backend = BACKENDS[form.name](form.file(precision), graph, a, 2)
            batch: Run | None = None
            if form.name == "litert":
                batch = partial(signature_runner(graph, 2), image=cells)  # its interpreter is resized once
            elif form.name == "onnx":
                batch = partial(_session(graph, 2).run, None, {"image": cells})
            single = [cells[n : n + 1] for n in range(EIGHT)]
            runs[f"{name}: calls"] = lambda backend=backend, single=single: [backend(one) for one in single]  # type: ignore[misc]
            runs[f"{name}: call"] = partial(backend, cells)
            if batch is not None:
                runs[f"{name}: batch"] = batch
    return runs


def company(m: Automaton, rounds: int) -> dict[str, Any]:
    """Milliseconds for eight cells, and what part of eight calls' time one call and one batch take."""
    times = medians(in_company(m), rounds)
    rows = {}
    for name in sorted({key.partition(":")[0] for key in times}):
        calls, call = (times[f"{name}: {way}"] for way in ("calls", "call"))
        rows[name] = {"calls_ms": calls, "call_ms": call, "call": call / calls}
        if (batch := times.get(f"{name}: batch")) is not None:
            rows[name] |= {"batch_ms": batch, "batch": batch / calls}
    found = {"cells": EIGHT, "threads": 2, "rounds": rounds, "rows": rows}
    print(company_table(found))
    return found


def latency(groups: dict[str, Automaton], rounds: int) -> dict[str, Any]:
    """One cell in each graph and in what a user would pick instead."""
    runs, sizes = instead(groups["paper"]), {}
    for preset, m in groups.items():
        graphs, own = whole(m.architecture, m)
        runs |= {f"{preset}: {name}": run for name, run in graphs.items()}
        sizes |= {f"{preset}: {name}": size for name, size in own.items()}
    gmac = {preset: round(m.architecture.macs / 1e9, 2) for preset, m in groups.items()}
    found = {"threads": 1, "rounds": rounds, "bytes": sizes, "gmac": gmac, "latency_ms": medians(runs, rounds)}
    print(latency_table(found))
    return found


def blocks(m: Automaton, rounds: int) -> dict[str, dict[str, float]]:
    """The same automaton cut into graphs of so many steps."""
    parts = {
        f"{form.name} {precision}, {steps} steps a graph": in_blocks(form.name, precision, m, steps)
        for form in GRAPHS
        for precision in form.precisions
        for steps in BLOCKS
    }
    times = medians({name: run for name, (run, _) in parts.items()}, rounds)
    rows = {name: {"latency_ms": times[name], "bytes": size} for name, (_, size) in parts.items()}
    print(block_table(rows))
    return rows


def main() -> None:
    """Print, and write; what is not measured this time stays in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--part", choices=("latency", "blocks", "company"), help="this alone")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: dict[str, Any] = {}
    if given.part and given.json and given.json.exists():
        results = json.loads(given.json.read_text("utf-8"))
    torch.set_num_threads(1)
    edge = automaton(PRESETS["edge"])
    if given.part in (None, "latency"):
        paper, half = automaton(PRESETS["paper"]), replace(PRESETS["paper"], update="half-lattice")
        fire = draw_fire(half, 0)
        lines = Automaton(half, paper.weights, fire, None, reach(half, paper.weights, fire, noise(half)))
        results |= latency({"edge": edge, "paper": paper, "paper, half-lattice": lines}, given.rounds)
    if given.part in (None, "blocks"):
        results["blocks"] = blocks(edge, given.rounds)
    if given.part in (None, "company"):
        results["company"] = company(edge, given.rounds)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
