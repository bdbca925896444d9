"""One process or many: the same run under ``torchrun``, over several GPUs or hosts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nca_edge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Team:
    """Which part of the work is this process's."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process validates, writes and speaks."""
        return self.rank == 0

    def share(self, batch: int, group: int) -> range:
        """This process's part of the groups of ``group`` images that make a batch.

        Raises
        ------
        UsageError
            They cannot be dealt out evenly.
        """
        if self.size > 1 and batch % (group * self.size):
            raise UsageError(
                f"train.batch = {batch} cannot be shared by {self.size} processes; make it a multiple of {group * self.size}."
            )
        each = -(-batch // group) // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose gradients are averaged over all processes."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def mean(self, value: float) -> float:
        """Average of what each process says."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        if self.device.type == "cuda":
            total = total.to(self.device)
        distributed.all_reduce(total)
        return float(total) / self.size

    def agree(self, value: bool) -> bool:
        """What the leader says, for all."""
        if self.size == 1:
            return value
        return self.mean(float(value and self.leads)) > 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """``auto`` takes the GPU where there is one.

    Raises
    ------
    UsageError
        A GPU is asked for and there is none.
    """
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise UsageError("--device cuda: this torch sees no GPU; install a CUDA build of torch or choose --device cpu.")
    return torch.device("cuda", local_rank) if present and name != "cpu" else torch.device("cpu")


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the processes that ``torchrun`` started; without it a team of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(0, 1, choose_device(device))
        return
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size(), chosen)
    finally:
        distributed.destroy_process_group()
