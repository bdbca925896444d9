"""The training loop: balanced draws, augmentation, averaged weights; stopped at any moment, it goes on as if it had not."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nca_edge.automaton import draw_fire
from nca_edge.errors import NcaEdgeError, UsageError
from nca_train import draws
from nca_train.augment import Sizes, augment
from nca_train.cache import CACHE, cached_cells
from nca_train.data import Cells
from nca_train.model import NCA
from nca_train.objective import objective
from nca_train.optimizer import Optimizer, average
from nca_train.parallel import Team, team
from nca_train.patches import ARTEFACT
from nca_train.recipe import Recipe
from nca_train.record import Record
from nca_train.store import CHECKPOINT, make_folder
from nca_train.teacher import Teacher, load_teacher

SAVE_S = 120.0
"""A checkpoint at least this often: a power cut costs no more."""


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
    """Training stops when this has passed, reading the data included; it can be resumed."""
    threads: int = 0
    """0: torch's own choice."""
    init: Path | None = None
    """Run whose weights this one begins with; None: random ones."""
    device: str = "auto"
    teacher: Path | None = None
    """Run of the teacher that a recipe with ``[distill]`` learns from."""


Tell = Callable[[int, int, str], None]
"""Updates done, updates in all, what to say of them."""


def train(job: Job, say: Callable[[str], None], tell: Tell = lambda done, total, text: None) -> Path:
    """Train, or go on training; returns the run folder with ``weights.npz``, ``metrics.jsonl``, plots and ``run.json``.

    Raises
    ------
    UsageError
        Wrong data, an existing run without ``resume``, a checkpoint of another recipe, fold, seed or data.
    StorageError
        The run folder cannot be written.
    """
    deadline = time.monotonic() + job.max_minutes * 60
    _check(job)
    if job.threads:
        torch.set_num_threads(job.threads)
    with team(job.device) as mates:
        speak = say if mates.leads else lambda text: None
        trainer = Trainer(job, _cells(job, mates, speak), mates)
        speak(
            f"{len(trainer.cells.wide)} training and {len(trainer.cells.views)} validation cells of "
            f"{len(trainer.cells.classes)} classes, {sum(p.numel() for p in trainer.model.parameters()):,} parameters"
        )
        if job.resume and (job.out / CHECKPOINT).exists():
            trainer.record.restore(trainer)
            speak(f"going on after {trainer.update} of {trainer.updates} updates")
        elif job.init is not None:
            trainer.record.begin_from(trainer, job.init)
        trainer.record.begin(trainer)
        if job.recipe.distill is not None and trainer.teacher is None:
            speak("learning from the labels alone; better: `nca-edge train teacher`, then give its run as --teacher RUN")
        while not trainer.finished:
            if trainer.advance(deadline, speak, tell if mates.leads else lambda done, total, text: None):
                break
        trainer.record.publish(trainer)  # once more: whoever was stopped between a checkpoint and these gets them now
        mates.wait()
    return job.out


def _cells(job: Job, mates: Team, say: Callable[[str], None]) -> Cells:
    """The cells, from the cache; the leader fills it while the others wait."""
    wrong: NcaEdgeError | None = None
    for turn in (True, False):
        if mates.leads == turn and wrong is None:
            try:
                cells = cached_cells(job.recipe, job.data, (job.fold, job.seed), job.out.parent / CACHE, say)
            except NcaEdgeError as error:
                wrong = error
        if mates.agree(wrong is not None):
            with contextlib.suppress(OSError):
                job.out.rmdir()  # an empty folder would be taken for a run
            raise wrong or UsageError("the leading process could not read the data; see what it says.")
    return cells


def _check(job: Job) -> None:
    checkpoint = job.out / CHECKPOINT
    if checkpoint.exists() and not job.resume:
        raise UsageError(f"{job.out}: holds a run; add --resume to go on with it or choose another --out.")
    if job.resume and not job.out.is_dir():
        raise UsageError(f"{job.out}: there is no run to go on with; check --out or leave --resume out.")
    if not job.max_minutes > 0:
        raise UsageError(f"--max-minutes must be above 0, not {job.max_minutes:g}.")
    name = job.recipe.name
    if job.recipe.distill is None and job.teacher is not None:
        raise UsageError(f"--teacher: recipe {name} has no table distill; add one or leave --teacher out.")
    if job.threads < 0:
        raise UsageError("--threads must be 1 or more, or 0 for torch's own choice.")
    make_folder(job.out)


