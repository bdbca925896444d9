"""A training run becomes a bundle: graph, golden cells, calibration, metrics, manifest."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nca_edge
from nca_edge.backends import NumpyBackend, OnnxBackend
from nca_edge.bundle import Manifest, write_bundle
from nca_edge.classifier import GOLDEN_TOLERANCE, ModelChoice, load
from nca_edge.errors import BundleError, StorageError, UsageError
from nca_edge.evaluate import Judged, score
from nca_export.calibration import fit_temperature, prior_shift, probabilities, unsure_threshold
from nca_export.onnx_graph import build_onnx
from nca_export.run import Run, read_run
from nca_train.data import Views, load_views
from nca_train.patches import ARTEFACT

GROUPS = {
    "neutrophil": ("neutrophil_band", "neutrophil_segmented"),
    "lymphocyte": ("lymphocyte", "lymphocyte_typical"),
    "monocyte": ("monocyte",),
    "eosinophil": ("eosinophil",),
    "basophil": ("basophil",),
}
"""The five-part differential; a bundle keeps the classes that it has."""
GOLDEN_CELLS = 6
FIELD_ARTEFACTS = 0.08
"""Share of a field's finds that are no white cell: 55 of 651 finds in bccd and chula fields lie in no boxed cell."""
BLOOD = {"eosinophil": 0.02}
"""Share of leukocytes in blood, of the one class that training draws seven times more often and that takes other clinics'
neutrophils: at the training's prior 44 of 176 segwbc1 neutrophils were called eosinophils. Other classes stay: moving them all
half way to blood cost calibration at home (expected error 0.033 for 0.020) and gained no more."""
UNSURE_ACCURACY = 0.95
"""Answers that are not unsure shall be right this often on the half of the validation fold that sets the threshold."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What half a of the validation fold decides."""

    temperature: float
    unsure_below: float


def export_run(
    run_folder: Path, data: Path, out: Path | None, say: Callable[[str], None], mask_step: int | None = None
) -> Path:
    """Write and verify a bundle from a run folder.

    Parameters
    ----------
    data : the data of the run; half a of its validation fold calibrates the model, half b measures it
    mask_step : the step whose state gives the masks; None: the last

    Raises
    ------
    UsageError
        No such run, or not its data.
    BundleError
        The run is damaged, or the exported graph does not reproduce the reference; nothing is written then.
    """
    run = read_run(run_folder)
    if not run.facts["finished"]:
        say(f"{run_folder}: stopped after epoch {run.facts['epochs_done']}; what it learnt so far is exported")
    if mask_step is not None and not 1 <= mask_step <= run.architecture.steps:
        raise UsageError(f"--mask-step {mask_step}: this automaton has steps 1 to {run.architecture.steps}.")
    say("reading the validation cells")
    split = (run.facts["fold"], run.facts["seed"])
    chosen, reported = (load_views(run.recipe, data, split, half, run.classes) for half in "ab")
    if len(chosen.images) != run.facts["validation_cells"]:
        raise UsageError(f"{data}: holds other cells than {run_folder} was trained on; give the data of that run.")
    run = _with_field_prior(run, chosen)
    graph = build_onnx(run.architecture, run.weights, run.fire, mask_step)
    exported = OnnxBackend("model.onnx", graph, run.architecture, threads=2)
    golden = chosen.images[_golden_cells(chosen, run.classes)]
    reference = run.answers(NumpyBackend(run.architecture, run.weights, run.fire), golden)
    _check_parity("model.onnx", run.answers(exported, golden), reference)
    calibration = calibrate(run.answers(exported, chosen.images), chosen.labels)
    metrics = _metrics(run, calibration, run.answers(exported, reported.images), reported.labels)
    manifest = replace(_manifest(run, calibration, metrics), mask_step=mask_step)
    folder = out or Path("bundles") / run.recipe.name
    try:
        write_bundle(folder, manifest, run.weights, run.fire, (golden, reference), {"model.onnx": graph})
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); choose another --out.") from error
    for backend in ("numpy", "onnx"):
        load(ModelChoice(str(folder.resolve()), backend))
        say(f"{backend} reproduces the golden cells")
    return folder


