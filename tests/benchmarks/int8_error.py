"""How the error of the state grows over the steps, for every 8-bit scheme that was tried; a table and a plot.

python -m tests.benchmarks.int8_error --data DATA/acevedo20 --models MODELS [--cells 16] [--json FILE] [--plot FILE]

Needs the extras train (matplotlib, torch for the released weights) and export. The shipped model sees cells of fold 3b, the
released one the images of fold 3 normalised by their own statistics, as it was trained.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Weights
from nca_edge.backends import NumpyBackend
from nca_edge.bundle import load_bundle, shipped_models
from nca_edge.preprocess import normalise
from nca_edge.records import Image32
from nca_export import litert_int8_graph, onnx_int8_graph
from nca_export.parity import trace
from nca_export.prepare import prepare_bundle, prepare_released
from nca_export.quantize import LEVELS, Equalised, Reach
from nca_export.rounding import Moments
from nca_export.source import spread
from nca_export.variants import Automaton, build, inside, runner
from tests.benchmarks.parity import of_classes, views_of
from tests.benchmarks.released import unseen_cells

Outputs = dict[str, NDArray[Any]]
STYLES = {
    "state alone in 8 bits, by channel and step": {"color": "#666666", "linestyle": ":"},
    "stock ONNX Runtime, static": {"color": "#009E73", "linestyle": "-"},
    "stock ONNX Runtime, dynamic": {"color": "#009E73", "linestyle": "--"},
    "stock LiteRT quantizer, dynamic": {"color": "#CC79A7", "linestyle": "--"},
    "ours, ONNX, channels as they are": {"color": "#0072B2", "linestyle": "--"},
    "ours, LiteRT, channels as they are": {"color": "#D55E00", "linestyle": "--"},
    "ours, ONNX, weights rounded singly": {"color": "#0072B2", "linestyle": "-."},
    "ours, LiteRT, weights rounded singly": {"color": "#D55E00", "linestyle": "-."},
    "ours, ONNX": {"color": "#0072B2", "linewidth": 2.4},
    "ours, LiteRT": {"color": "#D55E00", "linewidth": 2.4},
    "ours, compiled step": {"color": "#000000", "linewidth": 1.2},
}
STATIC = "perceived and hidden, one scale a step each; the kernels, W1 and W2 by output channel"
CHANGE = f"{STATIC}; the change, one scale a step"
QUANTIZED = {
    "state alone in 8 bits, by channel and step": "the state after each step, a scale for each channel and step",
    "stock ONNX Runtime, static": "everything, also the state and the sum; weights by output channel",
    "stock ONNX Runtime, dynamic": "the weights of all layers, one scale each; their inputs, one scale for each call",
    "stock LiteRT quantizer, dynamic": "W1 and W2 by output channel; their inputs, one scale for each grid cell and step",
    "ours, ONNX, channels as they are": f"{STATIC}; weights rounded together",
    "ours, LiteRT, channels as they are": f"{CHANGE}; weights rounded together",
    "ours, ONNX, weights rounded singly": f"{STATIC}; channels made alike",
    "ours, LiteRT, weights rounded singly": f"{CHANGE}; channels made alike",
    "ours, ONNX": f"{STATIC}; channels made alike, weights rounded together",
    "ours, LiteRT": f"{CHANGE}; channels made alike, weights rounded together",
    "ours, compiled step": f"{STATIC}; channels made alike, weights rounded together; the state in 16 bits",
}
"""What each scheme holds in 8 bits; the rest of it is float32 where nothing else is said."""
SHOWN = (1, 16, 64)
"""Steps in the table."""
Scheme = Callable[[Image32], Outputs]
"""What it makes of normalised cells."""


def unequal(weights: Weights, reached: Reach) -> Equalised:
    """What ``equalise`` is without its work."""
    ones = [np.ones(array.shape[1], np.float32) for array in (reached.high, reached.hidden)]
    return Equalised(weights, ones[0], ones[1], reached)


@contextmanager
def channels_as_they_are() -> Iterator[None]:
    """Our graphs without equalised channels, their weights rounded together all the same."""
    kept = onnx_int8_graph.equalise
    for module in (onnx_int8_graph, litert_int8_graph):
        module.equalise = unequal  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in (onnx_int8_graph, litert_int8_graph):
            module.equalise = kept  # type: ignore[attr-defined]


def stock(automaton: Automaton, calibration: Image32, static: bool, probe: bool = True) -> bytes:
    """What ONNX Runtime's own tool makes of our float32 graph; ``probe``: with the state of each step."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"image": calibration[n : n + 1]} for n in range(len(calibration))]

        def get_next(self) -> dict[str, Image32] | None:
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        plain, small = (str(Path(folder) / name) for name in ("plain.onnx", "small.onnx"))
        Path(plain).write_bytes(build("onnx", "fp32", automaton, probe=probe))
        if static:
            kinds = {"activation_type": q.QuantType.QUInt8, "weight_type": q.QuantType.QInt8}
            q.quantize_static(plain, small, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True, **kinds)
        else:
            q.quantize_dynamic(plain, small, weight_type=q.QuantType.QUInt8)
        return Path(small).read_bytes()


