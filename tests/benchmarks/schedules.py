"""How many answers change when the same cell is seen under another fire schedule, or with its scale estimated instead of given.

Usage: python tests/benchmarks/schedules.py --data DIR [--model NAME|DIR] [--schedules 4] [--every N] [--json FILE]
DIR holds acevedo20 (fold 3, half b, is read) and chula; needs the extra export. An answer is the best of all classes; on chula,
whose labels are groups, it is right where the best of the five groups is (as in clinics.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import combinations, count, islice
from pathlib import Path

import numpy as np
from foreign import BOXED, Cell, best_group, read_cells
from numpy.typing import NDArray

from nca_edge.automaton import draw_fire
from nca_edge.backends import OnnxBackend
from nca_edge.camera import read_image
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.differential import clopper_pearson
from nca_edge.errors import NcaEdgeError, UsageError
from nca_edge.labelled import half, read_labelled
from nca_edge.passes import Look
from nca_edge.records import Image32, Prediction
from nca_edge.single_cell import read_crop
from nca_export.onnx_graph import build_onnx

HOME, FOLD, UM_PER_PX = "acevedo20", 3, 0.225
"""The data set that the model was trained on, the fold it has not seen, and the scale of its images."""


class Schedules(Classifier):
    """The bundle's own classifier, which keeps what it would have said under other schedules.

    Parameters
    ----------
    classifier : the bundle's own
    others : how many other schedules
    """

    def __init__(self, classifier: Classifier, others: int) -> None:
        bundle, threads = classifier.bundle, classifier.threads
        super().__init__(bundle, classifier.backend, classifier.precision, threads)
        architecture = bundle.manifest.architecture
        # the bundle's own seed may be among the first: the same schedule twice would count as one that changes nothing
        drawn = ((seed, draw_fire(architecture, seed)) for seed in count(1))
        chosen = list(islice(((s, f) for s, f in drawn if not np.array_equal(f, bundle.fire)), others))
        self.seeds = [seed for seed, _ in chosen]
        graphs = [build_onnx(architecture, bundle.weights, fire) for _, fire in chosen]
        backends = [OnnxBackend("model.onnx", graph, architecture, threads) for graph in graphs]
        self.others = [Classifier(bundle, backend, classifier.precision, threads) for backend in backends]
        self.said: list[Prediction] = []
        """Of the last cell, by schedule, the bundle's own first."""

    def look(self, views: Image32) -> list[Look]:
        own = super().look(views)
        self.said = [self.predict(own[0]), *(other.predict(other.look(views)[0]) for other in self.others)]
        return own


@dataclass(frozen=True, slots=True)
class Views:
    """Answers to all cells of one set."""

    answers: NDArray[np.int64]
    """(schedules, n) index of the best class."""
    right: NDArray[np.bool_]
    """(schedules, n)."""


@dataclass(frozen=True, slots=True)
class Result:
    """How steady the answers of one set are; the bundle's own schedule comes first."""

    set: str
    um_per_px: float | None
    """Scale that was given; None: estimated from each image."""
    n: int
    changed: list[float]
    """Share of answers that differ from those under the bundle's own schedule, by other schedule."""
    changed_pairs: float
    """The same between two schedules, mean over all pairs."""
    accuracy: list[float]
    """By schedule."""


def home_cells(folder: Path, classes: tuple[str, ...], every: int) -> Iterator[Cell]:
    """Every n-th cell of the half of the fold that figures are reported on."""
    listed = [i for i in read_labelled(folder) if i.fold == FOLD and half(i.file) == "b" and i.label in classes]
    if not listed:
        raise UsageError(f"{folder}: fold {FOLD} holds no image of a class of this model; choose another --model.")
    for image in listed[::every]:
        yield Cell(image.label, read_image(folder / image.file))


def view(cells: Iterable[Cell], schedules: Schedules, um_per_px: float | None, groups: bool) -> Views:
    """Read each cell once, under all schedules. ``groups``: the labels are groups."""
    manifest = schedules.bundle.manifest
    answers, right = [], []
    for cell in cells:
        read_crop(cell.rgb, schedules, um_per_px, explain=False)
        named = [best_group(p.probabilities, manifest) if groups else p.label for p in schedules.said]
        answers.append([manifest.classes.index(p.label) for p in schedules.said])
        right.append([name == cell.label for name in named])
    return Views(np.array(answers, np.int64).T, np.array(right, np.bool_).T)


def summarise(name: str, um_per_px: float | None, views: Views) -> Result:
    """Count what differs."""
    own, *others = views.answers
    pairs = [float((a != b).mean()) for a, b in combinations(views.answers, 2)]
    changed = [float((other != own).mean()) for other in others]
    return Result(name, um_per_px, len(own), changed, float(np.mean(pairs)), views.right.mean(1).tolist())


def show(result: Result) -> None:
    """Print one set."""
    scale = "scale estimated" if result.um_per_px is None else f"{result.um_per_px:g} um per pixel given"
    print(f"{result.set}, {scale}: {result.n} cells")
    print("  accuracy by schedule  ", *(f"{value:.3f}" for value in result.accuracy))
    print("  answers changed         -  ", *(f"{value:.3f}" for value in result.changed))
    print(f"  mean over all pairs    {result.changed_pairs:.3f}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", help="name of a shipped bundle or a folder")
    parser.add_argument("--schedules", type=int, default=4, help="besides the bundle's own")
    parser.add_argument("--every", type=int, default=1, help="only every n-th cell")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    if min(given.schedules, given.every) < 1:
        parser.error("--schedules and --every must be 1 or more.")
    results, views = [], []
    try:
        classifier = load(ModelChoice(model=given.model))
        schedules = Schedules(classifier, given.schedules)
        print(
            f"{classifier.bundle.manifest.name}: its own schedule, then those of seeds {', '.join(map(str, schedules.seeds))}"
        )
        for name, um_per_px in ((HOME, UM_PER_PX), (HOME, None), (BOXED, None)):
            folder, classes = given.data / name, classifier.bundle.manifest.classes
            cells = read_cells(folder, given.every) if name == BOXED else home_cells(folder, classes, given.every)
            views.append(view(cells, schedules, um_per_px, groups=name == BOXED))
            results.append(summarise(name, um_per_px, views[-1]))
            show(results[-1])
    except NcaEdgeError as error:
        parser.error(str(error))
    differ = views[0].answers[0] != views[1].answers[0]
    interval = clopper_pearson(int(differ.sum()), len(differ))
    print(f"{HOME}: answers changed where the scale is estimated instead of given, own schedule", end=" ")
    print(f"{differ.mean():.3f} ({interval[0]:.3f} - {interval[1]:.3f})")
    if given.json:
        figures = {
            "model": classifier.bundle.manifest.name, "manifest_sha256": classifier.bundle.sha256, "seeds": schedules.seeds,
            "sets": [asdict(result) for result in results],
            "changed_by_scale": float(differ.mean()), "changed_by_scale_interval": interval,
        }  # fmt: skip
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