def calibrate(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Calibration:
    """Temperature and threshold from labelled cells.

    Parameters
    ----------
    logits : (m, classes)
    labels : (m,)
    """
    temperature = fit_temperature(logits, labels)
    return Calibration(temperature, unsure_threshold(probabilities(logits, temperature), labels, UNSURE_ACCURACY))


def _manifest(run: Run, calibration: Calibration, metrics: dict[str, Any]) -> Manifest:
    facts = run.facts
    mean, std = ([float(v) for v in facts[key]] for key in ("mean", "std"))
    return Manifest(
        name=run.recipe.name,
        classes=run.classes,
        groups={g: kept for g, members in GROUPS.items() if (kept := tuple(c for c in members if c in run.classes))},
        architecture=run.architecture,
        view_um=run.recipe.view.view_um,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        temperature=calibration.temperature,
        unsure_below=calibration.unsure_below,
        seed=facts["seed"],
        metrics=metrics,
        data=tuple(asdict(source) for source in run.recipe.sources),
        training={
            "recipe": facts["recipe"], "seed": facts["seed"], "fold": facts["fold"], "minutes": facts["training_minutes"],
            "epochs": facts["epochs_done"], "cells": facts["training_cells"],
            "cells_per_class": facts["training_cells_per_class"], "device": facts["device"],
            "processes": facts["processes"], "cpu_threads": facts["cpu_threads"], "selected_epoch": facts["selected"],
            "begun_from": facts.get("begun_from"),
        },
        versions={
            **facts["versions"], "numpy": np.__version__, "export_python": platform.python_version(),
            "nca_edge": nca_edge.__version__,
        },
    )  # fmt: skip


def _with_field_prior(run: Run, views: Views) -> Run:
    """The run with its artefact bias moved to what a field holds.

    The data hold more artefacts than the finds of a field do, and all of them from few microscopes. At the data's share, one in
    five true cells of chula fields was called artefact, at the field's share fewer than one in ten, and no more white cells
    were mistaken at home.
    """
    if ARTEFACT not in run.classes or not (views.labels == run.classes.index(ARTEFACT)).any():
        return run
    backend = OnnxBackend("model.onnx", build_onnx(run.architecture, run.weights, run.fire), run.architecture, threads=2)
    temperature = fit_temperature(run.answers(backend, views.images), views.labels)
    before = float((views.labels == run.classes.index(ARTEFACT)).mean())
    shifts = {ARTEFACT: prior_shift(before, FIELD_ARTEFACTS, temperature), **blood_shifts(run, temperature)}
    bias = run.weights["head2_bias"] + np.array([shifts.get(name, 0.0) for name in run.classes], np.float32)
    return replace(run, weights={**run.weights, "head2_bias": bias})


def blood_shifts(run: Run, temperature: float) -> dict[str, float]:
    """Class -> what is added to its logit, so that its prior moves from what training drew to what blood holds.

    Empty where the model does not tell all five groups apart: shares of blood say nothing of another choice of classes.
    """
    if not all(set(members) & set(run.classes) for members in GROUPS.values()):
        return {}
    weights = {
        name: count ** (1 - run.recipe.train.balance)
        for name, count in run.facts["training_cells_per_class"].items()
        if name != ARTEFACT
    }
    whole = sum(weights.values())
    return {name: prior_shift(weights[name] / whole, share, temperature) for name, share in BLOOD.items() if name in weights}


def _check_parity(file: str, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    worst = float(np.abs(logits - reference).max() / np.abs(reference).max())
    if not worst <= GOLDEN_TOLERANCE["fp32"]:
        raise BundleError(
            f"{file}: its logits differ from the reference by {worst:.2g} of their scale "
            f"(allowed {GOLDEN_TOLERANCE['fp32']:g}); nothing was written, the exporter and the runtime do not agree."
        )


def _golden_cells(views: Views, classes: tuple[str, ...]) -> list[int]:
    """The first validation cell of as many classes as there is room for, white cells first."""
    firsts = [int(np.argmax(views.labels == c)) for c in range(len(classes)) if (views.labels == c).any()]
    return firsts[:GOLDEN_CELLS]


def _metrics(run: Run, calibration: Calibration, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Scores on half b, white cells alone and with artefacts; an artefact answer for a white cell is an error."""
    names, p = np.array(run.classes), probabilities(logits, calibration.temperature)
    answers = zip(names[labels], names[p.argmax(1)], p.max(1), strict=True)
    judged = [Judged("", str(truth), str(answer), float(c), bool(c < calibration.unsure_below)) for truth, answer, c in answers]
    white = score([j for j in judged if j.truth != ARTEFACT])
    everything = score(judged)
    return {
        "validation_fold": run.facts["fold"],
        "half": "b; half a selected the epoch, calibrated, and set the threshold",
        "split": "by image: the data set has no patient identifiers",
        "white_cells": white.to_json(),
        "all_classes": {"n": everything.n, "accuracy": everything.accuracy, "macro_f1": everything.macro_f1},
    }
