"""Which weights which optimizer moves, and the average that follows them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nca_train.model import NCA
from nca_train.optimizer import Optimizer, average
from nca_train.recipe import Train
from tests.workstation.synthetic import tiny_recipe


def options(optimizer: str) -> Train:
    return Train(epochs=1, batch=8, learning_rate=0.1, optimizer=optimizer)


def model() -> NCA:
    torch.manual_seed(0)
    return NCA(tiny_recipe().automaton.architecture(3))


def stepped(optimizer: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights before and after one step along fixed gradients."""
    net = model()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    torch.manual_seed(1)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    Optimizer(net, options(optimizer)).step(0.1)
    return before, {name: p.detach() for name, p in net.named_parameters()}


def test_muon_moves_the_matrices_and_adamw_the_rest() -> None:
    before, muon = stepped("muon")
    _, adamw = stepped("adamw")
    differ = {name for name in before if not torch.equal(muon[name], adamw[name])}
    assert differ == {"w1.weight", "w2.weight", "head1.weight"}
    assert all(not torch.equal(before[name], muon[name]) for name in before)


def test_a_muon_update_is_as_long_in_every_direction() -> None:
    before, after = stepped("muon")
    lengths = torch.linalg.svdvals((after["w1.weight"] - before["w1.weight"]) / 0.1)
    assert lengths.min() / lengths.max() > 0.4  # Newton and Schulz's five rounds leave 0.7 to 1.2
    size = before["w1.weight"].shape
    assert lengths.mean().item() == pytest.approx(0.2 * max(size) ** 0.5, rel=0.2)  # AdamW's size (Liu et al. 2025)


def test_a_state_goes_back_into_its_own_kind_alone() -> None:
    muon, adamw = Optimizer(model(), options("muon")), Optimizer(model(), options("adamw"))
    muon.load_state_dict(muon.state_dict())
    with pytest.raises(ValueError, match="another optimizer"):
        adamw.load_state_dict(muon.state_dict())


def test_running_statistics_are_averaged_with_the_weights() -> None:
    new, old = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    new(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    assert new.running_mean is not None and old.running_mean is not None
    average(old, new, 0.9)
    assert torch.allclose(old.running_mean, 0.1 * new.running_mean)
