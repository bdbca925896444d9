"""A run that was stopped, or killed, goes on as if it had not been: the same bits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nca_edge.errors import UsageError
from nca_train.loop import Job, train
from nca_train.recipe import Recipe
from tests.workstation.synthetic import environment, quiet, rows_of, tiny_recipe

KILLED = """
import json, sys
from pathlib import Path
from nca_train import loop
from nca_train.recipe import parse_recipe

loop.SAVE_S = 0.0  # a checkpoint after every update
recipe, data, out, resume = sys.argv[1:]
job = loop.Job(parse_recipe(json.loads(recipe)), Path(data), Path(out), resume=resume == "resume", threads=1, device="cpu")
loop.train(job, print)
"""


def recipe_of(update: str, epochs: int) -> Recipe:
    recipe = tiny_recipe(epochs=epochs, optimizer="muon" if update == "half-lattice" else "adamw")
    return replace(recipe, model=replace(recipe.model, update=update))


def assert_same_run(a: Path, b: Path) -> None:
    """The same weights bit for bit, and the same numbers in every epoch."""
    with np.load(a / "weights.npz") as first, np.load(b / "weights.npz") as second:
        assert set(first.files) == set(second.files)
        assert all(first[name].tobytes() == second[name].tobytes() for name in first.files)
    for key in ("epoch", "loss", "learning_rate", "validation_accuracy", "validation_cell_accuracy", "state_largest"):
        assert [row[key] for row in rows_of(a)] == [row[key] for row in rows_of(b)]
    states = [torch.load(run / "last.pt", weights_only=True) for run in (a, b)]
    for part in ("model", "averaged"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])


def killed_while_training(job: Job) -> int:
    """Start training in a process of its own, kill it a few checkpoints later; returns the updates that the last one holds."""
    checkpoint, resume = job.out / "last.pt", "resume" if job.resume else "begin"
    arguments = [json.dumps(job.recipe.to_json()), str(job.data), str(job.out), resume]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        seen, wanted, deadline = set(), random.randint(1, 4), time.monotonic() + 100
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while len(seen) < wanted and process.poll() is None and time.monotonic() < deadline:
            if checkpoint.exists() and (now := checkpoint.stat().st_mtime_ns) != before:
                seen.add(now)
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.03))
    finally:
        process.kill()
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    updates: int = torch.load(checkpoint, weights_only=True)["update"]
    return updates


@pytest.mark.slow
def test_a_run_killed_twice_equals_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of("bernoulli", epochs=3)
    whole = train(Job(recipe, data, tmp_path / "whole", device="cpu"), quiet)
    job = Job(recipe, data, tmp_path / "killed", device="cpu")
    first = killed_while_training(job)
    second = killed_while_training(replace(job, resume=True))
    last = json.loads((whole / "run.json").read_text("utf-8"))["updates_done"]
    assert 0 < first < second < last
    said: list[str] = []
    train(replace(job, resume=True), said.append)
    assert f"going on after {second} of {last} updates" in said
    assert_same_run(whole, job.out)


def test_a_run_stopped_within_an_epoch_equals_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of("half-lattice", epochs=1)
    whole = train(Job(recipe, data, tmp_path / "whole", device="cpu"), quiet)
    parts = Job(recipe, data, tmp_path / "parts", max_minutes=1e-9, device="cpu")
    train(parts, quiet)
    for done in (1, 2, 3):  # the time is up after one update each
        facts = json.loads((parts.out / "run.json").read_text("utf-8"))
        assert not facts["finished"] and (facts["epochs_done"], facts["updates_done"]) == (0, done)
        assert rows_of(parts.out) == [] and facts["last"] is None and (parts.out / "weights.npz").exists()
        torch.rand(7)  # whatever else drew numbers in between
        train(replace(parts, resume=True), quiet)
    train(replace(parts, resume=True, max_minutes=10.0), quiet)
    assert_same_run(whole, parts.out)


def test_a_resume_within_the_first_epoch_keeps_seed_and_fold(data: Path, tmp_path: Path) -> None:
    """Another fold would validate on cells that it was trained on."""
    job = Job(tiny_recipe(), data, tmp_path / "run", max_minutes=1e-9, device="cpu")
    train(job, quiet)
    (job.out / "run.json").unlink()  # as a kill leaves it
    for wrong, said in ((replace(job, seed=5), "another --seed"), (replace(job, fold=2), "another --fold")):
        with pytest.raises(UsageError, match=said):
            train(replace(wrong, resume=True), quiet)
