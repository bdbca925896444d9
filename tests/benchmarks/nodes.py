"""Where the time of an int8 ONNX graph goes: milliseconds and 10^9 multiply-accumulates a second of each kind of node; and how
near a call of it, and of the compiled step with each instruction set of this core, comes to the runtime's own matrix products.

python -m tests.benchmarks.nodes [--turns 8] [--json FILE]                                          (extras train and export)

ONNX Runtime's own profiler, one thread, random weights. A node's time is the 20th percentile over the runs, so that what else
the machine does counts little; all are added up by kind. Calls without the profiler and products of many sizes run by turns, in
CPU time; the peak is the rate of the best size. A share compares medians; beside it stands what both reach at their best. Only
grid cells that fire are counted: they alone are computed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nca_edge.automaton import PRESETS, Architecture, fire_masks
from nca_edge.backends.native.library import load
from nca_edge.bench.onnx_file import product
from nca_edge.records import Image32
from nca_export.variants import Automaton, build, runner
from tests.benchmarks.graph_tables import DEPTHWISE, FIRST, SECOND, native_table, node_table
from tests.benchmarks.graphs import automaton, noise

AUTOMATA = {
    "edge": PRESETS["edge"], "paper": PRESETS["paper"], "paper, half-lattice": replace(PRESETS["paper"], update="half-lattice"),
}  # fmt: skip
PERCENTILE = 20
PROFILED = 25
"""Runs."""
ROWS, SIDES = (1024, 4096, 8192), (128, 256, 512, 1024, 2048)
"""Of the products; a side is both N and K."""

Products = dict[str, tuple[float, Callable[[], object]]]
"""By name 10^9 multiply-accumulates, and the call."""


def session(graph: bytes, profile: str | None = None, arena: bool = False) -> Any:
    """On one thread, as the program's backend makes it but for these.

    Parameters
    ----------
    profile : how the file begins that the profiler writes
    arena : keep the memory of outputs, without which fetching it takes longer than a large product
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_cpu_mem_arena = 1, 3, arena
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def kind(operator: str, channels: list[int]) -> str:
    """What a node is; ``channels``: the last size of its input and of its output."""
    if operator == "QLinearConv":
        return DEPTHWISE if channels[0] == channels[1] else FIRST
    return SECOND if operator == "QGemm" else operator


def by_kind(graph: bytes, image: Image32, runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds and calls of each kind of node in one run."""
    with tempfile.TemporaryDirectory() as folder:
        profiled = session(graph, str(Path(folder) / "run"))
        for _ in range(runs):
            profiled.run(None, {"image": image})
        events = json.loads(Path(profiled.end_profiling()).read_text("utf-8"))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            facts = event["args"]
            shapes = [next(iter(facts[key][0].values()))[-1:] for key in ("input_type_shape", "output_type_shape")]
            name = kind(facts["op_name"], [size for shape in shapes for size in shape])
            times[name, facts["node_index"]].append(event["dur"] / 1000)
    rows: dict[str, dict[str, float]] = defaultdict(lambda: {"ms": 0.0, "calls": 0})
    for (name, _), values in times.items():
        rows[name]["ms"] += float(np.percentile(values, PERCENTILE))
        rows[name]["calls"] += 1
    return dict(sorted(rows.items(), key=lambda row: -row[1]["ms"]))


def work(a: Architecture, m: Automaton) -> dict[str, float]:
    """10^9 multiply-accumulates of one run, by kind, of the grid cells that fire."""
    firing, c = int(fire_masks(a, m.fire).sum()), a.channels
    return {FIRST: firing * 3 * c * a.hidden / 1e9, SECOND: firing * c * a.hidden / 1e9, DEPTHWISE: firing * 18 * c / 1e9}


def products() -> Products:
    """Of the runtime: uint8 times stored int8."""
    rng, found = np.random.default_rng(0), {}
    for side in SIDES:
        weights = rng.integers(-127, 128, (side, side)).astype(np.int8)
        for rows in ROWS:
            inputs = {"a": rng.integers(0, 256, (rows, side)).astype(np.uint8)}
            run = partial(session(product("MatMulInteger", rows, weights), arena=True).run, ["c"], inputs)
            found[f"{rows} x {side} x {side}"] = rows * side**2 / 1e9, run
    return found


def cpu_ms(run: Callable[[], object], seconds: float) -> list[float]:
    """CPU time of calls for so long, but the first, which fills caches."""
    run()
    times, began = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        started = time.thread_time()
        run()
        times.append(1e3 * (time.thread_time() - started))
    return times


def by_turns(calls: dict[str, Callable[[], object]], peaks: Products, turns: int) -> dict[str, dict[str, float]]:
    """CPU time of each call and each product, by name: median and least."""
    times = defaultdict(list)
    for _ in range(turns):
        for name, run in calls.items():
            choose(name)
            times[name] += cpu_ms(run, 0.25)
        for name, (_, run) in peaks.items():
            times[name] += cpu_ms(run, 0.1)
    return {name: {"median": statistics.median(found), "least": min(found)} for name, found in times.items()}


def instruction_sets() -> list[str]:
    """Of the compiled step on this core, the best first; the best is chosen in the end."""
    library, names = load(), []
    while (name := library.nca_choose(len(names))) is not None:
        names.append(name.decode())
    library.nca_choose(0)
    return names


def choose(name: str) -> None:
    """Let the compiled step use these instructions; others are none of its."""
    names = instruction_sets()
    if name in names:
        load().nca_choose(names.index(name))


def measure(a: Architecture, turns: int) -> dict[str, Any]:
    """One automaton."""
    m = automaton(a)
    graph, image = build("onnx", "int8", m), noise(a)
    rows, gmac = by_kind(graph, image, PROFILED), work(a, m)
    for name, amount in gmac.items():
        rows[name] |= {"gmac": amount, "gmac_per_s": 1000 * amount / rows[name]["ms"]}
    total, peaks, sets = sum(gmac.values()), products(), instruction_sets()
    onnx = partial(session(graph).run, None, {"image": image})
    native = partial(runner("native", build("native", "int8", m)), image)
    found = by_turns({"onnx": onnx, **dict.fromkeys(sets, native)}, peaks, turns)
    peak = {what: max(1000 * amount / found[name][what] for name, (amount, _) in peaks.items()) for what in ("median", "least")}

    def of_peak(name: str) -> dict[str, Any]:
        ms = found[name]
        return {
            "call_cpu_ms": ms, "gmac_per_s": 1000 * total / ms["median"],
            "share_of_peak": 1000 * total / ms["median"] / peak["median"],
            "share_at_best": 1000 * total / ms["least"] / peak["least"],
        }  # fmt: skip

    return {
        "gmac": total, "peak_gmac_per_s": peak["median"], "peak_at_best_gmac_per_s": peak["least"], **of_peak("onnx"),
        "nodes": rows, "native": {name: of_peak(name) for name in sets},
    }  # fmt: skip


def main() -> None:
    """Print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {
        "threads": 1, "turns": given.turns, "profiled": PROFILED, "percentile": PERCENTILE, "automata": {},
    }  # fmt: skip
    for name, a in AUTOMATA.items():
        result["automata"][name] = measure(a, given.turns)
    print(node_table(result["automata"]), native_table(result["automata"]), sep="\n")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
