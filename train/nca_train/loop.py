"""The training loop: balanced draws, augmentation, averaged weights, one atomic checkpoint an epoch."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import nca_edge
from nca_edge.automaton import draw_fire
from nca_edge.errors import UsageError
from nca_train.augment import augment
from nca_train.data import ARTEFACT, Cells, load_cells
from nca_train.model import NCA
from nca_train.recipe import Recipe
from nca_train.store import (
    CHECKPOINT,
    FACTS,
    METRICS,
    WEIGHTS,
    make_folder,
    read_checkpoint,
    read_facts,
    replace,
    save_arrays,
)


@dataclass(frozen=True, slots=True)
class Job:
    """One training run as the user asked for it."""

    recipe: Recipe
    data: Path
    """Folder of labelled images."""
    out: Path
    """Run folder."""
    fold: int = 3
    seed: int = 0
    resume: bool = False
    max_minutes: float = math.inf
    """Training stops after the epoch that passes this; one epoch is always made."""
    threads: int = 0
    """0: torch's own choice."""
    init: Path | None = None
    """Run whose weights this one begins with; None: random ones."""


def train(job: Job, say: Callable[[str], None]) -> Path:
    """Train, or go on training; returns the run folder with ``weights.npz``, ``metrics.jsonl`` and ``run.json``.

    Raises
    ------
    UsageError
        Wrong data, an existing run without ``resume``, a checkpoint of another recipe, fold, seed or data.
    StorageError
        The run folder cannot be written.
    """
    checkpoint = job.out / CHECKPOINT
    if checkpoint.exists() and not job.resume:
        raise UsageError(f"{job.out}: holds a run; add --resume to go on with it or choose another --out.")
    if job.resume and not job.out.is_dir():
        raise UsageError(f"{job.out}: there is no run to go on with; check --out or leave --resume out.")
    if not job.max_minutes > 0:
        raise UsageError(f"--max-minutes must be above 0, not {job.max_minutes:g}.")
    if job.threads:
        torch.set_num_threads(job.threads)
    make_folder(job.out)  # before minutes of reading, not after them
    try:
        trainer = Trainer(job, load_cells(job.recipe, job.data, job.fold, job.seed))
    except UsageError:
        with contextlib.suppress(OSError):
            job.out.rmdir()  # a folder with anything in it stays
        raise
    cells = trainer.cells
    if job.init is not None and not checkpoint.exists():
        trainer.begin_from(job.init)
    say(f"{len(cells.wide)} training and {len(cells.views)} validation cells of {len(cells.classes)} classes")
    if job.resume and checkpoint.exists():
        trainer.restore(checkpoint)
        say(f"going on after epoch {trainer.epoch}")
    deadline = time.monotonic() + job.max_minutes * 60
    while trainer.epoch < job.recipe.train.epochs:
        say(trainer.one_epoch())
        trainer.save()
        if time.monotonic() >= deadline:
            break
    trainer.publish()  # once more: whoever was stopped between a checkpoint and its derived files gets them now
    return job.out


