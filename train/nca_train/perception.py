"""Depthwise perception with its own backward pass: the same numbers as autograd's, at a fraction of the time on a CPU.

Left to autograd, the gradient arrives in another memory layout than the state and oneDNN falls back to a reference kernel:
66 ms instead of 0.4 ms for a backward of 16 states of 32x32x64 on two cores. Here everything stays row, column, channel in
memory, and the padded state is made again in the backward pass instead of being kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FULL = 4
"""The fifth "phase": every grid cell is perceived."""

_GEOMETRY = {  # phase: (pad rows before, after), (pad columns before, after), stride
    0: ((1, 0), (1, 1), (2, 1)),
    1: ((0, 1), (1, 1), (2, 1)),
    2: ((1, 1), (1, 0), (1, 2)),
    3: ((1, 1), (0, 1), (1, 2)),
    FULL: ((1, 1), (1, 1), (1, 1)),
}


def _reflect(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    n, height, width, channels = x.shape
    padded = x.new_empty(n, height + sum(rows), width + sum(columns), channels)
    inside = padded[:, :, columns[0] : columns[0] + width]
    inside[:, rows[0] : rows[0] + height] = x
    if rows[0]:
        inside[:, 0] = x[:, 1]
    if rows[1]:
        inside[:, -1] = x[:, -2]
    if columns[0]:
        padded[:, :, 0] = padded[:, :, 2]
    if columns[1]:
        padded[:, :, -1] = padded[:, :, -3]
    return padded


def _fold_back(gradient: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    if columns[0]:
        gradient[:, :, 2] += gradient[:, :, 0]
    if columns[1]:
        gradient[:, :, -3] += gradient[:, :, -1]
    gradient = gradient[:, :, columns[0] : gradient.shape[2] - columns[1]]
    if rows[0]:
        gradient[:, 2] += gradient[:, 0]
    if rows[1]:
        gradient[:, -3] += gradient[:, -1]
    return gradient[:, rows[0] : gradient.shape[1] - rows[1]]


class Perceive(torch.autograd.Function):
    """Two depthwise 3x3 convolutions with reflect padding of the grid cells that fire.

    ``Perceive.apply(x, k1, b1, k2, b2, phase)``: x (n, rows, columns, channels) dense; k (channels, 1, 3, 3); b (channels,);
    phase 0 even rows, 1 odd rows, 2 even columns, 3 odd columns, ``FULL`` all. Returns both perceptions of those grid
    cells, in x's layout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, k1: Tensor, b1: Tensor, k2: Tensor, b2: Tensor, phase: int) -> tuple[Tensor, Tensor]:
        rows, columns, stride = _GEOMETRY[phase]
        ctx.save_for_backward(x, k1, k2)
        ctx.phase = phase
        padded = _reflect(x, rows, columns).permute(0, 3, 1, 2)
        channels = x.shape[3]
        z1 = F.conv2d(padded, k1, b1, stride, groups=channels).permute(0, 2, 3, 1)
        return z1, F.conv2d(padded, k2, b2, stride, groups=channels).permute(0, 2, 3, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, k1, k2 = ctx.saved_tensors
        rows, columns, stride = _GEOMETRY[ctx.phase]
        channels = x.shape[3]
        padded = _reflect(x, rows, columns).permute(0, 3, 1, 2)
        total: Tensor | None = None
        of_kernels: list[Tensor] = []
        for gradient, kernel in zip(gradients, (k1, k2), strict=True):
            dense = gradient.contiguous().permute(0, 3, 1, 2)
            dx, dk, db = torch.ops.aten.convolution_backward(
                dense, padded, kernel, [channels], stride, [0, 0], [1, 1], False, [0, 0], channels, [True, True, True]
            )
            total = dx if total is None else total.add_(dx)
            of_kernels += [dk, db]
        if total is None:  # cannot happen: there are two kernels
            raise RuntimeError("perception has no kernels")
        return _fold_back(total.permute(0, 2, 3, 1), rows, columns), *of_kernels, None
