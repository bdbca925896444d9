"""What turns gradients into updates: AdamW, or Muon for the matrices and AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nca_train.recipe import Train

LAST = "head2.weight"
"""The matrix that gives the logits stays with AdamW, as Muon's authors have it."""


class Optimizer:
    """One or two torch optimizers that step together.

    Muon (Jordan et al. 2024) makes every direction of a matrix's update equally long, so that the rare ones are learnt too; its
    updates are scaled to AdamW's size (Liu et al. 2025), and one learning rate serves both.
    """

    def __init__(self, model: nn.Module, options: Train) -> None:
        muon = options.optimizer == "muon"
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        matrices = [p for name, p in named if muon and p.ndim == 2 and name != LAST]
        taken = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in taken]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay)
        ]
        if matrices:
            self._parts.append(
                torch.optim.Muon(
                    matrices, options.learning_rate, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self, learning_rate: float) -> None:
        """Update the weights."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {str(i): part.state_dict() for i, part in enumerate(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse.

        Raises
        ------
        ValueError
            The state is of another optimizer or model.
        """
        if set(state) != {str(i) for i in range(len(self._parts))}:
            raise ValueError("the state of another optimizer")
        for i, part in enumerate(self._parts):
            part.load_state_dict(state[str(i)])


def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's; running statistics of the data move along."""
    pairs = [
        (old, new)
        for old, new in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True)
        if old.dtype.is_floating_point
    ]
    old, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    with torch.no_grad():
        torch._foreach_lerp_(old, new, 1 - decay)
