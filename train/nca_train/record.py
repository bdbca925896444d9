"""What a run writes down: checkpoint, averaged weights, metrics, facts; and how a run goes on from them."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import nca_edge
from nca_edge.automaton import Weights
from nca_edge.classifier import from_8bit
from nca_edge.errors import UsageError
from nca_edge.preprocess import cell_view
from nca_edge.records import Image8
from nca_train.model import NCA
from nca_train.store import (
    CALIBRATION,
    CHECKPOINT,
    FACTS,
    METRICS,
    WEIGHTS,
    read_checkpoint,
    read_facts,
    replace,
    save_arrays,
)

if TYPE_CHECKING:
    from nca_train.data import Cells
    from nca_train.loop import Job, Trainer

CALIBRATION_CELLS = 64


class Record:
    """The run folder of one job; only the leading process writes."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.begun_from: dict[str, Any] | None = None
        self.best: Weights | None = None
        """Averaged weights of the epoch that validated best."""
        self.best_row: dict[str, Any] | None = None
        self.best_answers: list[int] = []
        self.drawn: tuple[int, int] | None = None
        """Epochs done and epoch selected when the pictures were drawn."""

    def begin(self, trainer: Trainer) -> None:
        """Write down what the run is, which a resume checks, and training cells as the device sees them, for int8 export."""
        if trainer.team.leads:
            views = calibration_views(trainer.cells, self.job.recipe.view.view_um, self.job.recipe.size)
            replace(self.job.out / CALIBRATION, lambda path: save_arrays(path, {"views": views}))
            self._write_facts(trainer)

    def select(self, trainer: Trainer, answers: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Keep the averaged weights if they validate best so far."""
        row = trainer.history[-1]
        if self.best_row is None or row["validation_cell_accuracy"] >= self.best_row["validation_cell_accuracy"]:
            self.best_row, self.best, self.best_answers = row, trainer.averaged.weights(), answers.tolist()

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint; it is whole, or the one before is."""
        if not trainer.team.leads:
            return
        state = {
            "model": trainer.model.state_dict(), "averaged": trainer.averaged.state_dict(),
            "optimizer": trainer.optimizer.state_dict(), "update": trainer.update, "seconds": trainer.seconds,
            "losses": trainer.losses, "history": trainer.history,
            "recipe": json.dumps(self.job.recipe.decisive(), sort_keys=True),
            "best": {name: torch.from_numpy(array) for name, array in (self.best or {}).items()},
            "best_row": self.best_row, "best_answers": self.best_answers, "identity": self._identity(trainer),
        }  # fmt: skip
        replace(self.job.out / CHECKPOINT, lambda path: torch.save(state, path))

    def publish(self, trainer: Trainer) -> None:
        """Write the best averaged weights, the metrics and ``run.json``: all that the exporter and a reader need of the run."""
        if not trainer.team.leads:
            return
        weights = self.best or trainer.averaged.weights()
        fire = {} if trainer.fire is None else {"fire": trainer.fire}
        replace(self.job.out / WEIGHTS, lambda path: save_arrays(path, {**weights, **fire}))
        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in trainer.history)
        replace(self.job.out / METRICS, lambda path: path.write_text(lines, "utf-8"))
        self._write_facts(trainer)
        shown = (len(trainer.history), self.best_row["epoch"] if self.best_row else 0)
        if trainer.history and shown != self.drawn:
            from nca_train.plots import draw_run  # here alone: matplotlib takes a second to load

            cells, answers, self.drawn = trainer.cells, np.array(self.best_answers, np.int64), shown
            draw_run(self.job.out, trainer.history, cells.classes, cells.view_labels, answers, self.best_row)

    def _write_facts(self, trainer: Trainer) -> None:
        facts = json.dumps(self.facts(trainer), indent=1, allow_nan=False)
        replace(self.job.out / FACTS, lambda path: path.write_text(facts, "utf-8"))

    def begin_from(self, trainer: Trainer, run: Path) -> None:
        """Take over the weights of another run of the same data and sizes.

        ``hidden`` may have grown: the new hidden channels begin with random inputs and without a say (W2 is 0 there), so that
        the answers are at first the same (Chen et al. 2016, Net2Net).

        Raises
        ------
        UsageError
            It holds no such run.
        """
        facts, mine = read_facts(run) or {}, json.loads(json.dumps(self.facts(trainer)))
        sizes = {**mine["architecture"], "hidden": (facts.get("architecture") or {}).get("hidden")}
        same = all(facts.get(key) == mine[key] for key in ("classes", "fold")) and facts.get("architecture") == sizes
        if not same or sizes["hidden"] > mine["architecture"]["hidden"]:
            raise UsageError(f"--init {run}: holds no run of the same classes, fold and sizes; give another.")
        weights = trainer.model.weights()
        with np.load(run / WEIGHTS, allow_pickle=False) as archive:
            for name, whole in weights.items():
                part = archive[name]
                whole[tuple(slice(0, n) for n in part.shape)] = part
        trainer.model.load_weights(weights)
        trainer.averaged.load_weights(weights)
        kept = ("recipe", "seed", "epochs_done", "training_minutes", "selected", "begun_from", "taught_by")
        self.begun_from = {key: facts[key] for key in kept}

    def restore(self, trainer: Trainer) -> None:
        """Go on where the checkpoint stopped.

        Raises
        ------
        UsageError
            It is damaged, or belongs to another recipe, fold, seed or data.
        """
        checkpoint = self.job.out / CHECKPOINT
        state = read_checkpoint(checkpoint)
        if state["recipe"] != json.dumps(self.job.recipe.decisive(), sort_keys=True):
            raise UsageError(f"{checkpoint}: was trained with another recipe; go on with that one or choose another --out.")
        mine, before = self._identity(trainer), state["identity"]
        for key, what in (("fold", "--fold"), ("seed", "--seed"), ("data", "data"), ("teacher", "--teacher")):
            if before.get(key) != mine[key]:  # another fold would validate on cells that it was trained on
                raise UsageError(f"{checkpoint}: was trained with another {what}; go on with that one or choose another --out.")
        try:
            trainer.model.load_state_dict(state["model"])
            trainer.averaged.load_state_dict(state["averaged"])
            trainer.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"{checkpoint}: does not fit this model and data; choose another --out.") from error
        trainer.update, trainer.seconds = state["update"], state["seconds"]
        trainer.losses, trainer.history = state["losses"], state["history"]
        self.best = {name: tensor.numpy() for name, tensor in state["best"].items()} or None
        self.best_row, self.best_answers = state["best_row"], state["best_answers"]
        self.begun_from = before["begun_from"]

    def _identity(self, trainer: Trainer) -> dict[str, Any]:
        """What a resume must share with the beginning, besides the recipe; and what it began with."""
        facts: dict[str, Any] = json.loads(json.dumps(self.facts(trainer)))
        data = [facts[key] for key in ("classes", "mean", "std", "training_cells", "validation_cells")]
        return {
            "fold": self.job.fold, "seed": self.job.seed, "data": data, "begun_from": self.begun_from,
            "teacher": trainer.taught_by,
        }  # fmt: skip

    def facts(self, trainer: Trainer) -> dict[str, Any]:
        """What ``run.json`` holds."""
        cells, job = trainer.cells, self.job
        single = [int((cells.kinds == i).sum()) for i in range(len(cells.allowed))]
        return {
            "recipe": job.recipe.to_json(), "begun_from": self.begun_from, "taught_by": trainer.taught_by,
            "classes": cells.classes,
            "architecture": asdict(trainer.model.architecture) if isinstance(trainer.model, NCA) else None,
            "mean": cells.mean.tolist(), "std": cells.std.tolist(),
            "fold": job.fold, "seed": job.seed, "finished": trainer.finished,
            "epochs_done": trainer.update // trainer.per_epoch, "updates_done": trainer.update,
            "training_minutes": round(trainer.seconds / 60, 1), "training_cells": len(cells.wide),
            "training_cells_per_class": dict(zip(cells.classes, single, strict=False)),
            "training_cells_of_several_classes": sum(single[len(cells.classes) :]),
            "validation_cells": len(cells.views), "selected": self.best_row,
            "last": trainer.history[-1] if trainer.history else None,
            "versions": {"nca_edge": nca_edge.__version__, "torch": torch.__version__, "python": platform.python_version()},
            "device": device_name(trainer.team.device), "processes": trainer.team.size,
            "cpu_threads": torch.get_num_threads(),
        }  # fmt: skip


def device_name(device: torch.device) -> str:
    """``cpu``, or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def calibration_views(cells: Cells, view_um: float, size: int) -> Image8:
    """(64, size, size, 3) training cells through the device's pixel contract, spread evenly over the data."""
    chosen = np.linspace(0, len(cells.wide) - 1, min(CALIBRATION_CELLS, len(cells.wide))).astype(int)
    side = cells.wide.shape[1]
    scale = cells.wide_um / side
    views = [cell_view(from_8bit(cells.wide[i]), (side / 2, side / 2), scale, view_um, size) for i in chosen]
    return np.round(np.stack(views) * 255).astype(np.uint8)
