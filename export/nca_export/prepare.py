"""From what is exported to all that a bundle holds besides its graphs: automaton, calibration, metrics, golden cells."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nca_edge
from nca_edge.automaton import pool
from nca_edge.backends import OnnxBackend
from nca_edge.bundle import Bundle, Manifest
from nca_edge.errors import UsageError
from nca_edge.evaluate import Judged, score
from nca_edge.records import Image8, Image32
from nca_export.calibration import (
    PASSES,
    UNCALIBRATED,
    Calibration,
    Looks,
    calibrate,
    fit_temperature,
    prior_shift,
    probabilities,
)
from nca_export.onnx_graph import build_onnx
from nca_export.quantize import Reach, moments, reach
from nca_export.run import Run
from nca_export.source import RELEASED_VIEW_UM, calibration_cells, normalised, own_statistics, released_cells, spread
from nca_export.variants import Automaton
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
GOLDEN_MARGIN = 1.0
FIELD_ARTEFACTS = 0.08
"""Share of a field's finds that are no white cell: 55 of 651 finds in bccd and chula fields lie in no boxed cell."""
BLOOD = {"eosinophil": 0.01}
"""Share of leukocytes, of the one class that training draws seven times more often than blood holds it and that takes other
clinics' neutrophils. Half of what blood holds (about 2 %): at 2 % 39 of 176 segwbc1 neutrophils were still called eosinophils;
at home, where the two lie far apart, the further shift costs none of half a's 1,243 right answers. Other classes stay: moving
them all half way to blood cost calibration at home (expected error 0.033 for 0.020) and gained no more."""


FEW = np.float32(1.25)
"""Six cells show less of how far a change may reach than 64 do."""
REACH = "reach.npz"
"""What the steps hold on real cells: with it a bundle gets int8 variants without any data."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is written besides the graphs."""

    manifest: Manifest
    automaton: Automaton
    golden: Image8
    """(n, size, size, 3)"""
    cells: Image8
    """(m, size, size, 3) that the variants are compared on."""
    labelled: Views | None = None
    """Cells to count right answers on."""

    def normalised(self, views: Image8) -> Image32:
        """As the network sees them."""
        mean, std = (np.asarray(values, np.float32) for values in (self.manifest.mean, self.manifest.std))
        return normalised(views, mean, std)


def prepare_run(run: Run, folder: Path, data: Path | None, mask_step: int | None, say: Callable[[str], None]) -> Prepared:
    """From a training run; with its data calibrated and measured, without them neither.

    Raises
    ------
    UsageError
        Not the data of the run, or no such step.
    """
    if not run.facts["finished"]:
        say(f"{folder}: stopped after epoch {run.facts['epochs_done']}; what it learnt so far is exported")
    _check_step(mask_step, run.architecture.steps)
    cells = calibration_cells(folder)
    means = channel_means(run, cells)
    if data is None:
        say("without --data: not calibrated and not measured; give the data of the run for a model that is to be used")
        manifest = replace(_manifest(run, UNCALIBRATED, {}), mask_step=mask_step, channel_means=means)
        return _with_reach(Prepared(manifest, _automaton(run, mask_step), spread(cells, GOLDEN_CELLS), cells))
    say("reading the validation cells")
    split = (run.facts["fold"], run.facts["seed"])
    chosen, reported = (load_views(run.recipe, data, split, half, run.classes) for half in "ab")
    if len(chosen.images) != run.facts["validation_cells"]:
        raise UsageError(f"{data}: holds other cells than {folder} was trained on; give the data of that run.")
    run = _with_field_prior(run, chosen)
    backend = _exact(run)
    looks = Looks.at(run, backend, chosen.images)
    calibration = calibrate(looks, chosen.labels)
    logits = Looks.at(run, backend, reported.images).logits(calibration.temperature)
    metrics = _metrics(run, calibration, logits, reported.labels)
    manifest = replace(
        _manifest(run, calibration, metrics), mask_step=mask_step, channel_means=means,
        passes=PASSES.most, more_passes_below=PASSES.below,
    )  # fmt: skip
    golden = chosen.images[_golden_cells(chosen, looks.first, run.classes)]
    return _with_reach(Prepared(manifest, _automaton(run, mask_step), golden, cells, reported))