def stock_litert(automaton: Automaton, probe: bool = True) -> bytes:
    """What LiteRT's own tool makes of our float32 graph: both 1x1 layers in 8 bits, what they read rounded as it comes."""
    from litert_quantizer import qtyping, quantizer

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.tflite"
        plain.write_bytes(build("litert", "fp32", automaton, probe=probe))
        made = quantizer.Quantizer(str(plain))
        kernels = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE)
        scheme = qtyping.OpQuantizationConfig(weight_tensor_config=kernels, compute_precision=qtyping.ComputePrecision.INTEGER)
        made.update_quantization_recipe(regex=".*", operation_name=qtyping.TFLOperationName.CONV_2D, op_config=scheme)
        return bytes(made.quantize().quantized_model)


def rounded_state(automaton: Automaton, images: Image32) -> Outputs:
    """Float32, but with the state itself kept in 8 bits between the steps, one scale a step for each channel."""
    m = automaton
    backend = NumpyBackend(m.architecture, m.weights, m.fire)
    states = np.stack([backend.seed_state(image) for image in images])
    if m.reach is None:
        raise ValueError("needs the reach of the steps")
    low, high = (array[:, : m.architecture.channels] for array in (m.reach.low, m.reach.high))
    held: Outputs = {}
    for number, step in enumerate(m.fire, start=1):
        for state in states:
            backend.step(state, step)
        last = min(number, len(low) - 1)  # what the next step perceives
        scale = np.maximum((high[last] - low[last]) / LEVELS, np.float32(1e-9))
        states = np.clip(np.round(states / scale), np.round(low[last] / scale), np.round(high[last] / scale)) * scale
        held[f"state/{number}"] = states.copy()
    return {**held, "logits": np.stack([backend.head(backend.pool(state)) for state in states])}


def schemes(automaton: Automaton, calibration: Image32) -> Iterator[tuple[str, Callable[[], Scheme]]]:
    """Name, and what loads the scheme: the paper's graphs with all their insides do not fit into memory side by side."""
    names = {"onnx": "ONNX", "litert": "LiteRT"}

    def ours(form: str, automaton: Automaton = automaton) -> Scheme:
        return runner(form, build(form, "int8", automaton, probe=True))

    def singly(form: str) -> Scheme:
        reached = replace(automaton.reach, moments=Moments()) if automaton.reach else None
        return ours(form, replace(automaton, reach=reached))

    def as_they_are(form: str) -> Scheme:
        with channels_as_they_are():
            return ours(form)

    yield "state alone in 8 bits, by channel and step", lambda: partial(rounded_state, automaton)
    yield "stock ONNX Runtime, static", lambda: runner("onnx", stock(automaton, calibration, True))
    yield "stock ONNX Runtime, dynamic", lambda: runner("onnx", stock(automaton, calibration, False))
    yield "stock LiteRT quantizer, dynamic", lambda: runner("litert", stock_litert(automaton))
    for form, name in names.items():
        yield f"ours, {name}, channels as they are", partial(as_they_are, form)
    for form, name in names.items():
        yield f"ours, {name}, weights rounded singly", partial(singly, form)
    for form, name in names.items():
        yield f"ours, {name}", partial(ours, form)
    yield "ours, compiled step", lambda: inside("native", "int8", automaton)


