"""Cells in, predictions out: a verified bundle on a backend that reproduced its golden cells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca_edge import preprocess, trial
from nca_edge.backends import (
    BACKENDS,
    CPU,
    Answer,
    Backend,
    LitertBackend,
    NativeBackend,
    NumpyBackend,
    OnnxBackend,
    gpu_providers,
    resolve,
    short,
)
from nca_edge.bundle import Bundle, find_bundle, load_bundle
from nca_edge.errors import BundleError, UsageError
from nca_edge.explain import Question
from nca_edge.explainer import Sight, explain
from nca_edge.neighbours import Neighbour
from nca_edge.passes import ALWAYS, Look, Passes, look, look_again
from nca_edge.profiles import detect_board
from nca_edge.records import Explanation, Image8, Image32, Prediction, RunFacts
from nca_edge.stopwatch import Watch, untimed

GOLDEN_TOLERANCE = {"fp32": 1e-3, "int8": 0.05}
"""Largest difference from the golden logits of the same variant, as a share of the largest: int8 products of another CPU
round and saturate otherwise."""

PROVIDERS = "providers"
"""Under this name the benchmark remembers what ONNX Runtime's providers take, where there is more than the CPU."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What a user can say about the model; the same for every command."""

    model: str | None = None
    """Name of a shipped bundle or a folder; None: the default."""
    backend: str = "auto"
    precision: str = "fp32"
    threads: int = 0
    """0: what this board's profile says."""
    trial: bool = True
    """Try the backend in a process of its own first."""
    provider: str | None = None
    """Of ONNX Runtime; None: a GPU's that has proved itself here, else the CPU."""
    passes: int = 0
    """Looks at every cell; 0: as many as the bundle says, and only where the first is not sure."""


