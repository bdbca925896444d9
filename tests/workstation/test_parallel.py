"""Two processes learn what one does, and say so when they cannot share the work."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nca_edge.errors import UsageError
from nca_train.loop import Job, train
from nca_train.parallel import Team, choose_device, team
from nca_train.recipe import Recipe
from tests.workstation.synthetic import environment, quiet, rows_of, tiny_recipe, write_recipe

COMMAND = "from nca_edge.cli import main; main()"


def two_groups() -> Recipe:
    """Each image with a schedule of its own: the half-lattice's would be the same in both processes anyway."""
    recipe = tiny_recipe(epochs=2, batch=16, learning_rate=0.003, consistency_from=0.2)
    return replace(recipe, model=replace(recipe.model, update="bernoulli"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.slow
def test_two_processes_learn_what_one_does(data: Path, tmp_path: Path) -> None:
    recipe = two_groups()
    alone = train(Job(recipe, data, tmp_path / "alone", seed=4, device="cpu"), quiet)
    script = tmp_path / "nca_edge_command.py"
    script.write_text(COMMAND, "utf-8")
    toml = write_recipe(tmp_path / "two.toml", recipe)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    options = ["--data", str(data), "--out", str(tmp_path / "two"), "--seed", "4", "--device", "cpu", "--threads", "1"]
    done = subprocess.run(
        [*launch, "train", str(toml), *options], env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = rows_of(alone), rows_of(tmp_path / "two")
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=1e-4)
    assert [row["learning_rate"] for row in two] == [row["learning_rate"] for row in one]
    assert done.stdout.split() == [str(tmp_path / "two")] * 2
    assert done.stderr.count("epoch 1/2") == 1, "one of them speaks"


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_wrong_use(data: Path, tmp_path: Path) -> None:
    toml = write_recipe(tmp_path / "one.toml", tiny_recipe(batch=8))
    options = ["--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu", "--threads", "1"]
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, "train", str(toml), *options],
            env=environment(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in processes:
        out, said = process.communicate(timeout=200)
        assert process.returncode == 2, said
        sentence = "train.batch = 8 cannot be shared by 2 processes; make it a multiple of 16."
        assert said.count(sentence) == 1 and "Traceback" not in said and out == ""
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_team_of_one() -> None:
    with team("cpu") as mates:
        assert mates == Team(0, 1, torch.device("cpu")) and mates.leads
        assert mates.share(20, 8) == range(3) and mates.mean(0.25) == 0.25 and mates.agree(True) and not mates.agree(False)
        model = torch.nn.Linear(1, 1)
        assert mates.wrap(model) is model


@pytest.mark.parametrize("batch, size", [(8, 2), (12, 2), (24, 2), (32, 3)])
def test_batches_that_cannot_be_dealt_out(batch: int, size: int) -> None:
    with pytest.raises(
        UsageError, match=rf"train\.batch = {batch} cannot be shared by {size} processes; make it a multiple of {8 * size}"
    ):
        Team(0, size, torch.device("cpu")).share(batch, 8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="--device cuda: this torch sees no GPU"):
        choose_device("cuda")
