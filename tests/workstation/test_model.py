"""The automaton in torch against the NumPy reference, and its gradient against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nca_edge.automaton import PRESETS, Architecture, Weights, draw_fire, fire_masks
from nca_edge.backends import NumpyBackend
from nca_train.model import NCA
from nca_train.perception import FULL, Perceive

BASE = Architecture(grid=8, fold=1, channels=12, hidden=10, steps=6, pool="max", update="bernoulli", head=7, classes=4)
SMALL = [
    replace(BASE, pool=pool, update=update, fold=fold, channels=3 * fold**2 + 5)
    for pool in ("max", "mean")
    for update in ("bernoulli", "half-lattice")
    for fold in (1, 2, 3)
]


def name_of(a: Architecture) -> str:
    return f"{a.pool}-{a.update}-fold{a.fold}"


def random_weights(a: Architecture, seed: int = 0) -> Weights:
    """Of a size that keeps the state within a few units, so that absolute differences mean something."""
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(0, 0.5 / np.sqrt(max(1, np.prod(s[1:]))), s).astype(np.float32) for name, s in a.shapes().items()
    }
    weights["w2"][: a.image_channels] = 0
    return weights


def random_images(a: Architecture, n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (n, a.size, a.size, 3)).astype(np.float32)


def model_of(a: Architecture, bf16: bool = False) -> NCA:
    model = NCA(a, bf16=bf16)
    model.load_weights(random_weights(a))
    return model


@pytest.mark.parametrize("a", SMALL, ids=name_of)
def test_torch_equals_numpy(a: Architecture) -> None:
    images, fire = random_images(a, 3), draw_fire(a, 5)
    answer = NumpyBackend(a, random_weights(a), fire)(images)
    with torch.inference_mode():
        logits, state = model_of(a)(torch.from_numpy(images), fire)
    assert np.abs(state.numpy() - answer.state).max() <= 1e-5
    assert np.abs(logits.numpy() - answer.logits).max() <= 1e-5
    assert np.abs(answer.state[..., a.image_channels :]).max() > 0.1, "the automaton did nothing"


@pytest.mark.parametrize("a", SMALL, ids=name_of)
def test_image_channels_never_change(a: Architecture) -> None:
    images = torch.from_numpy(random_images(a, 2))
    model = model_of(a)
    with torch.no_grad():
        model.w2.weight.fill_(1.0)  # also where the image rows are not 0
        seed = model.seed_state(images)
        _, state = model(images)
    assert torch.equal(state[..., : a.image_channels], seed[..., : a.image_channels])
    assert torch.equal(seed[..., : a.image_channels].flatten().sort().values, images.flatten().sort().values)
    assert not seed[..., a.image_channels :].any()


@pytest.mark.parametrize("phase", range(5))
@pytest.mark.parametrize("rows, columns", [(4, 4), (2, 6), (6, 4)])
def test_gradient_of_perception(phase: int, rows: int, columns: int) -> None:
    torch.manual_seed(phase)
    shapes = [(2, rows, columns, 2), (2, 1, 3, 3), (2,), (2, 1, 3, 3), (2,)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda *tensors: Perceive.apply(*tensors, phase), inputs)


@pytest.mark.parametrize("phase", range(5))
def test_perception_is_a_padded_convolution_at_the_lines_that_fire(phase: int) -> None:
    torch.manual_seed(9)
    x, k1, k2 = torch.randn(2, 6, 4, 3), torch.randn(3, 1, 3, 3), torch.randn(3, 1, 3, 3)
    b1, b2 = torch.randn(3), torch.randn(3)
    lines: tuple[slice, ...] = {
        0: (slice(None), slice(0, None, 2)), 1: (slice(None), slice(1, None, 2)),
        2: (slice(None), slice(None), slice(0, None, 2)), 3: (slice(None), slice(None), slice(1, None, 2)), FULL: (),
    }[phase]  # fmt: skip
    padded = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="reflect")
    found: tuple[Tensor, Tensor] = Perceive.apply(x, k1, b1, k2, b2, phase)
    for z, kernel, bias in zip(found, (k1, k2), (b1, b2), strict=True):
        expected = F.conv2d(padded, kernel, bias, groups=3).permute(0, 2, 3, 1)[lines]
        torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("phase", range(4))
def test_half_step_equals_the_step_with_its_mask(phase: int) -> None:
    a = replace(BASE, update="half-lattice")
    model = model_of(a)
    torch.manual_seed(3)
    x = torch.randn(2, a.grid, a.grid, a.channels)
    mask = torch.from_numpy(fire_masks(a, np.array([phase], np.uint8))[0]).float()[..., None]
    with torch.inference_mode():
        torch.testing.assert_close(model.step_half(x, phase), model.step_masked(x, mask), rtol=0, atol=1e-6)


def test_half_step_learns_like_the_masked_step() -> None:
    """The two rules share every weight, so their gradients must agree as well."""
    a = replace(BASE, update="half-lattice")
    model, x = model_of(a), torch.randn(2, a.grid, a.grid, a.channels)
    masks = torch.from_numpy(fire_masks(a, np.arange(4, dtype=np.uint8))).float()[..., None]
    gradients = []
    for half in (True, False):
        state = x
        for phase in range(4):
            state = model.step_half(state, phase) if half else model.step_masked(state, masks[phase])
        model.zero_grad()
        state.square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == 7  # all but the head
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_training_draws_fire_and_inference_does_not() -> None:
    a = replace(BASE, steps=8)
    for update in ("bernoulli", "half-lattice"):
        model = model_of(replace(a, update=update))
        images = torch.from_numpy(random_images(a, 2))
        fire = draw_fire(model.architecture, 0)
        with torch.inference_mode():
            torch.manual_seed(0)
            drawn = [model(images)[0] for _ in range(2)]
            fixed = [model(images, fire)[0] for _ in range(2)]
        assert not torch.equal(drawn[0], drawn[1])
        assert torch.equal(fixed[0], fixed[1])


def test_presets_have_the_papers_sizes() -> None:
    paper, wss, edge = PRESETS["paper"], PRESETS["wss"], PRESETS["edge"]
    assert (paper.classes, paper.parameters, round(paper.macs / 1e9, 1)) == (13, 86_413, 17.8)
    assert (wss.classes, wss.parameters, round(wss.macs / 1e9, 1)) == (5, 9_637, 0.6)
    for preset in (paper, wss, edge):
        assert sum(p.numel() for p in NCA(preset).parameters()) == preset.parameters


def test_bf16_is_close_to_fp32() -> None:
    a = replace(BASE, grid=16, steps=16, update="half-lattice")
    images, fire = torch.from_numpy(random_images(a, 4)), draw_fire(a, 0)
    with torch.inference_mode():
        _, exact = model_of(a)(images, fire)
        logits, state = model_of(a, bf16=True)(images, fire)
    assert state.dtype == logits.dtype == torch.float32
    error = float((state - exact).norm() / exact.norm())
    assert 0 < error <= 0.01  # eight bits of mantissa, 16 steps


def test_weights_survive_a_round_trip() -> None:
    for a in SMALL:
        weights = random_weights(a)
        back = model_of(a).weights()
        assert set(back) == set(weights)
        assert all((back[name] == weights[name]).all() and back[name].dtype == np.float32 for name in weights)


def test_weights_are_a_copy_with_image_rows_zero() -> None:
    model = model_of(BASE)
    with torch.no_grad():
        model.w2.weight.fill_(1.0)
    weights = model.weights()
    assert not weights["w2"][: BASE.image_channels].any() and weights["w2"][BASE.image_channels :].all()
    weights["k1"].fill(7)
    assert not (model.weights()["k1"] == 7).any()


def test_an_untrained_automaton_leaves_its_state_alone() -> None:
    model, images = NCA(BASE), torch.from_numpy(random_images(BASE, 2))
    with torch.inference_mode():
        assert torch.equal(model(images)[1], model.seed_state(images))
