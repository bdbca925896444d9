"""A training run becomes a bundle: graph, golden cells, calibration, metrics, manifest."""

from __future__ import annotations

import io
import platform
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nca_edge
from nca_edge.automaton import Architecture, Fire, Weights
from nca_edge.backends import Backend, NumpyBackend, OnnxBackend
from nca_edge.bundle import Manifest, write_bundle
from nca_edge.classifier import GOLDEN_TOLERANCE, ModelChoice, from_8bit, load
from nca_edge.errors import BundleError, StorageError, UsageError
from nca_edge.evaluate import Judged, score
from nca_edge.preprocess import normalise
from nca_edge.records import Image8, Image32
from nca_export.calibration import fit_temperature, prior_shift, probabilities, unsure_threshold
from nca_export.onnx_graph import build_onnx
from nca_train.data import ARTEFACT, Cells, load_cells
from nca_train.recipe import Recipe, parse_recipe
from nca_train.store import FACTS, WEIGHTS, read_facts

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
UNSURE_ACCURACY = 0.90
"""Answers that are not unsure shall be right this often on validation data."""


@dataclass(frozen=True, slots=True)
class Run:
    """A training run as it was read and checked."""

    recipe: Recipe
    architecture: Architecture
    weights: Weights
    fire: Fire
    facts: dict[str, Any]
    """``run.json``."""

    def normalised(self, views: Image32) -> Image32:
        """(n, size, size, 3), 0..1 -> as the network sees it."""
        return normalise(views, np.asarray(self.facts["mean"], np.float32), np.asarray(self.facts["std"], np.float32))


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the validation fold says of a model."""

    temperature: float
    unsure_below: float
    metrics: dict[str, Any]


def export_run(
    run_folder: Path, data: Path, out: Path | None, say: Callable[[str], None], mask_step: int | None = None
) -> Path:
    """Write and verify a bundle from a run folder.

    Parameters
    ----------
    data : the data of the run; its validation fold calibrates and measures the model
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
    cells = load_cells(run.recipe, data, run.facts["fold"], run.facts["seed"])
    if list(cells.classes) != list(run.facts["classes"]) or len(cells.views) != run.facts["validation_cells"]:
        raise UsageError(f"{data}: holds other classes or cells than {run_folder} was trained on; give the data of that run.")
    run, logits = _with_field_prior(run, cells, mask_step)
    graph = build_onnx(run.architecture, run.weights, run.fire, mask_step)
    golden = _golden_cells(cells)
    reference = _answers(NumpyBackend(run.architecture, run.weights, run.fire), run, cells.views[golden])
    exported = _answers(OnnxBackend("model.onnx", graph, run.architecture, threads=2), run, cells.views[golden])
    _check_parity("model.onnx", exported, reference)
    manifest = replace(_manifest(run, cells, calibrate(logits, cells, run.facts["fold"])), mask_step=mask_step)
    folder = out or Path("bundles") / run.recipe.name
    try:
        write_bundle(folder, manifest, run.weights, run.fire, (cells.views[golden], reference), {"model.onnx": graph})
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); choose another --out.") from error
    for backend in ("numpy", "onnx"):
        load(ModelChoice(str(folder.resolve()), backend))
        say(f"{backend} reproduces the golden cells")
    return folder


def read_run(folder: Path) -> Run:
    """Read a run folder, finished or stopped.

    Raises
    ------
    UsageError
        It holds no run.
    BundleError
        Its weights are damaged or do not belong to it.
    """
    facts = read_facts(folder)
    if facts is None:
        raise UsageError(f"{folder}: holds no training run (no {FACTS}); give the folder that nca-edge train wrote.")
    needed = {
        "recipe", "architecture", "classes", "mean", "std", "fold", "seed", "finished", "epochs_done", "training_minutes",
        "training_cells", "training_cells_per_class", "validation_cells", "cpu_threads", "last", "versions",
    }  # fmt: skip
    if needed - set(facts):
        raise UsageError(f"{folder}: {FACTS} has no {', '.join(sorted(needed - set(facts)))}; train again.")
    try:
        architecture = Architecture(**facts["architecture"])
        with np.load(io.BytesIO((folder / WEIGHTS).read_bytes()), allow_pickle=False) as archive:
            weights = {name: archive[name] for name in archive.files}
        fire = weights.pop("fire")
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{folder / WEIGHTS}: cannot be read ({error}); go on with --resume or train again.") from error
    architecture.check_weights(weights)
    architecture.check_fire(fire)
    return Run(parse_recipe(facts["recipe"]), architecture, weights, fire, facts)


