"""Which of the top channels stay when the view, the fire schedule or the arithmetic changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import draw_fire
from nca_edge.backends import Answer, NumpyBackend
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.explain import TOP_CHANNELS, Question, mean_relevance, strongest
from nca_edge.explainer import relevances
from nca_edge.faithful import overlap
from nca_edge.passes import ALWAYS, TURNS, Look, Passes, look
from nca_edge.preprocess import normalise
from nca_edge.records import Image32

CHANGES = ("rotation", "flip", "stain", "fire", "precision")
STAIN_SPREAD = 0.05
"""Standard deviation of the logarithm of the factor on each colour's absorbance."""
SEEDS = (1, 2)
"""Of other fire schedules than the bundle's."""
EVERY = Passes(len(TURNS), ALWAYS)
"""All looks, whatever the first one says."""

Network = Callable[[Image32], Answer]
"""(n, size, size, 3) corrected views, 0..1 -> answer."""


class Steadiness:
    """Tries changes on cells.

    Parameters
    ----------
    choice : the classifier was loaded by it
    """

    def __init__(self, classifier: Classifier, choice: ModelChoice, rng: np.random.Generator) -> None:
        self.classifier, self.rng = classifier, rng
        m, weights = classifier.bundle.manifest, classifier.bundle.weights
        self.schedules = [NumpyBackend(m.architecture, weights, draw_fire(m.architecture, seed)) for seed in SEEDS]
        self.other = _other_precision(classifier, choice)

    def tried(self, view: Image32, label: str) -> Iterator[tuple[bool, str, float]]:
        """For each change of one cell: whether all looks were taken or those of its answer, the change, and the share of the
        top channels that stay. Other schedules are tried on the answer's looks alone: the reference is slow."""
        own = _remembering(self.classifier.answer)
        for every, passes in ((False, self.classifier.passes), (True, EVERY)):
            first = self._top(own, view, passes, label)
            for name, network, changed in self._changes(view, own, not every):
                yield every, name, overlap(first, self._top(network, changed, passes, label))

    def _changes(self, view: Image32, own: Network, schedules: bool) -> Iterator[tuple[str, Network, Image32]]:
        for k in (1, 2, 3):
            yield "rotation", own, np.ascontiguousarray(np.rot90(view, k))
        for k in range(4):
            yield "flip", own, np.ascontiguousarray(np.rot90(view[:, ::-1], k))
        gain = np.exp(self.rng.normal(0, STAIN_SPREAD, 3)).astype(np.float32)
        yield "stain", own, np.power(np.maximum(view, np.float32(1e-3)), gain)
        for backend in self.schedules if schedules else []:
            yield "fire", self._normalised(backend), view
        if self.other is not None:
            yield "precision", self.other.answer, view

    def _normalised(self, backend: NumpyBackend) -> Network:
        return lambda views: backend(normalise(views, self.classifier.mean, self.classifier.std))

    def _top(self, network: Network, view: Image32, passes: Passes, label: str) -> NDArray[np.int64]:
        (seen,) = look(view[None], network, passes, self.classifier.confidence)
        return top(self.classifier, seen, label)


def top(classifier: Classifier, seen: Look, label: str) -> NDArray[np.int64]:
    """The top channels of a class, as explanations list them."""
    return strongest(mean_relevance(relevances(classifier.bundle, seen, Question(label))))[:TOP_CHANNELS]


def _remembering(network: Network) -> Network:
    """A turned view's looks are those of the view itself in another order: each is computed once."""
    known: dict[bytes, Answer] = {}

    def answer(views: Image32) -> Answer:
        for view in views:
            if view.tobytes() not in known:
                known[view.tobytes()] = network(view[None])
        found = [known[view.tobytes()] for view in views]
        return Answer(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    return answer


def _other_precision(classifier: Classifier, choice: ModelChoice) -> Classifier | None:
    """The same bundle and backend in 8 bits, or in float32 where 8 bits were asked for; None where there is only one."""
    other = "int8" if classifier.precision == "fp32" else "fp32"
    if (classifier.backend.name, other) not in classifier.bundle.file_of():
        return None
    return load(replace(choice, backend=classifier.backend.name, precision=other))
