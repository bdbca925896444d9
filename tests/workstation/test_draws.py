"""Every draw belongs to (seed, update, group): not to what was drawn before, nor to who draws it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nca_edge.automaton import Architecture
from nca_train import draws
from nca_train.data import Cells, load_cells
from nca_train.loop import Job, Trainer
from nca_train.parallel import Team
from tests.workstation.synthetic import tiny_recipe

HALF = Architecture(grid=8, fold=1, channels=8, hidden=4, steps=16, pool="max", update="half-lattice", head=4, classes=2)
BERNOULLI = replace(HALF, update="bernoulli")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cells(data: Path) -> Cells:
    return load_cells(tiny_recipe(), data, 3, 0)


def trainer_of(cells: Cells, update: str, seed: int = 5) -> Trainer:
    """At its third update, with two groups a batch."""
    recipe = tiny_recipe(batch=2 * draws.GROUP)
    job = Job(replace(recipe, model=replace(recipe.model, update=update)), Path("data"), Path("run"), seed=seed)
    trainer = Trainer(job, cells, Team(0, 1, CPU))
    trainer.update = 2
    return trainer


def test_orders() -> None:
    weights = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = draws.order(1, 4, weights)
    torch.rand(3)  # whatever else drew numbers in between
    assert (draws.order(1, 4, weights) == first).all() and len(first) == 50
    assert (draws.order(2, 4, weights) != first).any() and (draws.order(1, 5, weights) != first).any()


def test_an_order_follows_its_weights() -> None:
    weights = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).repeat(2000)
    counts = np.bincount(draws.order(0, 0, weights) % 3, minlength=3)
    assert counts[0] == 0 and counts[2] / counts[1] == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("a", [HALF, BERNOULLI], ids=["half-lattice", "bernoulli"])
def test_schedules(a: Architecture) -> None:
    first = draws.schedule(a, 1, 2, 0, 16)
    assert torch.equal(draws.schedule(a, 1, 2, 0, 16), first)
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert not torch.equal(draws.schedule(a, *other, 16), first)


def test_half_lattice_visits_every_phase_in_four_steps() -> None:
    assert all(sorted(four) == [0, 1, 2, 3] for four in draws.schedule(HALF, 0, 0, 0, 8).view(4, 4).tolist())


def test_bernoulli_lets_half_of_the_grid_cells_of_each_image_fire() -> None:
    fire = draws.schedule(BERNOULLI, 0, 0, 0, 16)
    assert fire.shape == (16, 16, 8, 8) and fire.dtype == torch.bool
    share = fire.float().mean(dim=(0, 2, 3))  # of 1024 draws of each image
    assert bool(((share - 0.5).abs() < 0.07).all()) and len(set(share.tolist())) > 1


def test_generators_of_augmentation() -> None:
    def numbers(*key: int) -> list[float]:
        return torch.rand(4, generator=draws.augmentation(*key, CPU)).tolist()

    assert numbers(1, 2, 3) == numbers(1, 2, 3)
    assert len({tuple(numbers(*key)) for key in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1))}) == 5


@pytest.mark.parametrize("update", ["half-lattice", "bernoulli"])
def test_the_parts_of_two_processes_are_the_batch_of_one(cells: Cells, update: str) -> None:
    whole = trainer_of(cells, update)
    assert whole.groups == range(2)
    images, allowed = whole.batch()
    fires = [whole.schedule(which) for which in (0, 1)]
    parts = []
    for group in (1, 0):  # whoever comes first
        part = trainer_of(cells, update)
        part.groups = range(group, group + 1)
        torch.rand(group + 1)
        parts.insert(0, (*part.batch(), *(part.schedule(which) for which in (0, 1))))
    assert torch.equal(torch.cat([part[0] for part in parts]), images) and images.shape == (16, 16, 16, 3)
    assert torch.equal(torch.cat([part[1] for part in parts]), allowed) and bool(allowed.any(1).all())
    for which in (0, 1):
        mine = [part[2 + which] for part in parts]
        if update == "bernoulli":
            assert torch.equal(torch.cat(mine, 1), fires[which])
        else:
            assert torch.equal(mine[0], fires[which]) and torch.equal(mine[1], fires[which])


def test_batches_differ_between_updates_and_seeds(cells: Cells) -> None:
    trainer = trainer_of(cells, "half-lattice")
    first = trainer.batch()[0]
    assert torch.equal(trainer.batch()[0], first)
    trainer.update += trainer.per_epoch
    assert not torch.equal(trainer.batch()[0], first)
    assert not torch.equal(trainer_of(cells, "half-lattice", seed=6).batch()[0], first)


def test_teams_share_groups_evenly() -> None:
    assert [Team(rank, 3, CPU).share(48, draws.GROUP) for rank in range(3)] == [range(2), range(2, 4), range(4, 6)]
