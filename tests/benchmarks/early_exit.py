"""What it would bring to stop at an earlier step where the answer is already sure.

    python tests/benchmarks/early_exit.py --data DIR [--model NAME|DIR] [--every 12] [--json FILE]

DIR holds acevedo20. Half a of fold 3 sets the bound: the least confidence from which no answer at that step differs from the
last step's; half b says what share of cells then ends there, and how many of their answers differ. The NumPy reference steps,
on one look at each cell. What the steps cost is what `field.py` measures (`model`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge import preprocess
from nca_edge.backends import NumpyBackend
from nca_edge.camera import read_image
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.labelled import half, read_labelled

EXITS = (8, 12)
"""Steps after which the shipped recipe trains the head to answer too."""
FOLD, UM_PER_PX = 3, 0.225


def probabilities(path: Path, classifier: Classifier) -> NDArray[np.float64]:
    """(exits + 1, classes) calibrated as the bundle calibrates its last step."""
    backend = classifier.backend
    if not isinstance(backend, NumpyBackend):
        raise TypeError("the reference steps")
    rgb = read_image(path)
    corrected = preprocess.correct(rgb, preprocess.crop_background(rgb))
    center = (rgb.shape[1] / 2, rgb.shape[0] / 2)
    view = preprocess.cell_view(corrected, center, UM_PER_PX, classifier.view_um, classifier.size)
    state, rows = backend.seed_state(preprocess.normalise(view, classifier.mean, classifier.std)), []
    for number, fire in enumerate(backend.fire, start=1):
        backend.step(state, fire)
        if number in (*EXITS, len(backend.fire)):
            rows.append(classifier.probabilities(backend.head(backend.pool(state))))
    return np.array(rows)


def measure(data: Path, every: int, classifier: Classifier) -> list[dict[str, Any]]:
    """A row for each exit."""
    halves = []
    for part in "ab":
        images = [i for i in read_labelled(data / "acevedo20") if i.fold == FOLD and half(i.file) == part][::every]
        halves.append(
            (np.stack([probabilities(data / "acevedo20" / i.file, classifier) for i in images]), [i.label for i in images])
        )
    (setting, _), (judged, labels) = halves
    classes, out = list(classifier.bundle.manifest.classes), []
    truth = np.array([classes.index(label) if label in classes else -1 for label in labels])
    for n, step in enumerate(EXITS):
        differs = setting[:, n].argmax(1) != setting[:, -1].argmax(1)
        bound = float(np.max(setting[differs, n].max(1), initial=0.0))
        ends = judged[:, n].max(1) > bound
        changed = ends & (judged[:, n].argmax(1) != judged[:, -1].argmax(1))
        out.append({
            "step": step, "of": classifier.bundle.manifest.architecture.steps, "set_on": len(setting), "bound": bound,
            "judged_on": len(judged), "end_there": int(ends.sum()), "answers_changed": int(changed.sum()),
            "accuracy_there": float((judged[:, n].argmax(1) == truth).mean()),
            "accuracy_at_the_end": float((judged[:, -1].argmax(1) == truth).mean()),
        })  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="What early exits would bring.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--every", type=int, default=12, help="every so many-th cell")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    rows = measure(args.data, args.every, load(ModelChoice(args.model, "numpy", threads=1)))
    for row in rows:
        print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