def measure(automaton: Automaton, calibration: Image32, images: Image32) -> dict[str, Any]:
    """Relative L2 error of the state after each step and share of the answers that stay, by scheme.

    One cell after the other: a graph that shows its insides gives 800 MB for each of the paper's automaton.
    """
    last, steps = NumpyBackend(automaton.architecture, automaton.weights, automaton.fire), range(1, len(automaton.fire) + 1)
    cells = [images[n : n + 1] for n in range(len(images))]
    expected = [[made["state"] for made in trace(automaton, cell)] for cell in cells]
    best = [int(last.head(last.pool(states[-1][0])).argmax()) for states in expected]
    size = [sum(squared(states[n - 1]) for states in expected) for n in steps]
    rows: dict[str, Any] = {}
    for name, made in schemes(automaton, calibration):
        off, agree = np.zeros(len(steps)), 0
        run = made()
        for cell, states, answer in zip(cells, expected, best, strict=True):
            found = run(cell)
            off += [squared(found[f"state/{n}"] - states[n - 1]) for n in steps]
            agree += int(found["logits"].argmax()) == answer
        rows[name] = {"state": np.sqrt(off / size).tolist(), "agreement": agree / len(cells)}
        print(f"  {name:<45} state {rows[name]['state'][-1]:.2g}, {rows[name]['agreement']:.0%} agree", flush=True)
    return {"cells": len(images), "schemes": rows}


def squared(array: NDArray[Any]) -> float:
    """Sum of squares."""
    return float(np.vdot(array, array))


def shipped(data: Path, cells: int) -> dict[str, Any]:
    """The shipped model; its scales come from training cells that the bundle's reach was taken from."""
    bundle = load_bundle(shipped_models() / "edge")
    manifest = bundle.manifest
    images = of_classes(data, "3b", manifest.classes)
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, cells).round().astype(int)]
    views = views_of(data, chosen, 0.225, manifest.view_um, manifest.architecture.size)
    mean, std = (np.asarray(values, np.float32) for values in (manifest.mean, manifest.std))
    calibration = normalise(bundle.golden_views.astype(np.float32) / 255, mean, std)
    return measure(prepare_bundle(bundle, None).automaton, calibration, normalise(views, mean, std))


def released(models: Path, data: Path, cells: int) -> dict[str, Any]:
    """The weights released with the paper, 64 steps; scales from other cells than those that are measured."""
    prepared = prepare_released(models / "wbc_nca_matek19.pt", data, print)
    calibration = prepared.normalised(spread(prepared.cells, 8))
    return measure(prepared.automaton, calibration, unseen_cells(data, prepared, cells))


def draw(results: dict[str, Any], path: Path) -> None:
    """One panel for each model: error against step; a colour for each runtime or tool, ours as a whole drawn wide."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False, sharey=True)[0]
    for axes, (title, result) in zip(panels, results.items(), strict=True):
        for name, row in result["schemes"].items():
            steps = range(1, len(row["state"]) + 1)
            axes.plot(steps, [100 * value for value in row["state"]], label=name, **STYLES[name])
        axes.set(yscale="log", xlabel="step", xlim=(1, len(steps)), title=f"{title}, {result['cells']} cells")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("error of the state (relative L2)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def table(results: dict[str, Any]) -> str:
    """Markdown: error of the state at a few steps, and answers that stay, for each scheme and model."""
    head, rows = ["scheme", "in 8 bits"], [[name, inside] for name, inside in QUANTIZED.items()]
    for model, result in results.items():
        n = result["cells"]
        last = len(next(iter(result["schemes"].values()))["state"])
        steps = [step for step in SHOWN if step <= last]
        head += [f"{model}: step {', '.join(map(str, steps))}", f"same answers, n = {n}"]
        for row in rows:
            found = result["schemes"][row[0]]
            errors = " / ".join(f"{100 * found['state'][step - 1]:.2g}" for step in steps)
            row += [f"{errors} %", f"{round(found['agreement'] * n)} of {n}"]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


def main() -> None:
    """Print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, help="folder of the released weights")
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # the stock tool asks for a preparation that leaves our graphs as they are
    print("edge")
    results = {"edge": shipped(given.data, given.cells)}
    if given.models:
        print("released weights")
        results["released weights"] = released(given.models, given.data, given.cells)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    if given.plot:
        draw(results, given.plot)


if __name__ == "__main__":
    main()