class Classifier:
    """A model that is ready to answer.

    Parameters
    ----------
    bundle : verified
    backend : reproduces the bundle's golden cells (``load`` has checked it)
    """

    def __init__(self, bundle: Bundle, backend: Backend, precision: str, threads: int) -> None:
        self.bundle, self.backend, self.precision, self.threads = bundle, backend, precision, threads
        manifest = bundle.manifest
        self.mean, self.std = np.asarray(manifest.mean, np.float32), np.asarray(manifest.std, np.float32)
        self.passes = Passes(manifest.passes, manifest.more_passes_below)

    @property
    def view_um(self) -> float:
        """Side of the view of one cell, um."""
        return self.bundle.manifest.view_um

    @property
    def size(self) -> int:
        """Side of that view, px."""
        return self.bundle.manifest.architecture.size

    def answer(self, views: Image32) -> Answer:
        """(n, size, size, 3) corrected views, 0..1 -> logits and states."""
        return self.backend(preprocess.normalise(views, self.mean, self.std))

    def look(self, views: Image32) -> list[Look]:
        """(n, size, size, 3) corrected views, 0..1 -> one look a cell, several passes where the first is not sure."""
        return look(views, self.answer, self.passes, self.confidence)

    def look_again(self, seen: Look, view: Image32, looks: int) -> Look:
        """The same cell in at least so many looks; ``view``: (size, size, 3) corrected, 0..1."""
        return look_again(seen, view, self.answer, looks)

    def confidence(self, logits: NDArray[np.float32]) -> float:
        """(classes,) logits -> calibrated probability of the best class."""
        return float(self.probabilities(logits).max())

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., classes) logits -> calibrated probabilities."""
        scaled = logits.astype(np.float64) / self.bundle.manifest.temperature
        p = np.exp(scaled - scaled.max(-1, keepdims=True))
        return np.asarray(p / p.sum(-1, keepdims=True))

    def predict(self, seen: Look) -> Prediction:
        """All looks at one cell -> calibrated answer."""
        manifest = self.bundle.manifest
        p = self.probabilities(seen.logits)
        best = int(np.argmax(p))
        named = {name: float(value) for name, value in zip(manifest.classes, p, strict=True)}
        unsure = bool(p[best] < manifest.unsure_below)
        spread = float(self.probabilities(seen.each)[:, best].std())
        return Prediction(manifest.classes[best], float(p[best]), unsure, named, len(seen.each), spread)

    def explain(
        self, seen: Look, crop: Image32, asked: Question, watch: Watch = untimed, neighbours: tuple[Neighbour, ...] = ()
    ) -> Explanation:
        """Why a class and where; masks of the passes are compared where a number of them was asked for."""
        return explain(self.bundle, seen, Sight(crop, asked, self.passes.below >= ALWAYS, neighbours), watch)

    def history(self, view: Image32) -> Image32:
        """State of one cell before the first step and after each, by the NumPy reference: (steps + 1, grid, grid, channels).

        Parameters
        ----------
        view : (size, size, 3) corrected, 0..1
        """
        m = self.bundle
        reference = NumpyBackend(m.manifest.architecture, m.weights, m.fire)
        states = [reference.seed_state(preprocess.normalise(view, self.mean, self.std))]
        for fire in m.fire:
            states.append(states[-1].copy())
            reference.step(states[-1], fire)
        return np.stack(states)

    def check(self, asked: Question) -> None:
        """Refuse classes that the bundle lacks.

        Raises
        ------
        UsageError
        """
        for option, name in (("--class", asked.label), ("--against", asked.against)):
            if name is not None and name not in self.bundle.manifest.classes:
                known = ", ".join(self.bundle.manifest.classes)
                raise UsageError(f"{option} {name}: this model does not know that class; it knows {known}.")
        if asked.label is not None and asked.label == asked.against:
            raise UsageError(f"--against {asked.against}: is the class itself; give another one.")

    def facts(self, um_per_px: float | None) -> RunFacts:
        """What a session keeps of this model."""
        m = self.bundle.manifest
        about = {
            "name": m.name, "parameters": m.architecture.parameters, "gmac_per_look": round(m.architecture.macs / 1e9, 3),
            "looks_at_most": m.passes, "more_looks_below": m.more_passes_below,
            "view_um": m.view_um, "unsure_below": m.unsure_below, "metrics": m.metrics, "data": list(m.data),
        }  # fmt: skip
        if isinstance(self.backend, OnnxBackend):
            about["provider"] = short(self.backend.provider)
        return RunFacts(
            m.name, self.bundle.sha256, self.backend.name, self.precision, self.threads, um_per_px, m.classes, m.groups, about
        )


def load(choice: ModelChoice) -> Classifier:
    """Load a bundle on a backend and check that it reproduces the golden cells.

    Raises
    ------
    UsageError
        No such model, backend or precision.
    BundleError
        The bundle is damaged, or the backend's answers are not the reference's.
    """
    if choice.threads < 0:
        raise UsageError("--threads must be 1 or more, or 0 for this board's default.")
    threads = choice.threads or detect_board().default_threads()
    bundle = load_bundle(find_bundle(choice.model))
    name, file = _living(choice, bundle)
    backend: Backend
    manifest = bundle.manifest
    if name == "numpy":
        backend = NumpyBackend(manifest.architecture, bundle.weights, bundle.fire, manifest.mask_step)
    elif name == "litert":
        backend = LitertBackend(file, bundle.contents[file], manifest.architecture, threads, manifest.mask_step)
    elif name == "native":
        backend = NativeBackend(file, bundle.contents[file], manifest.architecture, threads, manifest.mask_step)
    else:
        asked = (file, bundle.contents[file], manifest.architecture, threads, manifest.mask_step)
        backend = OnnxBackend(*asked, choice.provider or _proven_provider(choice, bundle))
    classifier = Classifier(bundle, backend, choice.precision, threads)
    if choice.passes:
        classifier.passes = Passes(choice.passes, ALWAYS)
    check_golden(classifier, file)
    return classifier


def _living(choice: ModelChoice, bundle: Bundle) -> tuple[str, str]:
    """The first backend, and its file, that this board survives.

    Raises
    ------
    UsageError
        The bundle lacks what was asked for, or the board survives none.
    """
    if choice.backend == "auto":
        there = [name for name in BACKENDS if trial.installed(name)]
        names: Sequence[str] = trial.quickest_first(bundle.sha256, choice.precision, there)
    else:
        names = (choice.backend,)
    problems: list[str] = []
    for name, file in resolve(names, choice.precision, bundle.file_of()):
        wrong = trial.problem(bundle.folder.resolve(), name, choice.precision) if choice.trial and name != "numpy" else None
        if wrong is None:
            for sentence in problems:
                logging.getLogger(__name__).warning("%s; the %s backend is used instead.", sentence, name)
            return name, file
        problems.append(wrong)
    raise UsageError("; ".join(problems) + "; choose another --backend.")


def proven_providers(bundle: Bundle, say: Callable[[str], None]) -> Iterator[str]:
    """GPU providers that reproduce the golden cells in a process of their own, in the order of the last benchmark.

    Parameters
    ----------
    say : is told of each that does not
    """
    for provider in trial.quickest_first(bundle.sha256, PROVIDERS, gpu_providers()):
        wrong = trial.problem(bundle.folder.resolve(), "onnx", "fp32", provider=provider)
        if wrong is None:
            yield provider
        else:
            say(f"{short(provider)} was tried and is not used: {wrong}")


def _proven_provider(choice: ModelChoice, bundle: Bundle) -> str:
    """What ONNX Runtime computes with; 8-bit graphs are made for CPUs."""
    if not choice.trial or choice.precision != "fp32":
        return CPU
    quickest = trial.quickest_first(bundle.sha256, PROVIDERS, [*gpu_providers(), CPU])[0]
    return CPU if quickest == CPU else next(proven_providers(bundle, logging.getLogger(__name__).warning), CPU)


def check_golden(classifier: Classifier, file: str) -> None:
    """Refuse a backend whose logits of the golden cells are not the reference's.

    Raises
    ------
    BundleError
        Naming the file.
    """
    bundle, name = classifier.bundle, f"{classifier.backend.name}-{classifier.precision}"
    golden = bundle.golden_variants.get(name, bundle.golden_logits)
    logits = classifier.answer(from_8bit(classifier.bundle.golden_views)).logits
    worst = float(np.abs(logits - golden).max() / np.abs(golden).max())
    if not worst <= GOLDEN_TOLERANCE[classifier.precision]:
        raise BundleError(
            f"{file}: answers of the {classifier.backend.name} backend differ from the golden cells by {worst:.2g} of their "
            f"scale (allowed {GOLDEN_TOLERANCE[classifier.precision]:g}); export the bundle again or choose another --backend."
        )


def from_8bit(views: Image8) -> Image32:
    """uint8 views, as bundles and data sets keep them -> float32 0..1."""
    return views.astype(np.float32) / np.float32(255)
