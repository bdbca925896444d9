"""A training run becomes a bundle: graph, golden cells, calibration, metrics, manifest."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nca_edge
from nca_edge.automaton import Architecture, Weights
from nca_edge.backends import NumpyBackend, OnnxBackend
from nca_edge.bundle import Manifest, write_bundle
from nca_edge.classifier import ModelChoice, from_8bit, load
from nca_edge.errors import BundleError, UsageError
from nca_edge.evaluate import Judged, score
from nca_edge.preprocess import normalise
from nca_export.calibration import fit_temperature, probabilities, unsure_threshold
from nca_export.onnx_graph import build_onnx
from nca_train.data import ARTEFACT, Cells, load_cells
from nca_train.recipe import parse_recipe

GROUPS = {
    "neutrophil": ("neutrophil_band", "neutrophil_segmented"),
    "lymphocyte": ("lymphocyte", "lymphocyte_typical"),
    "monocyte": ("monocyte",),
    "eosinophil": ("eosinophil",),
    "basophil": ("basophil",),
}
"""The five-part differential; a bundle keeps the classes that it has."""
GOLDEN_CELLS = 6
UNSURE_ACCURACY = 0.90
"""Answers that are not unsure shall be right this often on validation data."""


def export_run(run: Path, data: Path, out: Path | None, say: Callable[[str], None]) -> Path:
    """Write and verify a bundle from a run folder.

    Parameters
    ----------
    data : the data of the run; its validation fold calibrates and measures the model

    Raises
    ------
    UsageError
        No such run, or it is not finished.
    BundleError
        The exported graph does not reproduce the reference.
    """
    facts = _run_facts(run)
    recipe = parse_recipe(facts["recipe"])
    architecture = Architecture(**facts["architecture"])
    with np.load(run / "weights.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    fire = arrays.pop("fire")
    weights: Weights = arrays
    graph = build_onnx(architecture, weights, fire)
    say("reading the validation cells")
    cells = load_cells(recipe, data, facts["fold"], facts["seed"])
    mean, std = np.asarray(facts["mean"], np.float32), np.asarray(facts["std"], np.float32)
    views = from_8bit(cells.views)
    logits = OnnxBackend("model.onnx", graph, architecture, threads=2)(normalise(views, mean, std)).logits
    temperature = fit_temperature(logits, cells.view_labels)
    p = probabilities(logits, temperature)
    threshold = unsure_threshold(p, cells.view_labels, UNSURE_ACCURACY)
    golden = _golden_cells(cells)
    reference = NumpyBackend(architecture, weights, fire)(normalise(views[golden], mean, std)).logits
    manifest = Manifest(
        name=recipe.name, classes=cells.classes,
        groups={group: kept for group, members in GROUPS.items() if (kept := tuple(c for c in members if c in cells.classes))},
        architecture=architecture, view_um=recipe.view.view_um, mean=tuple(facts["mean"]), std=tuple(facts["std"]),
        temperature=temperature, unsure_below=threshold, seed=facts["seed"],
        metrics=_metrics(cells, p, threshold, facts["fold"]),
        data=tuple(asdict(source) for source in recipe.sources),
        training={
            "recipe": facts["recipe"], "seed": facts["seed"], "fold": facts["fold"], "minutes": facts["training_minutes"],
            "epochs": facts["epochs_done"], "cells": facts["training_cells"], "cells_per_class": facts["training_cells_per_class"],
            "cpu_threads": facts["cpu_threads"], "last_epoch": facts["last"],
        },
        versions={**facts["versions"], "numpy": np.__version__, "export_python": platform.python_version(), "nca_edge": nca_edge.__version__},
    )  # fmt: skip
    folder = out or Path("bundles") / recipe.name
    write_bundle(folder, manifest, weights, fire, (cells.views[golden], reference), {"model.onnx": graph})
    for backend in ("numpy", "onnx"):
        load(ModelChoice(str(folder.resolve()), backend))
        say(f"{backend} reproduces the golden cells")
    return folder


def _run_facts(run: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((run / "run.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{run}: holds no training run ({error}); give the folder that nca-edge train wrote.") from error
    if not (run / "weights.npz").is_file():
        raise BundleError(f"{run}: weights.npz is missing; train again.")
    return facts


def _golden_cells(cells: Cells) -> list[int]:
    """The first validation cell of as many classes as there is room for, white cells first."""
    firsts = [int(np.argmax(cells.view_labels == c)) for c in range(len(cells.classes)) if (cells.view_labels == c).any()]
    return firsts[:GOLDEN_CELLS]


def _metrics(cells: Cells, p: NDArray[np.float64], threshold: float, fold: int) -> dict[str, Any]:
    """Scores on the validation fold, white cells alone and with artefacts; an artefact answer for a white cell is an error."""
    names = np.array(cells.classes)
    truth, answer, confidence = names[cells.view_labels], names[p.argmax(1)], p.max(1)
    judged = [Judged("", str(t), str(a), float(c), bool(c < threshold)) for t, a, c in zip(truth, answer, confidence, strict=True)]
    white = score([j for j in judged if j.truth != ARTEFACT])
    everything = score(judged)
    return {
        "validation_fold": fold,
        "split": "by image: the data set has no patient identifiers",
        "white_cells": white.to_json(),
        "all_classes": {"n": everything.n, "accuracy": everything.accuracy, "macro_f1": everything.macro_f1},
        "calibrated_on": "the same validation fold: temperature and threshold are optimistic there",
    }
