"""One update with its own backward pass, against the formula written plainly and left to autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nca_edge.automaton import Architecture, draw_fire
from nca_train.model import NCA
from nca_train.step import FULL, Step

CHANNELS, HIDDEN, IMAGES = 5, 7, 3
GRIDS = [(2, 2), (4, 6), (6, 4), (8, 8)]


def tensors(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """State, k1, b1, k2, b2, w1, bias, w2, as ``Step`` takes them."""
    c, h = CHANNELS, HIDDEN
    shapes = [(IMAGES, rows, columns, c), (c, 1, 3, 3), (c,), (c, 1, 3, 3), (c,), (h, 3 * c), (h,), (c, h)]
    generator = torch.Generator().manual_seed(rows * 10 + columns)
    return [torch.randn(s, generator=generator, dtype=dtype).mul_(0.5).requires_grad_() for s in shapes]


def lines(phase: int, rows: int, columns: int) -> Tensor:
    """(1, rows, columns, 1) which grid cells a phase lets fire."""
    row, column = torch.arange(rows)[:, None], torch.arange(columns)[None, :]
    fires = {0: row % 2 == 0, 1: row % 2 == 1, 2: column % 2 == 0, 3: column % 2 == 1, FULL: row >= 0}[phase]
    return fires.expand(rows, columns).reshape(1, rows, columns, 1)


def indices(mask: Tensor, rows: int, columns: int) -> Tensor:
    """Where a mask of each image, or one for all, is not 0, counted through all images."""
    return mask.expand(IMAGES, rows, columns, 1).reshape(-1).nonzero()[:, 0]


def plain(given: list[Tensor], mask: Tensor) -> Tensor:
    """x + mask * W2 relu(W1 [x, k1*x, k2*x] + b1) for all grid cells."""
    x, k1, b1, k2, b2, w1, bias, w2 = given
    padded = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="reflect")
    perceived = [F.conv2d(padded, k, b, groups=CHANNELS).permute(0, 2, 3, 1) for k, b in ((k1, b1), (k2, b2))]
    hidden = F.relu(F.linear(torch.cat([x, *perceived], 3), w1, bias))
    return x + mask * F.linear(hidden, w2)


def values_and_gradients(of: Callable[[], Tensor], given: list[Tensor]) -> list[Tensor]:
    """What comes out, and the gradient of all that went in, for an uneven gradient of the output."""
    out = of()
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), given)]


@pytest.mark.parametrize("rows, columns", GRIDS)
@pytest.mark.parametrize("phase", range(5))
def test_values_and_gradients_are_the_formulas(phase: int, rows: int, columns: int) -> None:
    given = tensors(rows, columns)
    mine = values_and_gradients(lambda: Step.apply(*given, None, phase, False), given)
    expected = values_and_gradients(lambda: plain(given, lines(phase, rows, columns)), given)
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)
    assert all(float(gradient.abs().max()) > 1e-2 for gradient in mine[1:])


@pytest.mark.parametrize("n", [IMAGES, 1], ids=["a mask of each image", "one mask for all"])
@pytest.mark.parametrize("rows, columns", GRIDS)
def test_masks(n: int, rows: int, columns: int) -> None:
    given = tensors(rows, columns)
    fire = (torch.rand((n, rows, columns, 1), generator=torch.Generator().manual_seed(n)) < 0.5).float()
    mine = values_and_gradients(lambda: Step.apply(*given, indices(fire, rows, columns), FULL, False), given)
    torch.testing.assert_close(mine, values_and_gradients(lambda: plain(given, fire), given), rtol=1e-5, atol=1e-5)


def test_where_nothing_fires_nothing_is_learnt() -> None:
    given = tensors(4, 4)
    out = Step.apply(*given, torch.empty(0, dtype=torch.int64), FULL, False)
    assert torch.equal(out, given[0])
    of_state, *others = torch.autograd.grad(out.sum(), given)
    assert bool((of_state == 1).all()) and not any(bool(gradient.any()) for gradient in others)


@pytest.mark.parametrize("phase", range(5))
def test_float64_leaves_no_doubt(phase: int) -> None:
    given = tensors(4, 6, torch.float64)
    mine = values_and_gradients(lambda: Step.apply(*given, None, phase, False), given)
    expected = values_and_gradients(lambda: plain(given, lines(phase, 4, 6)), given)
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("phase", [0, 3, FULL])
def test_bf16_is_close(phase: int) -> None:
    given = tensors(8, 8)
    fire = (torch.rand(IMAGES, 8, 8, 1, generator=torch.Generator().manual_seed(0)) < 0.5).float() if phase == FULL else None
    chosen = None if fire is None else indices(fire, 8, 8)
    mine = values_and_gradients(lambda: Step.apply(*given, chosen, phase, True), given)
    mask = lines(phase, 8, 8) if fire is None else fire
    for found, expected in zip(mine, values_and_gradients(lambda: plain(given, mask), given), strict=True):
        assert found.dtype == torch.float32
        assert 0 < float((found - expected).norm() / expected.norm()) < 0.03  # eight bits of mantissa


def test_gradients_flow_through_a_gradient_that_is_no_dense_tensor() -> None:
    """The mean's gradient is one number for a whole grid, expanded."""
    given = tensors(4, 4)
    mine = torch.autograd.grad(Step.apply(*given, None, 1, False).mean(), given)
    torch.testing.assert_close(mine, torch.autograd.grad(plain(given, lines(1, 4, 4)).mean(), given), rtol=1e-5, atol=1e-6)


def test_the_state_that_went_in_stays_as_it_was() -> None:
    given = tensors(4, 4)
    before = given[0].detach().clone()
    values_and_gradients(lambda: Step.apply(*given, None, 2, False), given)
    assert torch.equal(given[0], before)


@pytest.mark.parametrize("keep_every", [1, 2, 3, 6, 50])
@pytest.mark.parametrize("update", ["half-lattice", "bernoulli"])
def test_activations_computed_again_give_the_same_gradients(update: str, keep_every: int) -> None:
    sizes: dict[str, Any] = {"grid": 8, "fold": 1, "channels": 12, "hidden": 10, "head": 7, "classes": 4}
    a = Architecture(**sizes, steps=7, pool="max+mean", update=update)
    torch.manual_seed(0)
    model, images = NCA(a), torch.randn(2, 8, 8, 3)
    torch.nn.init.normal_(model.w2.weight, std=0.2)
    fire = torch.from_numpy(draw_fire(a, 0)) if update == "half-lattice" else torch.rand(7, 2, 8, 8) < 0.5
    found = []
    for keep in (0, keep_every):
        model.zero_grad()
        answers, state = model(images, fire, (2, 5), keep)
        (sum(logits.square().sum() for logits in answers) + state.square().mean()).backward()
        found.append([*answers, state, *(p.grad for p in model.parameters())])
    assert len(found[0]) == 3 + 1 + len(list(model.parameters()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)
