"""`nca-edge bench`: every variant of a bundle on this board, honestly: with its memory, its share of the peak, its answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge import __version__, trial
from nca_edge.backends import CPU, short
from nca_edge.bench import board as board_module
from nca_edge.bench.peak import Peak, measure_peak
from nca_edge.bench.predict import predict
from nca_edge.bench.variant import Question, Timing, time_variant
from nca_edge.bundle import Bundle, find_bundle, load_bundle
from nca_edge.classifier import PROVIDERS, ModelChoice, from_8bit, load, proven_providers
from nca_edge.errors import StorageError, UsageError
from nca_edge.labelled import read_labelled
from nca_edge.profiles import detect_board, find_profile
from nca_edge.samples import sample_fields
from nca_edge.trial import installed, lacking

SCHEMA = 1
SAMPLE_EVERY_S = 5.0
CELL_S = 3.0
"""For the single cells of each variant."""
BUSY = 0.5
"""Programs that run beside, from which on times are said to be too long."""


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What the user asked for."""

    choice: ModelChoice
    """Backend ``auto``: all; precision is not looked at."""
    board: str | None = None
    """Predict for this profile too."""
    sustained_min: float = 0.0
    data: Path | None = None
    um_per_px: float | None = None


def bench(request: BenchRequest, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure; the result is what is written as JSON.

    Raises
    ------
    UsageError
        No such board, backend or data.
    BundleError
        The bundle is damaged.
    """
    folder = find_bundle(request.choice.model).resolve()
    bundle = load_bundle(folder)
    here = detect_board()
    profile = find_profile(request.board) if request.board else here
    threads = request.choice.threads or here.default_threads()
    if request.data is not None:
        read_labelled(request.data)  # each variant reads it in a process of its own: what is wrong with it is told before
    board, before = board_module.facts(), board_module.sense()
    say("measuring what this CPU can do at best")
    # tried first: a runtime that this CPU does not stand must not be imported here
    runs = installed("onnx") is not None and trial.problem(folder, "onnx", "fp32") is None
    peak = measure_peak(threads) if runs else Peak()
    data = str(request.data) if request.data else None
    timings = []
    variants, absent = _variants(bundle, request.choice.backend)
    gpus = [*proven_providers(bundle, say)] if runs and ("onnx", "fp32") in variants else []
    for backend, precision, provider in _with_providers(variants, gpus):
        say(f"timing {backend} {precision}" + (f" on {short(provider)}" if provider else ""))
        asked = (str(folder), backend, precision, threads, CELL_S, str(sample_fields()), data, request.um_per_px, provider)
        timings.append(time_variant(Question(*asked)))
    quickest = min((t for t in timings if t.valid), key=lambda t: t.cell_ms["p50"], default=None)
    _remember(bundle, timings, all_of_them=request.choice.backend == "auto")
    sustained = None
    if request.sustained_min and quickest is not None:
        say(f"{quickest.backend} {quickest.precision} without a pause for {request.sustained_min:g} minutes")
        sustained = _sustain(folder, quickest, request.sustained_min)
    after, a = board_module.sense(), bundle.manifest.architecture
    return {
        "schema": SCHEMA, "nca_edge": __version__, "board": asdict(board), "threads": threads,
        "bundle": {
            "name": bundle.manifest.name, "manifest_sha256": bundle.sha256, "parameters": a.parameters,
            "gmac_per_cell": a.macs / 1e9, "update": a.update,
        },
        "peak": asdict(peak), "results": [_row(t, bundle, peak) for t in timings],
        "sensors": {"before": asdict(before), "after": asdict(after)},
        "sustained": sustained, "warnings": [*absent, *_warnings(before, after, board)],
        "prediction": predict(profile, a, timings, peak) if profile.name != here.name else [],
    }  # fmt: skip


def _variants(bundle: Bundle, backend: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What is timed, and a sentence on each backend that could be if it were installed."""
    all_of_them = [*sorted(bundle.file_of()), ("numpy", "fp32")]
    chosen = [variant for variant in all_of_them if backend in ("auto", variant[0])]
    if not chosen:
        raise UsageError(f"this bundle has no {backend} model; export one, or leave --backend out.")
    absent = {name for name, _ in chosen if backend == "auto" and installed(name) is None}
    there = [variant for variant in chosen if variant[0] not in absent]
    return there, [f"{name} was left out: {why}; {mend}." for name in sorted(absent) for why, mend in [lacking(name)]]


def _with_providers(variants: list[tuple[str, str]], gpus: list[str]) -> list[tuple[str, str, str | None]]:
    """Each variant; ONNX Runtime's with the CPU and, in float32, with each of these."""
    out: list[tuple[str, str, str | None]] = []
    for backend, precision in variants:
        out.append((backend, precision, CPU if backend == "onnx" else None))
        if (backend, precision) == ("onnx", "fp32"):
            out += [(backend, precision, provider) for provider in gpus]
    return out


def _remember(bundle: Bundle, timings: list[Timing], all_of_them: bool) -> None:
    """Keep for ``--backend auto`` which backend, and for ONNX Runtime which provider, was the quickest."""
    valid = sorted((t for t in timings if t.valid), key=lambda t: -t.cell_ms["p50"])  # of one backend the quickest comes last
    for precision in ("fp32", "int8"):
        quick = {t.backend: t.cell_ms["p50"] for t in valid if t.precision == precision}
        if quick and all_of_them:
            trial.remember(bundle.sha256, precision, quick)
    providers = {t.provider: t.cell_ms["p50"] for t in valid if t.provider and t.precision == "fp32"}
    if len(providers) > 1:
        trial.remember(bundle.sha256, PROVIDERS, providers)


def _row(timing: Timing, bundle: Bundle, peak: Peak) -> dict[str, Any]:
    """A row of the results, with what follows from the times."""
    a = bundle.manifest.architecture
    provider = short(timing.provider) if timing.provider else None
    row = {
        **asdict(timing),
        "provider": provider,
        "preset": bundle.manifest.name,
        "update": a.update,
        "gmac_per_cell": a.macs / 1e9,
    }
    # a mask throws away what does not fire: it need not be computed, and is not counted
    due = a.macs * (float(bundle.fire.mean()) if bundle.fire.ndim > 1 else 1.0)
    rate = due / 1e6 / timing.cell_ms["p50"] if timing.valid else None
    best = peak.int8_gmac_per_s if timing.precision == "int8" else peak.fp32_gmac_per_s
    on_cpu = timing.provider in (None, CPU)  # a GPU has another peak
    share = rate / best if rate is not None and best is not None and on_cpu else None
    return {**row, "gmac_per_s": rate, "share_of_peak": share}


def _sustain(folder: Path, timing: Timing, minutes: float) -> dict[str, Any]:
    """Cell after cell; what the sensors say every few seconds."""
    choice = ModelChoice(str(folder), timing.backend, timing.precision, timing.threads, provider=timing.provider)
    classifier = load(choice)
    view = from_8bit(classifier.bundle.golden_views[:1])
    samples: list[dict[str, Any]] = []
    began = time.monotonic()
    while (passed := time.monotonic() - began) < 60 * minutes:
        until = time.monotonic() + min(SAMPLE_EVERY_S, 60 * minutes - passed)
        times: list[float] = []
        while not times or time.monotonic() < until:
            started = time.perf_counter()
            classifier.answer(view)
            times.append(1e3 * (time.perf_counter() - started))
        samples.append({"minute": passed / 60, "cell_ms": float(np.median(times)), **asdict(board_module.sense())})
    return {"backend": timing.backend, "precision": timing.precision, "samples": samples}


def _warnings(before: board_module.Sensors, after: board_module.Sensors, board: board_module.Board) -> list[str]:
    """Why these times may not be the board's best, and what is not known."""
    out = []
    if board.profile.startswith("generic") and board.tree:
        out.append(f"No profile knows the board {board.tree!r}: it is taken for {board.profile}.")
    if before.on_battery or after.on_battery:
        out.append("It runs on battery: plug it in and measure again.")
    if held := {*(before.throttled or ()), *(after.throttled or ())}:
        out.append(f"The board held back ({', '.join(sorted(held))}): check power supply and cooling and measure again.")
    if before.load is not None and before.load > BUSY:
        out.append(
            f"This machine was busy when it was asked ({before.load:.1f} programs on {board.cpus} CPUs): "
            "times are too long; stop what else runs and measure again."
        )
    if board.governor not in (None, "performance"):
        out.append(f"The CPU governor is {board.governor}: times vary less with performance.")
    if after.temperature_c is None:
        out.append("This board does not tell its temperature: whether it was hot is not known.")
    return out


def write(result: dict[str, Any], path: Path) -> None:
    """Keep the result as JSON, beside the old file first.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); choose another --out.") from error
