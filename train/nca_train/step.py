"""One update of the automaton with its own backward pass: the numbers of autograd at a fraction of its time and memory.

Left to autograd, the gradient of the depthwise perception arrives in another memory layout than the state and oneDNN falls
back to a reference kernel (66 ms instead of 0.4 ms for 16 states of 32x32x64 on two cores), every activation is kept in
float32, and the state is copied four times a step. Here everything stays row, column, channel in memory; between the passes
only the state and the hidden layer are kept, and the perception, which is cheap, is computed again.
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
_FIRING = {
    0: (slice(None), slice(0, None, 2)),
    1: (slice(None), slice(1, None, 2)),
    2: (slice(None), slice(None), slice(0, None, 2)),
    3: (slice(None), slice(None), slice(1, None, 2)),
    FULL: (slice(None),),
}


def _reflect(x: Tensor, rows: tuple[int, int], columns: tuple[int, int], dtype: torch.dtype) -> Tensor:
    n, height, width, channels = x.shape
    padded = x.new_empty((n, height + sum(rows), width + sum(columns), channels), dtype=dtype)
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


def _perceive(
    x: Tensor, padded: Tensor, kernels: tuple[tuple[Tensor, Tensor], ...], phase: int, chosen: Tensor | None
) -> list[Tensor]:
    """x, k1*x and k2*x of the grid cells that fire, each (m, channels); never one tensor, which would be made by copying."""
    parts = [_rows(x[_FIRING[phase]], chosen).to(padded.dtype)]
    for kernel, bias in kernels:
        z = F.conv2d(padded.permute(0, 3, 1, 2), kernel, bias, _GEOMETRY[phase][2], groups=x.shape[3])
        parts.append(_rows(z.permute(0, 2, 3, 1), chosen))
    return parts


def _rows(y: Tensor, chosen: Tensor | None) -> Tensor:
    """(n, rows, columns, features) -> (m, features): the chosen grid cells, or all."""
    flat = y.reshape(-1, y.shape[3])
    return flat if chosen is None else flat.index_select(0, chosen)


class Step(torch.autograd.Function):
    """x + fire * W2 relu(W1 [x, k1*x, k2*x] + b1).

    ``Step.apply(x, k1, b1, k2, b2, w1, bias, w2, fire, phase, bf16)``: x (n, rows, columns, channels) dense; k (channels, 1,
    3, 3); b (channels,); w1 (hidden, 3 channels); w2 (channels, hidden); phase 0 even rows, 1 odd rows, 2 even columns, 3 odd
    columns fire, ``FULL`` all; fire (m,) indices of the grid cells of the phase that fire, over all images, or None for all;
    bf16: perceive and compute the 1x1 layers in bfloat16; the state stays as it is.

    The 1x1 layers, nearly all of the work, see only grid cells that fire.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        x, k1, b1, k2, b2, w1, bias, w2, fire, phase, bf16 = given
        if bf16:
            k1, b1, k2, b2, w1, bias, w2 = (parameter.bfloat16() for parameter in (k1, b1, k2, b2, w1, bias, w2))
        rows, columns, _ = _GEOMETRY[phase]
        own, first, second = _perceive(x, _reflect(x, rows, columns, w1.dtype), ((k1, b1), (k2, b2)), phase, fire)
        of_own, of_first, of_second = w1.t().chunk(3)
        h = torch.addmm(bias, own, of_own).addmm_(first, of_first).addmm_(second, of_second).relu_()
        delta = torch.mm(h, w2.t())
        out: Tensor = x.clone()
        if fire is None:
            firing = out[_FIRING[phase]]
            firing += delta.view(firing.shape)
        else:
            out.view(-1, x.shape[3]).index_add_(0, fire, delta.to(x.dtype))
        ctx.save_for_backward(x, k1, b1, k2, b2, w1, w2, h, *([] if fire is None else [fire]))
        ctx.phase = phase
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, k1, b1, k2, b2, w1, w2, h, *fire = ctx.saved_tensors
        rows, columns, stride = _GEOMETRY[ctx.phase]
        channels, firing, wide = x.shape[3], _FIRING[ctx.phase], x.dtype
        chosen = fire[0] if fire else None
        d = _rows(gradients[0][firing], chosen).to(h.dtype)
        of_w2 = torch.mm(d.t(), h)
        dh = torch.ops.aten.threshold_backward(torch.mm(d, w2), h, 0)
        padded = _reflect(x, rows, columns, h.dtype)
        seen = _perceive(x, padded, ((k1, b1), (k2, b2)), ctx.phase, chosen)
        of_w1, of_bias = torch.cat([torch.mm(dh.t(), part) for part in seen], 1), dh.sum(0)
        own, *of_z = (torch.mm(dh, weight) for weight in w1.chunk(3, 1))
        if ctx.phase != FULL:  # with strides, oneDNN has no fast backward in bfloat16: half of a training step went there
            padded, k1, k2 = _reflect(x, rows, columns, wide), k1.to(wide), k2.to(wide)
        padded = padded.permute(0, 3, 1, 2)
        of_kernels: list[Tensor] = []
        parts = []
        for dz, kernel in zip(of_z, (k1, k2), strict=True):
            if chosen is not None:
                dz = dz.new_zeros(x.numel() // channels, channels).index_copy_(0, chosen, dz)
            dz = dz.to(kernel.dtype).view(gradients[0][firing].shape)
            wanted = [True, True, False]  # the bias's gradient is slower there than a sum
            dx, dk, _ = torch.ops.aten.convolution_backward(
                dz.permute(0, 3, 1, 2), padded, kernel, None, stride, [0, 0], [1, 1], False, [0, 0], channels, wanted
            )
            parts.append(dx)
            of_kernels += [dk.to(wide, memory_format=torch.contiguous_format, copy=True), dz.sum((0, 1, 2), dtype=wide)]
        total = _fold_back(parts[0].add_(parts[1]).permute(0, 2, 3, 1), rows, columns) + gradients[0]
        if chosen is None:
            total[firing] += own.view(gradients[0][firing].shape)
        else:
            total.view(-1, channels).index_add_(0, chosen, own.to(wide))
        return total, *of_kernels, of_w1.to(wide), of_bias.to(wide), of_w2.to(wide), None, None, None
