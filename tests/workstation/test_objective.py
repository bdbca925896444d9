"""What is minimised, against numbers worked out by hand and torch's own losses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nca_train.objective import answer_loss, divergence, objective, overflow
from nca_train.recipe import Train

LOGITS = torch.log(torch.tensor([[1.0, 2.0, 5.0]])) + 3  # probabilities 1/8, 2/8, 5/8, whatever is added


def train(**options: float) -> Train:
    return Train(epochs=1, batch=8, learning_rate=0.1, **options)  # type: ignore[arg-type]


def among(*classes: int, of: int = 3) -> Tensor:
    return torch.tensor([[c in classes for c in range(of)]])


@pytest.mark.parametrize(
    "allowed, options, expected",
    [
        (among(2), train(), -math.log(0.625)),
        (among(0), train(), math.log(8)),
        (among(0, 1), train(), -math.log(0.375)),
        (among(0, 2), train(), -math.log(0.75)),
        (among(0, 1, 2), train(), 0.0),
        (among(2), train(focal_gamma=2.0), -(0.375**2) * math.log(0.625)),
        (among(0), train(focal_gamma=1.0), 0.875 * math.log(8)),
        (among(0, 1), train(focal_gamma=2.0), -(0.625**2) * math.log(0.375)),
        (among(0, 1, 2), train(focal_gamma=2.0), 0.0),
        # a tenth of the weight goes to the mean over all three classes
        (among(2), train(label_smoothing=0.1), -0.9 * math.log(0.625) - 0.1 / 3 * math.log(1 / 8 * 2 / 8 * 5 / 8)),
        (among(0, 1), train(label_smoothing=0.1), -math.log(0.375)),
        (among(2), train(label_smoothing=0.1, focal_gamma=2.0), -(0.375**2) * math.log(0.625)),
    ],
)
def test_answers_by_hand(allowed: Tensor, options: Train, expected: float) -> None:
    assert answer_loss(LOGITS, allowed, options).tolist() == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_known_classes_cost_what_torch_says(smoothing: float) -> None:
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.arange(20) % 5
    mine = answer_loss(logits, F.one_hot(labels, 5).bool(), train(label_smoothing=smoothing))
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=8),
    st.data(),
    st.sampled_from([train(), train(focal_gamma=2.0), train(focal_gamma=1.0)]),
)
def test_the_more_is_allowed_the_less_it_costs(scores: list[float], data: st.DataObject, options: Train) -> None:
    n = len(scores)
    few = data.draw(st.sets(st.integers(0, n - 1), min_size=1))
    more = few | data.draw(st.sets(st.integers(0, n - 1)))
    logits = torch.tensor([scores], requires_grad=True)
    costs = [answer_loss(logits, among(*which, of=n), options) for which in (few, more, range(n))]
    values = [float(cost.detach()) for cost in costs]
    assert values[0] >= values[1] - 1e-5 and values[1] >= -1e-6
    assert values[2] == pytest.approx(0, abs=1e-5)
    (gradient,) = torch.autograd.grad(costs[0], logits)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-4)  # a constant added to all logits changes nothing


def test_a_set_pulls_its_members_as_probable_as_they_are() -> None:
    """Nothing is learnt about which member it is: their odds stay."""
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(answer_loss(logits, among(0, 1), train()).sum(), logits)
    assert gradient[0].tolist() == pytest.approx([0.125 - 1 / 3, 0.25 - 2 / 3, 0.625], abs=1e-6)


def test_overflow_by_hand() -> None:
    state = torch.zeros(2, 2, 2, 2)
    state[0, 0, 0] = torch.tensor([3.0, -5.0])  # 1 and 3 beyond 2
    state[1, 1, 1] = torch.tensor([2.0, -2.0])
    assert overflow(state, 2.0).tolist() == [pytest.approx(4 / 8), 0.0]


def test_divergence_by_hand() -> None:
    answer, target = torch.log(torch.tensor([[0.25, 0.75], [0.3, 0.7]])), torch.log(torch.tensor([[0.5, 0.5], [0.3, 0.7]]))
    expected = [0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75), 0.0]
    assert divergence(answer + 7, target - 4).tolist() == pytest.approx(expected, abs=1e-6)


def test_all_parts_add_up_by_their_weights() -> None:
    options = train(exit_weight=0.25, overflow_bound=1.0, overflow_weight=0.5, consistency=2.0)
    early, middle, last, target = (torch.log(torch.tensor([[p, 1 - p]])) for p in (0.5, 0.6, 0.8, 0.9))
    state = torch.full((1, 2, 2, 3), 3.0)

    def kl(p: float) -> float:
        return 0.9 * math.log(0.9 / p) + 0.1 * math.log(0.1 / (1 - p))

    right = -math.log(0.8) - 0.25 * (math.log(0.5) + math.log(0.6))
    found = [objective([early, middle, last], state, among(0, of=2), t, options).tolist() for t in (None, target)]
    assert found[0] == pytest.approx([right + 0.5 * 2], abs=1e-6)
    expected = right + 0.5 * 2 + 2.0 * kl(0.8) + 2.0 * 0.25 * (kl(0.5) + kl(0.6))
    assert found[1] == pytest.approx([expected], abs=1e-6)
    assert objective([last], state, among(0, of=2), None, train()).tolist() == pytest.approx([-math.log(0.8)])


def test_images_do_not_share_their_costs() -> None:
    generator = torch.Generator().manual_seed(1)
    answers = [torch.randn(6, 4, generator=generator) for _ in range(2)]
    state, target = torch.randn(6, 3, 3, 5, generator=generator) * 4, torch.randn(6, 4, generator=generator)
    allowed = torch.rand(6, 4, generator=generator) < 0.5
    allowed[:, 0] = True
    options = train(exit_weight=0.2, overflow_bound=1.0, overflow_weight=0.5, consistency=1.0, label_smoothing=0.1)
    together = objective(answers, state, allowed, target, options)
    alone = [
        objective([a[i : i + 1] for a in answers], state[i : i + 1], allowed[i : i + 1], target[i : i + 1], options)
        for i in range(6)
    ]
    torch.testing.assert_close(together, torch.cat(alone))
