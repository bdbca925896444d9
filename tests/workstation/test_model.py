"""The automaton in torch against the NumPy reference, and its gradient against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nca_edge.automaton import POOLS, PRESETS, Architecture, Weights, draw_fire, fire_masks, pool
from nca_edge.backends import NumpyBackend
from nca_train.model import NCA
from nca_train.step import FULL

BASE = Architecture(grid=8, fold=1, channels=12, hidden=10, steps=6, pool="max", update="bernoulli", head=7, classes=4)
SMALL = [
    replace(BASE, pool=kind, update=update, fold=fold, channels=3 * fold**2 + 5)
    for kind in POOLS
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
        (logits,), state = model_of(a)(torch.from_numpy(images), fire)
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
        _, state = model(images, draw_fire(a, 1))
    assert torch.equal(state[..., : a.image_channels], seed[..., : a.image_channels])
    assert torch.equal(seed[..., : a.image_channels].flatten().sort().values, images.flatten().sort().values)
    assert not seed[..., a.image_channels :].any()


@pytest.mark.parametrize("phase", range(4))
def test_half_step_equals_the_step_with_its_mask(phase: int) -> None:
    a = replace(BASE, update="half-lattice")
    model = model_of(a)
    torch.manual_seed(3)
    x = torch.randn(2, a.grid, a.grid, a.channels)
    mask = torch.from_numpy(fire_masks(a, np.array([phase], np.uint8))[0])
    chosen = mask.expand(2, -1, -1).reshape(-1).nonzero()[:, 0]
    with torch.inference_mode():
        torch.testing.assert_close(model.step(x, phase), model.step(x, FULL, chosen), rtol=0, atol=1e-6)


def test_half_steps_learn_like_masked_steps() -> None:
    """The two rules share every weight, so their gradients must agree as well."""
    a = replace(BASE, update="half-lattice", steps=4)
    torch.manual_seed(3)
    model, images = model_of(a), torch.from_numpy(random_images(a, 2))
    phases = np.arange(4, dtype=np.uint8)
    gradients = []
    for fire in (phases, fire_masks(a, phases).astype(np.uint8)):
        model.zero_grad()
        (logits,), state = model(images, fire)
        (logits.square().sum() + state.square().mean()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == 11
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("update", ["bernoulli", "half-lattice"])
def test_schedules_of_numpy_and_torch_say_the_same(update: str) -> None:
    a = replace(BASE, update=update)
    model, images, fire = model_of(a), torch.from_numpy(random_images(a, 2)), draw_fire(a, 0)
    each = torch.from_numpy(fire) if update == "half-lattice" else torch.from_numpy(fire).bool()[:, None].expand(-1, 2, -1, -1)
    with torch.inference_mode():
        (expected,), _ = model(images, fire)
        (found,), _ = model(images, each)
    assert torch.equal(found, expected)


def test_each_image_follows_its_own_schedule() -> None:
    model, images = model_of(BASE), torch.from_numpy(random_images(BASE, 2))
    fires = [draw_fire(BASE, seed) for seed in (0, 1)]
    with torch.inference_mode():
        (together,), _ = model(images, torch.from_numpy(np.stack(fires, 1)).bool())
        alone = [model(images[i : i + 1], fires[i])[0][0] for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize("update", ["bernoulli", "half-lattice"])
@pytest.mark.parametrize("keep_every", [0, 3])
def test_an_exit_answers_as_an_automaton_of_fewer_steps(update: str, keep_every: int) -> None:
    a = replace(BASE, update=update, pool="max+mean")
    model, images, fire = model_of(a), torch.from_numpy(random_images(a, 2)), draw_fire(a, 0)
    answers, state = model(images, fire, (4, 2), keep_every)
    assert len(answers) == 3
    for steps, logits in zip((4, 2, 6), answers, strict=True):
        (expected,), last = model_of(replace(a, steps=steps))(images, fire[:steps])
        assert torch.equal(logits, expected)
        assert torch.equal(state, last) == (steps == 6)


def test_pools_by_hand() -> None:
    state = torch.tensor([[1.0, -4.0], [2.0, -3.0], [3.0, -2.0], [6.0, -1.0]]).reshape(1, 2, 2, 2)
    a = replace(BASE, fold=1, grid=2, channels=4, pool="max")
    wide = torch.cat([state, torch.zeros(1, 2, 2, 2)], 3)
    expected = {"max": [6, -1, 0, 0], "mean": [3, -2.5, 0, 0], "max+mean": [6, -1, 0, 0, 3, -2.5, 0, 0]}
    for kind, numbers in expected.items():
        b = replace(a, pool=kind)
        assert NCA(b).pool(wide).tolist() == [numbers] and b.features == len(numbers)
        assert pool(wide[0].numpy(), kind).tolist() == numbers


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
        (logits,), state = model_of(a, bf16=True)(images, fire)
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
        assert torch.equal(model(images, draw_fire(BASE, 0))[1], model.seed_state(images))
