"""Relevance of the shipped model on its golden cells: as captum says, and adding up from its own terms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import EpsilonRule
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nca_edge.automaton import Weights
from nca_edge.classifier import ModelChoice, load
from nca_edge.explain import EPSILON, head_relevance

Pooled = np.ndarray


@pytest.fixture(scope="module")
def golden() -> tuple[Weights, Pooled]:
    """Weights of the shipped model and the pooled features of its golden cells."""
    from nca_edge.automaton import pool
    from nca_edge.classifier import from_8bit

    classifier = load(ModelChoice(backend="numpy"))
    states = classifier.answer(from_8bit(classifier.bundle.golden_views)).state
    kind = classifier.bundle.manifest.architecture.pool
    return classifier.bundle.weights, np.stack([pool(state, kind) for state in states])


def captum(weights: Weights, pooled: Pooled, target: int, against: int | None = None) -> Pooled:
    """Relevance of the pooled features by captum's epsilon rule on a float64 head, or on one that ends in a difference."""

    def linear(weight: Pooled, bias: Pooled) -> nn.Linear:
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        layer.rule = EpsilonRule(epsilon=EPSILON)
        return layer

    w = {name: array.astype(np.float64) for name, array in weights.items() if name.startswith("head")}
    if against is not None:
        w["head2"] = w["head2"][[target]] - w["head2"][[against]]
        w["head2_bias"] = w["head2_bias"][[target]] - w["head2_bias"][[against]]
        target = 0
    head = nn.Sequential(linear(w["head1"], w["head1_bias"]), nn.ReLU(), linear(w["head2"], w["head2_bias"]))
    attribution = LRP(head).attribute(torch.from_numpy(pooled)[None], target=target)
    found: Pooled = attribution[0].detach().numpy()
    return found


def by_its_terms(weights: Weights, v: Pooled, target: int) -> tuple[Pooled, float, float]:
    """The epsilon rule spelt out neuron by neuron: relevance of each feature, of all biases, of all stabilisers."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    z = w["head1"] @ v + w["head1_bias"]
    h = np.maximum(z, 0)
    logit = float(w["head2"][target] @ h + w["head2_bias"][target])
    step = EPSILON if logit >= 0 else -EPSILON
    whole = logit + step
    features, bias, stabiliser = np.zeros_like(v), w["head2_bias"][target] / whole * logit, step / whole * logit
    for j in range(len(z)):
        of_hidden = w["head2"][target, j] * h[j] / whole * logit
        step = EPSILON if z[j] >= 0 else -EPSILON
        features += w["head1"][j] * v / (z[j] + step) * of_hidden
        bias += w["head1_bias"][j] / (z[j] + step) * of_hidden
        stabiliser += step / (z[j] + step) * of_hidden
    return features, float(bias), float(stabiliser)


@pytest.mark.filterwarnings("ignore::UserWarning")  # captum's own hooks
def test_captum_agrees_on_every_golden_cell_and_class(golden: tuple[Weights, Pooled]) -> None:
    weights, cells = golden
    for pooled in cells:
        for target in range(len(weights["head2"])):
            expected = captum(weights, pooled, target).reshape(2, -1).sum(0)
            assert np.abs(head_relevance(pooled, weights, target, 2).channels - expected).max() <= 1e-9


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_agrees_on_why_one_and_not_the_other(golden: tuple[Weights, Pooled]) -> None:
    weights, cells = golden
    for pooled in cells[:2]:
        for target, against in ((0, 1), (3, 10), (8, 7)):
            expected = captum(weights, pooled, target, against).reshape(2, -1).sum(0)
            assert np.abs(head_relevance(pooled, weights, target, 2, against).channels - expected).max() <= 1e-9


def test_each_share_is_the_sum_of_its_own_terms(golden: tuple[Weights, Pooled]) -> None:
    weights, cells = golden
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    for pooled in cells:
        logits = w["head2"] @ np.maximum(w["head1"] @ pooled + w["head1_bias"], 0) + w["head2_bias"]
        for target, logit in enumerate(logits):
            features, bias, stabiliser = by_its_terms(weights, pooled, target)
            r = head_relevance(pooled, weights, target, 2)
            assert r.channels == pytest.approx(features.reshape(2, -1).sum(0), rel=1e-9, abs=1e-12)
            assert (r.bias_share, r.epsilon_share) == pytest.approx((bias, stabiliser), rel=1e-9, abs=1e-12)
            assert r.channels.sum() + r.bias_share + r.epsilon_share == pytest.approx(logit, rel=1e-9)


@given(st.integers(0, 2**32))
def test_a_difference_adds_up_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = {"head1": (24, 16), "head1_bias": (24,), "head2": (7, 24), "head2_bias": (7,)}
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    v = rng.normal(0, 2, 16)
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    logits = w["head2"] @ np.maximum(w["head1"] @ v + w["head1_bias"], 0) + w["head2_bias"]
    r = head_relevance(v, weights, 2, 1, 5)
    assert r.channels.sum() + r.bias_share + r.epsilon_share == pytest.approx(logits[2] - logits[5], rel=1e-9, abs=1e-12)
