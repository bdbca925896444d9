"""The automaton in torch: trainable, any preset, both pools, both update rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nca_edge.automaton import Architecture, Fire, Weights
from nca_train.step import FULL, Step


class NCA(nn.Module):
    """Neural cellular automaton with a classification head.

    The state is held as (batch, row, column, channel): the two 1x1 layers are then plain matrix products over grid cells, and
    the same bytes are what a channels_last convolution wants.

    Parameters
    ----------
    architecture : sizes, pool and update rule
    bf16 : compute the two 1x1 layers in bfloat16 (the state stays float32)
    """

    def __init__(self, architecture: Architecture, bf16: bool = False) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.bf16 = bf16
        self.k1 = nn.Conv2d(a.channels, a.channels, 3, groups=a.channels)
        self.k2 = nn.Conv2d(a.channels, a.channels, 3, groups=a.channels)
        self.w1 = nn.Linear(3 * a.channels, a.hidden)
        self.w2 = nn.Linear(a.hidden, a.channels, bias=False)
        nn.init.zeros_(self.w2.weight)  # the untrained automaton leaves its state alone (Mordvintsev et al. 2020)
        self.head1 = nn.Linear(a.features, a.head)
        self.head2 = nn.Linear(a.head, a.classes)
        free = torch.ones(a.channels, 1)
        free[: a.image_channels] = 0
        self.free: Tensor
        self.register_buffer("free", free, persistent=False)

    def seed_state(self, images: Tensor) -> Tensor:
        """(n, size, size, 3) normalised images -> (n, grid, grid, channels) state, hidden channels 0.

        With ``fold`` = 2 the pixel (row 2r + i, column 2c + j, colour k) lies in channel (2i + j) * 3 + k of grid cell (r, c).
        """
        a = self.architecture
        n = images.shape[0]
        folded = images.reshape(n, a.grid, a.fold, a.grid, a.fold, 3).permute(0, 1, 3, 2, 4, 5)
        return F.pad(folded.reshape(n, a.grid, a.grid, a.image_channels), (0, a.channels - a.image_channels))

    def step(self, x: Tensor, phase: int, fire: Tensor | None = None) -> Tensor:
        """One update of (n, grid, grid, channels) states; ``phase`` and ``fire`` as ``Step`` takes them."""
        k1, k2 = self.k1, self.k2
        parameters = (k1.weight, k1.bias, k2.weight, k2.bias, self.w1.weight, self.w1.bias, self.w2.weight * self.free)
        stepped: Tensor = Step.apply(x, *parameters, fire, phase, self.bf16)  # type: ignore[no-untyped-call]
        return stepped

    def evolve(self, state: Tensor, fire: Fire | Tensor, exits: Sequence[int] = (), keep_every: int = 0) -> list[Tensor]:
        """Run all steps.

        Parameters
        ----------
        fire : a schedule, or (steps, n, grid, grid) bool: one of each image
        exits : steps after which the state is asked for, besides the last
        keep_every : for the backward pass keep the state after every so many steps only; 0: keep all activations

        Returns
        -------
        State after each of ``exits``, in that order, and after the last step.
        """
        stops = sorted({*exits, *(range(keep_every, self.architecture.steps, keep_every) if keep_every else ())})
        after: dict[int, Tensor] = {}
        for start, stop in zip([0, *stops], [*stops, self.architecture.steps], strict=True):
            if keep_every and torch.is_grad_enabled():
                state = checkpoint(self._steps, state, fire[start:stop], use_reentrant=False)
            else:
                state = self._steps(state, fire[start:stop])
            after[stop] = state
        return [after[step] for step in (*exits, self.architecture.steps)]

    def _steps(self, state: Tensor, fire: Fire | Tensor) -> Tensor:
        for phase in fire:
            if phase.ndim == 0:
                state = self.step(state, int(phase))
            else:
                mask = torch.as_tensor(phase, device=state.device).expand(state.shape[:3])
                state = self.step(state, FULL, mask.reshape(-1).nonzero()[:, 0])
        return state

    def pool(self, state: Tensor) -> Tensor:
        """(n, grid, grid, channels) -> (n, features)."""
        kind = self.architecture.pool
        if kind == "max":
            return state.amax(dim=(1, 2))
        mean = state.mean(dim=(1, 2))
        return mean if kind == "mean" else torch.cat([state.amax(dim=(1, 2)), mean], 1)

    def head(self, pooled: Tensor) -> Tensor:
        """(n, features) -> (n, classes) logits."""
        logits: Tensor = self.head2(F.relu(self.head1(pooled)))
        return logits

    def forward(
        self, images: Tensor, fire: Fire | Tensor, exits: Sequence[int] = (), keep_every: int = 0
    ) -> tuple[list[Tensor], Tensor]:
        """(n, size, size, 3) normalised images -> logits (n, classes) after each exit and in the end, and the final state.

        Parameters as of ``evolve``.
        """
        states = self.evolve(self.seed_state(images), fire, exits, keep_every)
        return [self.head(self.pool(state)) for state in states], states[-1]

    def weights(self) -> Weights:
        """Copy the weights out by the names of ``Architecture.shapes``; the image rows of W2 are written as 0."""
        a = self.architecture
        named = {
            "k1": self.k1.weight, "k1_bias": self.k1.bias, "k2": self.k2.weight, "k2_bias": self.k2.bias,
            "w1": self.w1.weight, "w1_bias": self.w1.bias, "w2": self.w2.weight * self.free,
            "head1": self.head1.weight, "head1_bias": self.head1.bias,
            "head2": self.head2.weight, "head2_bias": self.head2.bias,
        }  # fmt: skip
        out: Weights = {}
        for name, shape in a.shapes().items():
            tensor = cast(Tensor, named[name])
            out[name] = tensor.detach().cpu().float().numpy().reshape(shape).copy()
        return out

    def load_weights(self, weights: Weights) -> None:
        """Fill the model from named arrays (the inverse of ``weights``)."""
        self.architecture.check_weights(weights)
        with torch.no_grad():
            for name in self.architecture.shapes():
                base, _, kind = name.partition("_")
                parameter = getattr(getattr(self, base), kind or "weight")
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(weights[name])).reshape(parameter.shape))
