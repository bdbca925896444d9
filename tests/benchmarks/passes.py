"""What several looks at a cell bring: accuracy, answers that another fire schedule changes, and how well doubt tells errors.

Usage: python -m tests.benchmarks.passes --data DIR/acevedo20 [--fold 3a] [--model NAME|DIR] [--every N] [--json FILE]
Half 3a chooses the bundle's ``passes`` and ``more_passes_below``; half 3b reports. Needs the extra export.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import draw_fire
from nca_edge.backends import OnnxBackend
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.passes import TURNS, turned
from nca_edge.records import Image32
from nca_export.onnx_graph import build_onnx
from tests.benchmarks.parity import of_classes, views_of

MOST, BELOW = (1, 2, 4, 8), (0.6, 0.7, 0.8, 0.9, 2.0)
UM_PER_PX = 0.225
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One choice of ``Passes``."""

    most: int
    below: float
    passes: float
    """Mean over the cells."""
    right: int
    accuracy: float
    changed: float
    """Share of answers that another schedule changes."""
    auroc: float
    """Area under the curve of one less confidence for telling errors from hits."""
    auroc_interval: tuple[float, float]
    """95 %, bootstrap over cells."""


def logits_of(classifier: Classifier, views: Image32, seed: int | None) -> NDArray[np.float32]:
    """(turns, n, classes) under the bundle's schedule or that of a seed."""
    bundle, reader = classifier.bundle, classifier
    if seed is not None:
        a = bundle.manifest.architecture
        graph = build_onnx(a, bundle.weights, draw_fire(a, seed))
        reader = Classifier(bundle, OnnxBackend("model.onnx", graph, a, classifier.threads), "fp32", classifier.threads)
    each = []
    for number in range(len(TURNS)):
        seen = np.asarray(turned(views, number), np.float32)
        each.append(np.concatenate([reader.answer(seen[n : n + 16]).logits for n in range(0, len(seen), 16)]))
    return np.stack(each)


def auroc(doubt: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Chance that an error has more doubt than a hit (Hanley and McNeil 1982); ties count half."""
    from scipy.stats import rankdata

    ranks, n = rankdata(doubt), int(wrong.sum())
    return float((ranks[wrong].sum() - n * (n + 1) / 2) / (n * (len(wrong) - n)))


def row(classifier: Classifier, schedules: list[NDArray[np.float32]], truth: NDArray[np.int64], most: int, below: float) -> Row:
    """Look as ``passes.look`` would."""
    named = []
    for each in schedules:
        again = classifier.probabilities(each[0]).max(1) < below
        named.append(np.where(again[:, None], each[:most].mean(0), each[0]))
    again = classifier.probabilities(schedules[0][0]).max(1) < below
    answers = [logits.argmax(1) for logits in named]
    doubt, wrong = 1 - classifier.probabilities(named[0]).max(1), answers[0] != truth
    draws = np.random.default_rng(0).integers(0, len(truth), (RESAMPLES, len(truth)))
    low, high = np.percentile([auroc(doubt[d], wrong[d]) for d in draws], [2.5, 97.5])
    return Row(
        most, below, 1 + (most - 1) * float(again.mean()), int((~wrong).sum()), float((~wrong).mean()),
        float((answers[0] != answers[1]).mean()), auroc(doubt, wrong), (float(low), float(high)),
    )  # fmt: skip


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled crops with folds")
    parser.add_argument("--fold", default="3a", help="half of a fold")
    parser.add_argument("--model", help="name of a shipped bundle or a folder")
    parser.add_argument("--every", type=int, default=1, help="only every n-th cell")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    classifier = load(ModelChoice(given.model, "onnx"))
    manifest = classifier.bundle.manifest
    images = of_classes(given.data, given.fold, manifest.classes)[:: given.every]
    views = views_of(given.data, images, UM_PER_PX, classifier.view_um, classifier.size)
    truth = np.array([manifest.classes.index(image.label) for image in images])
    own = classifier.bundle.fire
    seed = next(s for s in range(1, 100) if not np.array_equal(draw_fire(manifest.architecture, s), own))
    schedules = [logits_of(classifier, views, None), logits_of(classifier, views, seed)]
    rows = [row(classifier, schedules, truth, m, b) for m in MOST for b in (BELOW if m > 1 else (0.0,))]
    print(
        f"{manifest.name}: {len(truth)} cells of fold {given.fold}\n  at most  below   mean  accuracy  changed  AUROC of doubt"
    )
    for r in rows:
        interval = f"{r.auroc:.3f} ({r.auroc_interval[0]:.3f} - {r.auroc_interval[1]:.3f})"
        print(f"  {r.most:>7}  {r.below:>5g}  {r.passes:>5.2f}  {r.accuracy:>8.4f}  {r.changed:>7.4f}  {interval}")
    if given.json:
        facts = {"model": manifest.name, "manifest_sha256": classifier.bundle.sha256, "fold": given.fold, "n": len(truth)}
        table = {**facts, "other_seed": seed, "rows": [asdict(r) for r in rows]}
        given.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
