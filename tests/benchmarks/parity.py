"""Every variant of a bundle against the NumPy reference, on real cells of known class.

python tests/benchmarks/parity.py --data DATA/acevedo20 [--fold 3b] [--model NAME|DIR] [--json FILE]

Told of the answers that a user gets, after all passes that the bundle asks for, and of a single look, one run of the graph.
Exit code 1 where a figure is beyond its bound: fp32 logits within 1e-3 of their scale and no answer changed; int8 answers agree
in 99 % and lose at most 0.3 points of accuracy.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.backends import Answer
from nca_edge.camera import read_image
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.differential import clopper_pearson
from nca_edge.labelled import LabelledImage, half, read_labelled
from nca_edge.preprocess import cell_view, correct, crop_background
from nca_edge.records import Image32
from nca_edge.trial import installed

NAMES = Path(__file__).with_name("ten_classes.json")
AGREEMENT, LOSS, RELATIVE = 0.99, 0.003, 1e-3


@dataclass(frozen=True, slots=True)
class Variant:
    """What was measured of one graph."""

    backend: str
    precision: str
    agree: int
    """Cells whose answer is the reference's."""
    agreement: float
    agreement_interval: tuple[float, float]
    right: int
    """Cells whose answer is the true class."""
    accuracy_loss: float
    """Accuracy of the reference less that of the variant."""
    look_agree: int
    """Cells whose best class after a single look is the reference's."""
    look_agreement: float
    look_agreement_interval: tuple[float, float]
    look_right: int
    """Cells whose best class after a single look is the true one."""
    relative: float
    """Largest difference of a logit of a single look, as a share of the largest logit."""
    state: float
    """Relative L2 difference of the last state, median over cells."""


def views_of(folder: Path, images: list[LabelledImage], um_per_px: float, view_um: float, size: int) -> Image32:
    """Views as the device sees them: (n, size, size, 3) float32, 0..1."""
    views = np.empty((len(images), size, size, 3), np.float32)
    for n, image in enumerate(images):
        rgb = read_image(folder / image.file)
        center = (rgb.shape[1] / 2, rgb.shape[0] / 2)
        views[n] = cell_view(correct(rgb, crop_background(rgb)), center, um_per_px, view_um, size)
    return views


def of_classes(folder: Path, fold: str, classes: tuple[str, ...]) -> list[LabelledImage]:
    """Images of that half of a fold that show one of the classes."""
    left_out = set(json.loads(NAMES.read_text("utf-8")))
    listed = [image for image in read_labelled(folder) if f"{image.fold}{half(image.file)}" == fold]
    return [image for image in listed if image.label in classes and image.label not in left_out]


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Relative L2 difference of each cell, median."""
    flat = [array.reshape(len(array), -1) for array in (found, expected)]
    return float(np.median(np.linalg.norm(flat[0] - flat[1], axis=1) / np.linalg.norm(flat[1], axis=1)))


def looked_at(classifier: Classifier, views: Image32) -> tuple[Answer, NDArray[np.int64]]:
    """What a single look at each cell gives, and the index of the class that it is named after all its passes."""
    first, named = [], []
    for view in views:
        (seen,) = classifier.look(view[None])
        first.append((seen.each[0], seen.states[0], seen.mask_states[0]))
        named.append(int(seen.logits.argmax()))
    logits, states, mask_states = (np.stack(part) for part in zip(*first, strict=True))
    return Answer(logits, states, mask_states), np.array(named)


def measure(folder: Path, fold: str, um_per_px: float, model: str | None, cells: int | None = None) -> dict[str, Any]:
    """Run the same real cells through the reference and each variant; ``cells``: only so many of them, evenly spread."""
    reference = load(ModelChoice(model, "numpy", threads=1))
    manifest = reference.bundle.manifest
    images = of_classes(folder, fold, manifest.classes)
    if cells is not None:
        images = [images[i] for i in np.linspace(0, len(images) - 1, cells).round().astype(int)]
    views = views_of(folder, images, um_per_px, reference.view_um, reference.size)
    truth = np.array([manifest.classes.index(image.label) for image in images])
    expected, answers = looked_at(reference, views)
    right, look_right = int((answers == truth).sum()), int((expected.logits.argmax(1) == truth).sum())
    variants = []
    for backend, precision in sorted(v for v in reference.bundle.file_of() if installed(v[0])):
        found, best = looked_at(load(ModelChoice(model, backend, precision, threads=1)), views)
        agree, true = int((best == answers).sum()), int((best == truth).sum())
        once = found.logits.argmax(1)
        look_agree, look_true = int((once == expected.logits.argmax(1)).sum()), int((once == truth).sum())
        apart, n = np.abs(found.logits - expected.logits).max(), len(images)
        relative, state = float(apart / np.abs(expected.logits).max()), difference(found.state, expected.state)
        variants.append(
            Variant(
                backend, precision, agree, agree / n, clopper_pearson(agree, n), true, (right - true) / n,
                look_agree, look_agree / n, clopper_pearson(look_agree, n), look_true, relative, state,
            )
        )  # fmt: skip
    return {
        "fold": fold,
        "n": len(images),
        "right": right,
        "look_right": look_right,
        "variants": [asdict(variant) for variant in variants],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled crops with folds")
    parser.add_argument("--fold", default="3b", help="half of a fold")
    parser.add_argument("--um-per-px", type=float, default=0.225, help="scale of the crops; default: that of acevedo20")
    parser.add_argument("--model", help="name of a shipped bundle or a folder")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    result = measure(given.data, given.fold, given.um_per_px, given.model)
    beyond = False
    print(f"{result['n']} cells of fold {result['fold']}; the reference has {result['right']} right")
    for v in result["variants"]:
        print(
            f"{v['backend']:<7} {v['precision']}: {v['agreement']:.2%} agree ({v['look_agreement']:.2%} after one look), "
            f"accuracy {-100 * v['accuracy_loss']:+.2f} points, "
            f"logits {v['relative']:.2g} of their scale, state {v['state']:.2g}"
        )
        exact = v["relative"] <= RELATIVE and v["agreement"] == 1
        near = v["agreement"] >= AGREEMENT and v["accuracy_loss"] <= LOSS
        beyond |= not (exact if v["precision"] == "fp32" else near)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(beyond)


if __name__ == "__main__":
    main()
