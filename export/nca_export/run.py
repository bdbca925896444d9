"""A training run as the exporter reads it."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights
from nca_edge.backends import Backend
from nca_edge.classifier import from_8bit
from nca_edge.errors import BundleError, UsageError
from nca_edge.preprocess import normalise
from nca_edge.records import Image8
from nca_train.recipe import Recipe, parse_recipe
from nca_train.store import FACTS, WEIGHTS, read_facts

_NEEDED = {
    "recipe", "architecture", "classes", "mean", "std", "fold", "seed", "finished", "epochs_done", "training_minutes",
    "training_cells", "training_cells_per_class", "validation_cells", "cpu_threads", "device", "processes", "selected",
    "versions",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A training run as it was read and checked."""

    recipe: Recipe
    architecture: Architecture
    weights: Weights
    fire: Fire
    facts: dict[str, Any]
    """``run.json``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return tuple(self.facts["classes"])

    def answers(self, backend: Backend, views: Image8) -> NDArray[np.float32]:
        """(m, size, size, 3) views -> (m, classes) logits.

        In small batches: the states of a whole fold, which nobody asks for here, would be 7 GB at the paper's sizes.
        """
        mean, std = (np.asarray(self.facts[key], np.float32) for key in ("mean", "std"))
        batches = [views[start : start + 16] for start in range(0, len(views), 16)]
        return np.concatenate([backend(normalise(from_8bit(batch), mean, std)).logits for batch in batches])


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
    if _NEEDED - set(facts):
        raise UsageError(f"{folder}: {FACTS} has no {', '.join(sorted(_NEEDED - set(facts)))}; train again.")
    if facts["architecture"] is None:
        raise UsageError(f"{folder}: holds a teacher, which no board runs; give the run that learnt from it.")
    try:
        architecture = Architecture(**facts["architecture"])
        with np.load(io.BytesIO((folder / WEIGHTS).read_bytes()), allow_pickle=False) as archive:
            weights = {name: archive[name] for name in archive.files}
        fire = weights.pop("fire")
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{folder / WEIGHTS}: cannot be read ({error}); go on with --resume or train again.") from error
    architecture.check_weights(weights)
    architecture.check_fire(fire)
    named = len(set(facts["classes"]))
    if named != architecture.classes:
        raise BundleError(f"{folder}: {FACTS} names {named} classes, the weights have {architecture.classes}; train again.")
    return Run(parse_recipe(facts["recipe"]), architecture, weights, fire, facts)
