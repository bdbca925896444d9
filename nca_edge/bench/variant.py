"""Time one variant of a bundle in a process of its own: its memory is its own, and a crash costs only its row."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge.errors import NcaEdgeError, UsageError
from nca_edge.stopwatch import Stopwatch
from nca_edge.trial import own_process

PATIENCE_S = 1800.0
LEAST_CALLS = 8


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be timed; travels as JSON."""

    bundle: str
    """Folder."""
    backend: str
    precision: str
    threads: int
    seconds: float
    """Time for the single cells."""
    fields: str | None
    """Folder of fields for the stages; None: no stages."""
    data: str | None
    """Labelled crops for the accuracy; None: no accuracy."""
    um_per_px: float | None
    """Of the labelled crops."""
    provider: str | None = None
    """Of ONNX Runtime; None for another backend."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What came out."""

    backend: str
    precision: str
    threads: int
    valid: bool
    """False: its answers are not the reference's, or it gave none; its times say nothing."""
    problem: str | None
    """Why it is not valid."""
    cell_ms: dict[str, float] = field(default_factory=dict)
    """p50, p90 and p99 of one cell."""
    batch_ms: float | None = None
    """Of one cell among eight in one call."""
    stage_ms: dict[str, float] = field(default_factory=dict)
    """Median over the sample fields of the time in each stage."""
    field_ms: float | None = None
    """Median of a whole field."""
    cells_per_minute: float | None = None
    """Through the whole pipeline, of the sample fields."""
    peak_memory_mb: float | None = None
    agreement: float | None = None
    """Golden cells whose best class is the reference's."""
    golden_error: float | None = None
    """Largest difference of a golden logit, as a share of the largest logit."""
    accuracy: float | None = None
    labelled: int | None = None
    provider: str | None = None
    """Of ONNX Runtime, as it calls it; None for another backend."""


def time_variant(question: Question) -> Timing:
    """Ask in a process of its own."""
    command, environment = own_process("nca_edge.bench.variant")
    given = json.dumps(asdict(question))
    failed = Timing(question.backend, question.precision, question.threads, False, None, provider=question.provider)
    try:
        done = subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return _with(failed, f"no answer within {PATIENCE_S / 60:.0f} minutes")
    if done.returncode < 0:
        return _with(failed, f"killed by signal {-done.returncode}: this CPU or system does not stand it")
    try:
        return Timing(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        return _with(failed, (done.stderr.strip().splitlines() or ["it said nothing"])[-1])


def _with(timing: Timing, problem: str) -> Timing:
    return replace(timing, problem=problem)


def answer(question: Question) -> Timing:
    """Load, check, time; in this process."""
    from nca_edge.classifier import ModelChoice, from_8bit, load

    q = question
    base: dict[str, Any] = {"backend": q.backend, "precision": q.precision, "threads": q.threads, "provider": q.provider}
    try:
        classifier = load(ModelChoice(q.bundle, q.backend, q.precision, q.threads, trial=False, provider=q.provider))
    except UsageError as error:  # an extra is missing
        return Timing(**base, valid=False, problem=str(error))
    except NcaEdgeError as error:
        return Timing(**base, valid=False, problem=f"INVALID: {error}")
    bundle = classifier.bundle
    views = from_8bit(bundle.golden_views)
    logits = classifier.answer(views).logits
    apart = np.abs(logits - bundle.golden_logits).max() / np.abs(bundle.golden_logits).max()
    agreement = float((logits.argmax(1) == bundle.golden_logits.argmax(1)).mean())
    calls = _calls(lambda n: classifier.answer(views[n % len(views)][None]), q.seconds)
    eight = np.stack([views[n % len(views)] for n in range(8)])
    batches = _calls(lambda n: classifier.answer(eight), q.seconds / 2)
    rows = _stages(q, classifier) if q.fields else {}
    rows |= _accuracy(q) if q.data else {}
    return Timing(
        **base, valid=True, problem=None,
        cell_ms={f"p{p}": float(np.percentile(calls, p)) for p in (50, 90, 99)},
        batch_ms=float(np.median(batches)) / 8, agreement=agreement, golden_error=float(apart),
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, **rows,
    )  # fmt: skip


def _calls(call: Any, seconds: float) -> list[float]:
    """Milliseconds of each call after two that warm up."""
    times: list[float] = []
    call(0), call(1)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < LEAST_CALLS:
        started = time.perf_counter()
        call(len(times))
        times.append(1e3 * (time.perf_counter() - started))
    return times


def _stages(question: Question, classifier: Any) -> dict[str, Any]:
    """Every sample field through the whole pipeline into a session, as a count meets it: earlier fields have told the scale."""
    from nca_edge.camera import file_frames, list_images
    from nca_edge.pipeline import observe
    from nca_edge.session import Session

    source = Path(question.fields or "")
    paths = list_images(source)
    firsts = [next(observe(file_frames(source, [path]), classifier)) for path in paths]  # warm, and the scale is known
    known = [[first.scale.um_per_px] if first.scale else [] for first in firsts]
    stages: list[dict[str, float]] = []
    whole: list[float] = []
    cells = 0
    with tempfile.TemporaryDirectory() as folder, Session.create(Path(folder) / "s", classifier.facts(None)) as session:
        for path, scales in zip(paths, known, strict=True):
            watch, started = Stopwatch(), time.perf_counter()
            with watch("decode"):
                frames = list(file_frames(source, [path]))
            for reading in observe(frames, classifier, known=scales, watch=watch):
                with watch("store"):
                    session.commit(reading)
                cells += len(reading.cells)
            whole.append(time.perf_counter() - started)
            stages.append(watch.seconds)
    names = list(dict.fromkeys(name for one in stages for name in one))
    return {
        "stage_ms": {name: 1e3 * float(np.median([one.get(name, 0.0) for one in stages])) for name in names},
        "field_ms": 1e3 * float(np.median(whole)), "cells_per_minute": 60 * cells / sum(whole),
    }  # fmt: skip


def _accuracy(question: Question) -> dict[str, Any]:
    from nca_edge.classifier import ModelChoice
    from nca_edge.crops import EvaluateRequest, evaluate

    q = question
    choice = ModelChoice(q.bundle, q.backend, q.precision, q.threads, trial=False, provider=q.provider)
    outcome = evaluate(EvaluateRequest(Path(q.data or ""), q.um_per_px, {}, None), choice, lambda done, total: None)
    return {"accuracy": outcome.result.accuracy, "labelled": outcome.result.n}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(answer(Question(**json.load(sys.stdin))))) + "\n")