def prepare_bundle(bundle: Bundle, mask_step: int | None) -> Prepared:
    """From a bundle, which keeps its calibration, its metrics and its golden cells.

    Raises
    ------
    UsageError
        It was exported before bundles kept what their steps hold, or no such step.
    """
    manifest = bundle.manifest
    _check_step(mask_step, manifest.architecture.steps)
    manifest = replace(manifest, mask_step=mask_step or manifest.mask_step)
    automaton = Automaton(manifest.architecture, bundle.weights, bundle.fire, manifest.mask_step)
    prepared = Prepared(manifest, automaton, bundle.golden_views, bundle.golden_views)
    if REACH not in bundle.contents:
        return prepared
    with np.load(io.BytesIO(bundle.contents[REACH]), allow_pickle=False) as archive:
        kept = dict(archive)
    if "delta" not in kept:  # exported before bundles said how far their training cells change
        seen = reach(automaton.architecture, automaton.weights, automaton.fire, prepared.normalised(prepared.golden))
        kept["delta"] = seen.delta * FEW
    reached = Reach(kept["low"], kept["high"], kept["hidden"], kept["delta"])
    return _with_moments(replace(prepared, automaton=replace(automaton, reach=reached)))


def prepare_released(file: Path, data: Path | None, say: Callable[[str], None]) -> Prepared:
    """From the state dict published with the paper: normalised by the statistics of the images it is to be compared on.

    Raises
    ------
    UsageError
        No images.
    """
    from nca_edge.automaton import draw_fire
    from nca_train.released import RELEASED_CLASSES, load_released  # torch

    architecture, weights = load_released(file)
    if data is None:
        raise UsageError(f"{file}: released weights come without cells; give labelled images as --data DIR.")
    say("reading the images")
    cells = released_cells(data, architecture.size)
    mean, std = own_statistics(cells)
    groups = {g: kept for g, members in GROUPS.items() if (kept := tuple(c for c in members if c in RELEASED_CLASSES))}
    manifest = Manifest(
        file.stem, RELEASED_CLASSES, groups, architecture, RELEASED_VIEW_UM, tuple(mean.tolist()), tuple(std.tolist()),
        UNCALIBRATED.temperature, UNCALIBRATED.unsure_below, seed=0, versions={"nca_edge": nca_edge.__version__},
    )  # fmt: skip
    automaton = Automaton(architecture, weights, draw_fire(architecture, 0))
    return _with_reach(Prepared(manifest, automaton, spread(cells, GOLDEN_CELLS), spread(cells)))


def channel_means(run: Run, cells: Image8) -> tuple[float, ...]:
    """Mean of each pooled feature over the training cells that a run keeps: what stands for a channel that is taken away.

    Parameters
    ----------
    cells : (n, size, size, 3)
    """
    mean, std = (np.asarray(run.facts[key], np.float32) for key in ("mean", "std"))
    backend, kind = _exact(run), run.architecture.pool
    pooled = [pool(backend(normalised(cells[n : n + 1], mean, std)).state[0], kind) for n in range(len(cells))]
    return tuple(round(float(value), 6) for value in np.mean(pooled, axis=0))


def _with_reach(prepared: Prepared) -> Prepared:
    m, cells = prepared.automaton, prepared.normalised(prepared.cells)
    return _with_moments(replace(prepared, automaton=replace(m, reach=reach(m.architecture, m.weights, m.fire, cells))))


def _with_moments(prepared: Prepared) -> Prepared:
    """Of the golden cells, which a bundle keeps: exported again it rounds its weights as the run did."""
    m = prepared.automaton
    if m.reach is None:
        return prepared
    seen = moments(m.architecture, m.weights, m.fire, prepared.normalised(prepared.golden))
    return replace(prepared, automaton=replace(m, reach=replace(m.reach, moments=seen)))


def _automaton(run: Run, mask_step: int | None) -> Automaton:
    return Automaton(run.architecture, run.weights, run.fire, mask_step)


def _exact(run: Run) -> OnnxBackend:
    """Float32 in ONNX Runtime: as good as the reference, and quicker over a whole fold."""
    return OnnxBackend("model.onnx", build_onnx(run.architecture, run.weights, run.fire), run.architecture, threads=2)


def _check_step(mask_step: int | None, steps: int) -> None:
    if mask_step is not None and not 1 <= mask_step <= steps:
        raise UsageError(f"--mask-step {mask_step}: this automaton has steps 1 to {steps}.")


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
    temperature = fit_temperature(run.answers(_exact(run), views.images), views.labels)
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


def _golden_cells(views: Views, logits: NDArray[np.float32], classes: tuple[str, ...]) -> list[int]:
    """A validation cell of as many classes as there is room for, white cells first: the first whose two best logits lie far
    apart, so that 8 bits on another CPU name it the same, else the one where they lie farthest."""
    best = np.sort(logits, 1)
    margin = best[:, -1] - best[:, -2]
    chosen = []
    for c in range(len(classes)):
        members = np.flatnonzero(views.labels == c)
        if len(members):
            sure = members[margin[members] > GOLDEN_MARGIN]
            chosen.append(int(sure[0] if len(sure) else members[np.argmax(margin[members])]))
    return chosen[:GOLDEN_CELLS]


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
