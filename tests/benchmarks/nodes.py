"""Where the time of an int8 ONNX graph goes: milliseconds and 10^9 multiply-accumulates a second of each kind of node; and how
near the compiled step comes to the best product of the runtime, with each instruction set of this core.

python -m tests.benchmarks.nodes [--runs 25] [--json FILE]                                          (extras train and export)

ONNX Runtime's own profiler, one thread, random weights. A node's time is the 20th percentile over the runs, so that what else
the machine does counts little; all are added up by kind. Beside them stands the CPU time of a whole call without the profiler,
and the best rate of the runtime's own matrix products before and after. Only grid cells that fire are counted: they alone are
computed.
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
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nca_edge.automaton import PRESETS, Architecture, fire_masks
from nca_edge.backends.native.library import load
from nca_edge.bench.peak import measure_peak
from nca_edge.records import Image32
from nca_export.variants import Automaton, build, runner
from tests.benchmarks.graph_tables import DEPTHWISE, FIRST, SECOND, native_table, node_table
from tests.benchmarks.graphs import automaton, noise

AUTOMATA = {
    "edge": PRESETS["edge"], "paper": PRESETS["paper"], "paper, half-lattice": replace(PRESETS["paper"], update="half-lattice"),
}  # fmt: skip
PERCENTILE = 20


def session(graph: bytes, profile: str | None = None) -> Any:
    """As the program's backend makes it, on one thread; ``profile``: how the file begins that the profiler writes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_cpu_mem_arena = 1, 3, False
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


def cpu_ms(run: Callable[[], object], runs: int) -> dict[str, float]:
    """CPU time of a call: median and least."""
    times = []
    for number in range(runs + 2):
        began = time.thread_time()
        run()
        if number > 1:  # the first fill caches
            times.append(1e3 * (time.thread_time() - began))
    return {"median": statistics.median(times), "least": min(times)}


def measure(a: Architecture, runs: int) -> dict[str, Any]:
    """One automaton."""
    m = automaton(a)
    graph, image = build("onnx", "int8", m), noise(a)
    before = measure_peak(1).int8_gmac_per_s
    rows, gmac = by_kind(graph, image, runs), work(a, m)
    for name, amount in gmac.items():
        rows[name] |= {"gmac": amount, "gmac_per_s": 1000 * amount / rows[name]["ms"]}
    plain = session(graph)
    call, step = cpu_ms(lambda: plain.run(None, {"image": image}), runs), compiled(m, image, runs)
    after = measure_peak(1).int8_gmac_per_s
    peak, total = max(before or 0, after or 0), sum(gmac.values())
    of_peak = lambda ms: {  # noqa: E731 - the peak is that of the quickest product too
        "call_cpu_ms": ms, "gmac_per_s": 1000 * total / ms["least"], "share_of_peak": 1000 * total / ms["least"] / peak,
    }  # fmt: skip
    return {
        "gmac": total, "peak_gmac_per_s": peak, **of_peak(call), "nodes": rows,
        "native": {name: of_peak(ms) for name, ms in step.items()},
    }  # fmt: skip


def compiled(m: Automaton, image: Image32, runs: int) -> dict[str, dict[str, float]]:
    """CPU time of a call of the compiled step, with each instruction set of this core."""
    library, run = load(), runner("native", build("native", "int8", m))
    times: dict[str, dict[str, float]] = {}
    while (name := library.nca_choose(len(times))) is not None:
        times[name.decode()] = cpu_ms(lambda: run(image), runs)
    library.nca_choose(0)
    return times


def main() -> None:
    """Print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {"threads": 1, "runs": given.runs, "percentile": PERCENTILE, "automata": {}}
    for name, a in AUTOMATA.items():
        result["automata"][name] = measure(a, given.runs)
    print(node_table(result["automata"]), native_table(result["automata"]), sep="\n")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
