"""The automaton in torch: trainable, any preset, both pools, both update rules."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nca_edge.automaton import Architecture, Fire, Weights, draw_fire
from nca_train.perception import FULL, Perceive


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
        self.head1 = nn.Linear(a.channels, a.head)
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

    def delta(self, x: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
        """Change of the grid cells ``x`` (n, rows, columns, channels) with perceptions ``z1``, ``z2``; bf16 where it pays."""
        y = torch.cat([x, z1, z2], dim=-1)
        w2 = self.w2.weight * self.free
        if not self.bf16:
            return F.linear(F.relu(self.w1(y)), w2)
        h = F.relu(F.linear(y.bfloat16(), self.w1.weight.bfloat16(), self.w1.bias.bfloat16()))
        return F.linear(h, w2.bfloat16()).to(x.dtype)

    def perceive(self, x: Tensor, phase: int) -> tuple[Tensor, Tensor]:
        """Both depthwise convolutions of the grid cells of ``phase``."""
        k1, k2 = self.k1, self.k2
        z: tuple[Tensor, Tensor] = Perceive.apply(x, k1.weight, k1.bias, k2.weight, k2.bias, phase)  # type: ignore[no-untyped-call]
        return z

    def step_masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """One step where ``mask`` (broadcastable to (n, grid, grid, 1), 0/1) says which grid cells fire."""
        return x + mask * self.delta(x, *self.perceive(x, FULL))

    def step_half(self, x: Tensor, phase: int) -> Tensor:
        """One half-lattice step: only the rows (phase 0, 1) or columns (2, 3) that fire are computed."""
        n, height, width, channels = x.shape
        axis = 2 if phase < 2 else 3
        pairs = x.view(n, height // 2, 2, width, channels) if phase < 2 else x.view(n, height, width // 2, 2, channels)
        lines = list(pairs.unbind(axis))
        lines[phase % 2] = lines[phase % 2] + self.delta(lines[phase % 2], *self.perceive(x, phase))
        return torch.stack(lines, axis).view(n, height, width, channels)

    def evolve(self, state: Tensor, fire: Fire | None = None) -> Tensor:
        """Run all steps; ``fire`` None draws a schedule (``bernoulli``: anew for every image, as in training)."""
        a = self.architecture
        if a.update == "half-lattice":
            phases = fire if fire is not None else draw_fire(a, int(torch.randint(2**31, (1,))))
            for phase in phases:
                state = self.step_half(state, int(phase))
            return state
        for step in range(a.steps):
            if fire is None:
                mask = (torch.rand(state.shape[0], a.grid, a.grid, 1, device=state.device) < 0.5).to(state.dtype)
            else:
                mask = torch.as_tensor(fire[step], dtype=state.dtype, device=state.device)[..., None]
            state = self.step_masked(state, mask)
        return state

    def pool(self, state: Tensor) -> Tensor:
        """(n, grid, grid, channels) -> (n, channels)."""
        return state.amax(dim=(1, 2)) if self.architecture.pool == "max" else state.mean(dim=(1, 2))

    def head(self, pooled: Tensor) -> Tensor:
        """(n, channels) -> (n, classes) logits."""
        logits: Tensor = self.head2(F.relu(self.head1(pooled)))
        return logits

    def forward(self, images: Tensor, fire: Fire | None = None) -> tuple[Tensor, Tensor]:
        """(n, size, size, 3) normalised images -> logits (n, classes), final state (n, grid, grid, channels)."""
        state = self.evolve(self.seed_state(images), fire)
        return self.head(self.pool(state)), state

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
