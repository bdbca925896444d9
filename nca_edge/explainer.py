"""Why and where, from all looks at one cell: relevance, peaks, mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nca_edge.automaton import pool
from nca_edge.bundle import Bundle
from nca_edge.explain import Question, Relevance, head_relevance, mean_relevance, top_channels
from nca_edge.mask import cell_mask
from nca_edge.measure import outside_share
from nca_edge.neighbours import Neighbour
from nca_edge.passes import Look, turned_back
from nca_edge.records import Explanation, Image8, Image32
from nca_edge.stopwatch import Watch, untimed


@dataclass(frozen=True, slots=True)
class Sight:
    """What is asked of one cell."""

    crop: Image32
    """(n, n, 3) the view at the image's own resolution, corrected."""
    asked: Question
    """Names a class of the bundle."""
    compared: bool = False
    """Also say how far the masks of the other looks agree with the first."""
    neighbours: tuple[Neighbour, ...] = ()
    """Other cells of its field that the crop may show."""


def explain(bundle: Bundle, seen: Look, sight: Sight, watch: Watch = untimed) -> Explanation:
    """Relevance of the mean over all looks, peaks of the looks in which channels said most, mask of the first."""
    architecture, asked = bundle.manifest.architecture, sight.asked
    if asked.label is None:
        raise ValueError("asked must name a class: Question.of does")
    with watch("lrp"):
        each = relevances(bundle, seen, asked)
        relevance = mean_relevance(each)
        upright = [np.asarray(turned_back(state[None], n)[0], np.float32) for n, state in enumerate(seen.states)]
        top = top_channels(each, upright, architecture.pool, sight.crop.shape[0])
    logit = float(relevance.channels.sum() + relevance.bias_share + relevance.epsilon_share)
    with watch("mask"):
        # the image channels would draw red cells into the mask: IoU 0.53 against 0.57 on 33 segwbc2 cells
        mask = cell_mask(seen.mask_states[0][..., architecture.image_channels :], sight.crop, sight.neighbours)
        agreement = _agreement(bundle, mask, seen, sight) if sight.compared else None
    return Explanation(
        asked.label, logit, top, relevance.bias_share, relevance.epsilon_share, mask, outside_share(top, mask),
        against=asked.against, looks=len(seen.states), mask_agreement=agreement,
    )  # fmt: skip


def relevances(bundle: Bundle, seen: Look, asked: Question) -> list[Relevance]:
    """In each look, for the class that was asked for."""
    architecture, classes = bundle.manifest.architecture, bundle.manifest.classes
    target = classes.index(asked.label or "")
    against = None if asked.against is None else classes.index(asked.against)
    pools = architecture.features // architecture.channels
    pooled = [pool(state, architecture.pool) for state in seen.states]
    return [head_relevance(v, bundle.weights, target, pools, against) for v in pooled]


def _agreement(bundle: Bundle, mask: Image8, seen: Look, sight: Sight) -> float | None:
    """Mean overlap (IoU) of the masks of the other looks with that of the first; None where there was one look."""
    first, shares = mask > 0, []
    for number, state in enumerate(seen.mask_states[1:], start=1):
        back = np.asarray(turned_back(state[None], number)[0], np.float32)
        hidden = back[..., bundle.manifest.architecture.image_channels :]
        other = cell_mask(hidden, sight.crop, sight.neighbours) > 0
        either = int((first | other).sum())
        shares.append(float((first & other).sum()) / either if either else 1.0)
    return float(np.mean(shares)) if shares else None