def calibrate(logits: NDArray[np.float32], cells: Cells, fold: int) -> Calibration:
    """Temperature, threshold and scores on the validation cells.

    Parameters
    ----------
    logits : (m, classes) of ``cells.views``
    """
    temperature = fit_temperature(logits, cells.view_labels)
    p = probabilities(logits, temperature)
    threshold = unsure_threshold(p, cells.view_labels, UNSURE_ACCURACY)
    return Calibration(temperature, threshold, _metrics(cells, p, threshold, fold))


def _manifest(run: Run, cells: Cells, calibration: Calibration) -> Manifest:
    facts = run.facts
    mean, std = ([float(v) for v in facts[key]] for key in ("mean", "std"))
    return Manifest(
        name=run.recipe.name,
        classes=cells.classes,
        groups={g: kept for g, members in GROUPS.items() if (kept := tuple(c for c in members if c in cells.classes))},
        architecture=run.architecture,
        view_um=run.recipe.view.view_um,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        temperature=calibration.temperature,
        unsure_below=calibration.unsure_below,
        seed=facts["seed"],
        metrics=calibration.metrics,
        data=tuple(asdict(source) for source in run.recipe.sources),
        training={
            "recipe": facts["recipe"], "seed": facts["seed"], "fold": facts["fold"], "minutes": facts["training_minutes"],
            "epochs": facts["epochs_done"], "cells": facts["training_cells"],
            "cells_per_class": facts["training_cells_per_class"], "cpu_threads": facts["cpu_threads"],
            "last_epoch": facts["last"],
            "begun_from": facts.get("begun_from"),
        },
        versions={
            **facts["versions"], "numpy": np.__version__, "export_python": platform.python_version(),
            "nca_edge": nca_edge.__version__,
        },
    )  # fmt: skip


def _with_field_prior(run: Run, cells: Cells, mask_step: int | None) -> tuple[Run, NDArray[np.float32]]:
    """The run with its artefact bias moved to what a field holds, and its logits of the validation cells.

    The data hold more artefacts than the finds of a field do, and all of them from few microscopes. At the data's share, one in
    five true cells of chula fields was called artefact, at the field's share fewer than one in ten, and no more white cells
    were mistaken at home.
    """
    graph = build_onnx(run.architecture, run.weights, run.fire, mask_step)
    logits = _answers(OnnxBackend("model.onnx", graph, run.architecture, threads=2), run, cells.views)
    if ARTEFACT not in cells.classes or not (cells.view_labels == cells.classes.index(ARTEFACT)).any():
        return run, logits
    artefact = cells.classes.index(ARTEFACT)
    before = float((cells.view_labels == artefact).mean())
    shift = prior_shift(before, FIELD_ARTEFACTS, fit_temperature(logits, cells.view_labels))
    bias = run.weights["head2_bias"].copy()
    bias[artefact] += np.float32(shift)
    logits[:, artefact] += np.float32(shift)
    return replace(run, weights={**run.weights, "head2_bias": bias}), logits


def _answers(backend: Backend, run: Run, views: Image8) -> NDArray[np.float32]:
    """Logits in small batches: the states of a whole fold, which nobody asks for here, would be 7 GB at the paper's sizes."""
    batches = [views[start : start + 16] for start in range(0, len(views), 16)]
    return np.concatenate([backend(run.normalised(from_8bit(batch))).logits for batch in batches])


def _check_parity(file: str, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    worst = float(np.abs(logits - reference).max() / np.abs(reference).max())
    if not worst <= GOLDEN_TOLERANCE["fp32"]:
        raise BundleError(
            f"{file}: its logits differ from the reference by {worst:.2g} of their scale "
            f"(allowed {GOLDEN_TOLERANCE['fp32']:g}); nothing was written, the exporter and the runtime do not agree."
        )


def _golden_cells(cells: Cells) -> list[int]:
    """The first validation cell of as many classes as there is room for, white cells first."""
    firsts = [int(np.argmax(cells.view_labels == c)) for c in range(len(cells.classes)) if (cells.view_labels == c).any()]
    return firsts[:GOLDEN_CELLS]


def _metrics(cells: Cells, p: NDArray[np.float64], threshold: float, fold: int) -> dict[str, Any]:
    """Scores on the validation fold, white cells alone and with artefacts; an artefact answer for a white cell is an error."""
    names = np.array(cells.classes)
    answers = zip(names[cells.view_labels], names[p.argmax(1)], p.max(1), strict=True)
    judged = [Judged("", str(truth), str(answer), float(c), bool(c < threshold)) for truth, answer, c in answers]
    white = score([j for j in judged if j.truth != ARTEFACT])
    everything = score(judged)
    return {
        "validation_fold": fold,
        "split": "by image: the data set has no patient identifiers",
        "white_cells": white.to_json(),
        "all_classes": {"n": everything.n, "accuracy": everything.accuracy, "macro_f1": everything.macro_f1},
        "calibrated_on": "the same validation fold: temperature and threshold are optimistic there",
    }