class Trainer:
    """Everything that changes while a model learns."""

    def __init__(self, job: Job, cells: Cells, mates: Team) -> None:
        self.job, self.cells, self.team = job, cells, mates
        self.options = job.recipe.train
        if len(cells.wide) < self.options.batch:
            raise UsageError(
                f"{job.data}: {len(cells.wide)} training cells are fewer than train.batch = {self.options.batch}; lower it."
            )
        self.groups = mates.share(self.options.batch, draws.GROUP)
        torch.manual_seed(job.seed)
        self.model, self.averaged = (self._network().to(mates.device) for _ in range(2))
        self.averaged.load_state_dict(self.model.state_dict())
        self.averaged.eval()
        self.learner = mates.wrap(self.model)
        self.optimizer = Optimizer(self.model, self.options)
        self.fire = draw_fire(self.model.architecture, job.seed) if isinstance(self.model, NCA) else None
        self.teacher: Teacher | None = None
        self.taught_by: dict[str, Any] | None = None
        if job.teacher is not None:
            self.teacher, self.taught_by = load_teacher(job.teacher, cells, job.recipe, job.fold)
            self.teacher.to(mates.device)
        self.update = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.history: list[dict[str, Any]] = []
        self.per_epoch = len(cells.wide) // self.options.batch
        counts = np.bincount(cells.kinds, minlength=len(cells.allowed)).astype(np.float64)
        self.draw_weights = torch.from_numpy(counts**-self.options.balance)[torch.from_numpy(cells.kinds)]
        self.order = (-1, np.empty(0, np.int64))
        self.mean, self.std = (torch.from_numpy(array).to(mates.device) for array in (cells.mean, cells.std))
        self.record = Record(job)

    def _network(self) -> NCA | Teacher:
        recipe, cells = self.job.recipe, self.cells
        if recipe.teacher is not None:
            mean, std = torch.from_numpy(cells.mean), torch.from_numpy(cells.std)
            return Teacher(len(cells.classes), recipe.teacher.side, mean, std)
        return NCA(recipe.automaton.architecture(len(cells.classes)), bf16=self.options.bf16)

    @property
    def updates(self) -> int:
        """Updates that the recipe asks for."""
        return self.options.epochs * self.per_epoch

    @property
    def finished(self) -> bool:
        """Whether all updates were made."""
        return self.update >= self.updates

    def learning_rate(self) -> float:
        """Linear warm-up, then a decay by a factor or along a cosine down to a hundredth."""
        options = self.options
        if self.update < options.warmup_updates:
            return options.learning_rate * (self.update + 1) / options.warmup_updates
        since = self.update - options.warmup_updates
        if options.decay:
            return float(options.learning_rate * options.decay**since)
        done = since / max(1, self.updates - options.warmup_updates)
        return options.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def normalised(self, views: Tensor) -> Tensor:
        """(n, size, size, 3), 0..1 -> as the network sees it."""
        return (views - self.mean) / self.std

    def advance(self, deadline: float, say: Callable[[str], None], tell: Tell) -> bool:
        """Learn until the epoch ends or the time is up, and save; returns whether the time is up."""
        started = saved = time.monotonic()
        first, late = self.update, False
        end = (self.update // self.per_epoch + 1) * self.per_epoch
        while self.update < end:
            self.losses.append(self.learn())
            now = time.monotonic()
            rate = (self.update - first) / (now - started)
            minutes = (self.updates - self.update) / rate / 60
            tell(self.update, self.updates, f"{rate * self.options.batch:.0f} images/s, {minutes:.0f} min left")
            late = self.team.agree(now >= deadline)
            if late:
                break
            if self.update < end and self.team.agree(now - saved >= SAVE_S):
                self.seconds, started, first = self.seconds + now - started, now, self.update
                self.record.save(self)
                saved = now
        self.seconds += time.monotonic() - started
        if self.update == end:
            self.close_epoch((self.update - first) * self.options.batch / (time.monotonic() - started), say)
        self.record.save(self)
        if self.update == end:
            self.record.publish(self)
        return late

    def batch(self) -> tuple[Tensor, Tensor]:
        """This process's part of the update's batch: (n, size, size, 3) normalised images and (n, classes) bool."""
        cells, recipe, device = self.cells, self.job.recipe, self.team.device
        epoch, within = divmod(self.update, self.per_epoch)
        if self.order[0] != epoch:
            self.order = (epoch, draws.order(self.job.seed, epoch, self.draw_weights))
        chosen = self.order[1][within * self.options.batch : (within + 1) * self.options.batch]
        sizes = Sizes(cells.wide_um, recipe.view.view_um, recipe.size)
        images, kinds = [], []
        for group in self.groups:
            mine = chosen[group * draws.GROUP : (group + 1) * draws.GROUP]
            generator = draws.augmentation(self.job.seed, self.update, group, device)
            wide, own = (torch.from_numpy(array[mine]).to(device) for array in (cells.wide, cells.own_um))
            images.append(augment(wide, sizes, recipe.augment, generator, own))
            kinds.append(cells.kinds[mine])
        return self.normalised(torch.cat(images)), torch.from_numpy(cells.allowed[np.concatenate(kinds)]).to(device)

    def schedule(self, which: int) -> Tensor | None:
        """This process's part of a schedule of this update; a teacher has none."""
        if not isinstance(self.model, NCA):
            return None
        fire = draws.schedule(self.model.architecture, self.job.seed, self.update, which, self.options.batch)
        if fire.ndim == 1:
            return fire
        return fire[:, self.groups.start * draws.GROUP : self.groups.stop * draws.GROUP].to(self.team.device)

    def learn(self) -> float:
        """One update of the weights and of their average; returns the loss of the whole batch."""
        options = self.options
        images, allowed = self.batch()
        target = None
        if options.consistency and self.update >= options.consistency_from * self.updates:
            with torch.no_grad():
                target = self.averaged(images, self.schedule(1))[0][-1]
        taught = None
        if self.teacher is not None and self.job.recipe.distill is not None:
            device = self.team.device.type
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=self.options.bf16):
                taught = self.job.recipe.distill.weight, self.teacher(images)[0][-1].float()
        self.model.train()
        draws.dropout(self.job.seed, self.update, self.team.rank)
        self.optimizer.zero_grad()
        answers, state = self.learner(images, self.schedule(0), options.exits, options.checkpoint_steps)
        loss = objective(answers, state, allowed, target, options, taught).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        if torch.isfinite(norm):  # an overflowing update is skipped, not learnt
            self.optimizer.step(self.learning_rate())
        self.update += 1
        average(self.averaged, self.model, min(options.ema, (1 + self.update) / (10 + self.update)))
        return self.team.mean(loss.item())

    def close_epoch(self, images_per_s: float, say: Callable[[str], None]) -> None:
        """Validate, and write the epoch down."""
        finite = [loss for loss in self.losses if math.isfinite(loss)]
        epoch = self.update // self.per_epoch
        if not finite:
            raise UsageError(f"epoch {epoch}: no loss was finite; lower train.learning_rate and start again.")
        self.losses = []
        if not self.team.leads:
            return
        answers, largest = self.answers()
        right = answers == self.cells.view_labels
        cells = right[np.array(self.cells.classes)[self.cells.view_labels] != ARTEFACT]
        row = {
            "epoch": epoch, "loss": float(np.mean(finite)), "validation_accuracy": float(right.mean()),
            "validation_cell_accuracy": float(cells.mean()), "state_largest": largest,
            "learning_rate": self.learning_rate(), "images_per_s": images_per_s, "seconds": self.seconds,
        }  # fmt: skip
        self.history.append(row)
        self.record.select(self, answers)
        say(
            f"epoch {epoch}/{self.options.epochs}: loss {row['loss']:.3f}, validation {row['validation_accuracy']:.3f} "
            f"(cells {row['validation_cell_accuracy']:.3f}), {images_per_s:.0f} images/s"
        )

    @torch.no_grad()
    def answers(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], float]:
        """The averaged weights' answer to each validation cell, and the largest state value."""
        answers, largest = [], 0.0
        for start in range(0, len(self.cells.views), 64):
            views = torch.from_numpy(self.cells.views[start : start + 64]).to(self.team.device).float() / 255
            (logits,), state = self.averaged(self.normalised(views), self.fire)
            answers.append(logits.argmax(1).cpu().numpy())
            largest = max(largest, float(state.abs().max()))
        return np.concatenate(answers), min(largest, float(np.finfo(np.float32).max))