class Trainer:
    """Everything that changes while a model learns."""

    def __init__(self, job: Job, cells: Cells) -> None:
        torch.manual_seed(job.seed)
        self.job, self.cells = job, cells
        options = job.recipe.train
        if len(cells.wide) < options.batch:
            raise UsageError(
                f"{job.data}: {len(cells.wide)} training cells are fewer than train.batch = {options.batch}; lower it."
            )
        architecture = job.recipe.model.architecture(len(cells.classes))
        self.model = NCA(architecture, bf16=options.bf16)
        self.averaged = NCA(architecture)
        self.averaged.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay
        )
        self.fire = draw_fire(architecture, job.seed)
        self.epoch = self.update = 0
        self.seconds = 0.0
        self.begun_from: dict[str, Any] | None = None
        self.history: list[dict[str, Any]] = []
        counts = np.bincount(cells.wide_labels, minlength=len(cells.classes)).astype(np.float64)
        self.draw_weights = torch.from_numpy(counts**-options.balance)[torch.from_numpy(cells.wide_labels)]
        self.updates_per_epoch = len(cells.wide) // options.batch

    def begin_from(self, run: Path) -> None:
        """Take over the weights of another run of the same data and sizes.

        Raises
        ------
        UsageError
            It holds no such run.
        """
        facts, mine = read_facts(run) or {}, json.loads(json.dumps(self.facts()))
        if any(facts.get(key) != mine[key] for key in ("architecture", "classes", "mean", "std", "fold")):
            raise UsageError(f"--init {run}: holds no run of the same data, fold, seed and sizes; give another.")
        with np.load(run / WEIGHTS, allow_pickle=False) as archive:
            weights = {name: archive[name] for name in archive.files if name != "fire"}
        self.model.load_weights(weights)
        self.averaged.load_weights(weights)
        self.begun_from = {key: facts[key] for key in ("recipe", "epochs_done", "training_minutes", "last")}

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine down to a hundredth."""
        options = self.job.recipe.train
        if self.update < options.warmup_updates:
            return options.learning_rate * (self.update + 1) / options.warmup_updates
        total = options.epochs * self.updates_per_epoch
        done = (self.update - options.warmup_updates) / max(1, total - options.warmup_updates)
        return options.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def normalised(self, views: Tensor) -> Tensor:
        """(n, size, size, 3), 0..1 -> as the network sees it."""
        return (views - torch.from_numpy(self.cells.mean)) / torch.from_numpy(self.cells.std)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, and a price on a state that leaves its range."""
        options = self.job.recipe.train
        logits, state = self.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
        if options.overflow_weight:
            loss = loss + options.overflow_weight * F.relu(state.abs() - options.overflow_bound).mean()
        return loss

    def one_epoch(self) -> str:
        """Draw as many cells as there are, learn from them, validate; returns a line for a person."""
        started = time.monotonic()
        recipe, cells = self.job.recipe, self.cells
        generator = torch.Generator().manual_seed(self.job.seed * 100_003 + self.epoch)
        torch.manual_seed(self.job.seed * 100_003 + self.epoch)  # augmentation and fire: the same after a resume
        order = torch.multinomial(self.draw_weights, len(cells.wide), replacement=True, generator=generator).numpy()
        self.model.train()
        losses = []
        for start in range(0, self.updates_per_epoch * recipe.train.batch, recipe.train.batch):
            chosen = order[start : start + recipe.train.batch]
            wide = torch.from_numpy(cells.wide[chosen])
            size = self.model.architecture.size
            images = self.normalised(augment(wide, cells.wide_um, recipe.view.view_um, size, recipe.augment))
            losses.append(self.learn(images, torch.from_numpy(cells.wide_labels[chosen])))
        finite = [loss for loss in losses if math.isfinite(loss)]
        if not finite:
            raise UsageError(f"epoch {self.epoch + 1}: no loss was finite; lower train.learning_rate and start again.")
        self.epoch += 1
        took = time.monotonic() - started
        self.seconds += took
        accuracy, without_artefact, largest = self.validate(limit=1200 if self.epoch < recipe.train.epochs else None)
        row = {
            "epoch": self.epoch, "loss": float(np.mean(finite)), "validation_accuracy": accuracy,
            "validation_cell_accuracy": without_artefact, "state_largest": largest, "learning_rate": self.learning_rate(),
            "images_per_s": len(losses) * recipe.train.batch / took, "seconds": self.seconds,
        }  # fmt: skip
        self.history.append(row)
        left = (recipe.train.epochs - self.epoch) * took / 60
        return (
            f"epoch {self.epoch}/{recipe.train.epochs}: loss {row['loss']:.3f}, validation {accuracy:.3f} "
            f"(cells {without_artefact:.3f}), {row['images_per_s']:.0f} images/s, {left:.0f} min left"
        )

    def learn(self, images: Tensor, labels: Tensor) -> float:
        """One update of the weights and of their average."""
        options = self.job.recipe.train
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(images, labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        if torch.isfinite(norm):  # an overflowing update is skipped, not learnt
            self.optimizer.step()
        self.update += 1
        decay = min(options.ema, (1 + self.update) / (10 + self.update))
        with torch.no_grad():
            for mean, current in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(current, 1 - decay)
        return loss.item()

    @torch.no_grad()
    def validate(self, limit: int | None) -> tuple[float, float, float]:
        """Accuracy over all validation cells, over the cells that are no artefact, and the largest state value."""
        self.averaged.eval()
        every = max(1, len(self.cells.views) // limit) if limit else 1
        views, labels = self.cells.views[::every], self.cells.view_labels[::every]
        answers, largest = [], 0.0
        for start in range(0, len(views), 64):
            images = self.normalised(torch.from_numpy(views[start : start + 64]).float() / 255)
            logits, state = self.averaged(images, self.fire)
            answers.append(logits.argmax(1).numpy())
            largest = max(largest, float(state.abs().max()))
        right = np.concatenate(answers) == labels
        cells = right[np.array(self.cells.classes)[labels] != ARTEFACT]
        accuracy = float(right.mean())
        return accuracy, float(cells.mean()) if len(cells) else accuracy, min(largest, float(np.finfo(np.float32).max))

    def save(self) -> None:
        """Write the checkpoint, then what is derived from it; each file is whole or the one before."""
        state = {
            "model": self.model.state_dict(), "averaged": self.averaged.state_dict(), "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch, "update": self.update, "seconds": self.seconds, "history": self.history,
            "recipe": json.dumps(self.job.recipe.decisive(), sort_keys=True),
        }  # fmt: skip
        replace(self.job.out / CHECKPOINT, lambda path: torch.save(state, path))
        self.publish()

    def publish(self) -> None:
        """Write the averaged weights, the metrics and ``run.json``: all that the exporter and a reader need of the run."""
        weights = self.averaged.weights()
        replace(self.job.out / WEIGHTS, lambda path: save_arrays(path, {**weights, "fire": self.fire}))
        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.history)
        replace(self.job.out / METRICS, lambda path: path.write_text(lines, "utf-8"))
        facts = json.dumps(self.facts(), indent=1, allow_nan=False)
        replace(self.job.out / FACTS, lambda path: path.write_text(facts, "utf-8"))

    def restore(self, checkpoint: Path) -> None:
        """Go on where a checkpoint stopped.

        Raises
        ------
        UsageError
            It is damaged, or belongs to another recipe, fold, seed or data.
        """
        state = read_checkpoint(checkpoint)
        if state["recipe"] != json.dumps(self.job.recipe.decisive(), sort_keys=True):
            raise UsageError(f"{checkpoint}: was trained with another recipe; go on with that one or choose another --out.")
        mine, before = json.loads(json.dumps(self.facts())), read_facts(self.job.out) or {}
        for key, what in (("fold", "--fold"), ("seed", "--seed"), *((k, "data") for k in ("classes", "mean", "std"))):
            if key in before and before[key] != mine[key]:  # another fold would validate on cells that it was trained on
                raise UsageError(f"{checkpoint}: was trained with another {what}; go on with that one or choose another --out.")
        try:
            self.model.load_state_dict(state["model"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"{checkpoint}: does not fit this model and data; choose another --out.") from error
        self.epoch, self.update, self.seconds = state["epoch"], state["update"], state["seconds"]
        self.history = state["history"]
        self.begun_from = before.get("begun_from")

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` holds."""
        cells = self.cells
        return {
            "recipe": self.job.recipe.to_json(), "begun_from": self.begun_from, "classes": cells.classes,
            "architecture": asdict(self.model.architecture), "mean": cells.mean.tolist(), "std": cells.std.tolist(),
            "fold": self.job.fold, "seed": self.job.seed,
            "finished": self.epoch >= self.job.recipe.train.epochs, "epochs_done": self.epoch,
            "training_minutes": round(self.seconds / 60, 1), "training_cells": len(cells.wide),
            "training_cells_per_class": {c: int((cells.wide_labels == i).sum()) for i, c in enumerate(cells.classes)},
            "validation_cells": len(cells.views), "last": self.history[-1] if self.history else None,
            "versions": {"nca_edge": nca_edge.__version__, "torch": torch.__version__, "python": platform.python_version()},
            "cpu_threads": torch.get_num_threads(),
        }  # fmt: skip
