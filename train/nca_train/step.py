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


def _perceive(x: Tensor, padded: Tensor, kernels: tuple[tuple[Tensor, Tensor], ...], phase: int) -> Tensor:
    """[x, k1*x, k2*x] of the grid cells that fire: (n, rows, columns, 3 channels)."""
    channels, stride = x.shape[3], _GEOMETRY[phase][2]
    firing = x[_FIRING[phase]]
    y = x.new_empty((*firing.shape[:3], 3 * channels))
    y[..., :channels] = firing
    for i, (kernel, bias) in enumerate(kernels, start=1):
        z = F.conv2d(padded.permute(0, 3, 1, 2), kernel, bias, stride, groups=channels)
        y[..., i * channels : (i + 1) * channels] = z.permute(0, 2, 3, 1)
    return y


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
        seen = x.to(w1.dtype)
        y = _perceive(seen, _reflect(seen, rows, columns), ((k1, b1), (k2, b2)), phase)
        h = torch.addmm(bias, _rows(y, fire), w1.t()).relu_()
        delta = torch.mm(h, w2.t())
        out: Tensor = x.clone()
        if fire is None:
            out[_FIRING[phase]] += delta.view(*y.shape[:3], -1)
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
        seen = x.to(h.dtype)
        padded = _reflect(seen, rows, columns)
        y = _perceive(seen, padded, ((k1, b1), (k2, b2)), ctx.phase)
        of_w1, of_bias = torch.mm(dh.t(), _rows(y, chosen)), dh.sum(0)
        dy = torch.mm(dh, w1)
        if chosen is not None:
            dy = dy.new_zeros(y.numel() // dy.shape[1], dy.shape[1]).index_copy_(0, chosen, dy)
        dy = dy.view(y.shape)
        if ctx.phase != FULL:  # with strides, oneDNN has no fast backward in bfloat16: half of a training step went there
            padded, k1, k2 = _reflect(x, rows, columns), k1.to(wide), k2.to(wide)
        padded = padded.permute(0, 3, 1, 2)
        of_kernels: list[Tensor] = []
        parts = []
        for i, kernel in enumerate((k1, k2), start=1):
            dz = dy[..., i * channels : (i + 1) * channels].to(kernel.dtype).contiguous()
            wanted = [True, True, False]  # the bias's gradient is slower there than a sum
            dx, dk, _ = torch.ops.aten.convolution_backward(
                dz.permute(0, 3, 1, 2), padded, kernel, None, stride, [0, 0], [1, 1], False, [0, 0], channels, wanted
            )
            parts.append(dx)
            of_kernels += [dk.to(wide, memory_format=torch.contiguous_format, copy=True), dz.sum((0, 1, 2), dtype=wide)]
        total = _fold_back(parts[0].add_(parts[1]).permute(0, 2, 3, 1), rows, columns) + gradients[0]
        total[firing] += dy[..., :channels]
        return total, *of_kernels, of_w1.to(wide), of_bias.to(wide), of_w2.to(wide), None, None, None
