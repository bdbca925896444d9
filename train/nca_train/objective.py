"""What is minimised: the error of the answers, and what keeps the state small and the answer independent of the schedule."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nca_train.recipe import Train


def answer_loss(logits: Tensor, allowed: Tensor, options: Train) -> Tensor:
    """Cross-entropy or focal loss of images of which some are known by class and some by a set of classes only.

    A set counts by the sum of its probabilities. Label smoothing applies to single classes; the focal loss takes none.

    Parameters
    ----------
    logits : (n, classes)
    allowed : (n, classes) bool

    Returns
    -------
    (n,)
    """
    log_p = F.log_softmax(logits, 1)
    log_right = torch.logsumexp(log_p.masked_fill(~allowed, -torch.inf), 1)
    if options.focal_gamma:
        return -((1 - log_right.exp()).clamp(min=0) ** options.focal_gamma) * log_right
    smoothing = options.label_smoothing * (allowed.sum(1) == 1)
    return -(1 - smoothing) * log_right - smoothing * log_p.mean(1)


def overflow(state: Tensor, bound: float) -> Tensor:
    """(n, grid, grid, channels) -> (n,): mean of what lies beyond +-``bound``; a small range is what int8 needs."""
    return F.relu(state.abs() - bound).mean(dim=(1, 2, 3))


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """(n, classes) twice -> (n,): Kullback-Leibler divergence of the answer from the target's."""
    return F.kl_div(F.log_softmax(logits, 1), F.log_softmax(target, 1), reduction="none", log_target=True).sum(1)


def objective(
    answers: list[Tensor],
    state: Tensor,
    allowed: Tensor,
    target: Tensor | None,
    options: Train,
    taught: tuple[float, Tensor] | None = None,
) -> Tensor:
    """What one image costs.

    Parameters
    ----------
    answers : logits (n, classes) after each exit, and in the end
    state : (n, grid, grid, channels) in the end
    target : logits of the averaged weights, that the answers should agree with
    taught : share of the loss, and the teacher's logits

    Returns
    -------
    (n,)
    """

    def error(logits: Tensor) -> Tensor:
        if taught is None:
            return answer_loss(logits, allowed, options)
        share, teacher = taught
        return (1 - share) * answer_loss(logits, allowed, options) + share * divergence(logits, teacher)

    *early, last = answers
    loss = error(last)
    for logits in early:
        loss = loss + options.exit_weight * error(logits)
    if options.overflow_weight:
        loss = loss + options.overflow_weight * overflow(state, options.overflow_bound)
    if target is not None:
        loss = loss + options.consistency * divergence(last, target)
        for logits in early:
            loss = loss + options.consistency * options.exit_weight * divergence(logits, target)
    return loss
