"""How far apart two backends are on real cells: largest difference of any logit, as a share of the logits' scale.

python tests/benchmarks/parity.py --data ../shared/data/acevedo20 [--model NAME|DIR] [--backend onnx] [--cells 64]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nca_edge.camera import read_image
from nca_edge.classifier import ModelChoice, load
from nca_edge.labelled import read_labelled
from nca_edge.preprocess import cell_view, correct, crop_background
from nca_edge.records import Image32


class Parity(NamedTuple):
    """What was measured."""

    cells: int
    classes: int
    scale: float
    """Largest absolute logit of the reference."""
    worst: float
    """Largest absolute difference of any logit of any cell."""
    state: float
    """The same of the states, absolute."""
    answers_changed: int

    @property
    def relative(self) -> float:
        """``worst`` as a share of ``scale``."""
        return self.worst / self.scale


def real_views(folder: Path, cells: int, um_per_px: float, view_um: float, size: int) -> Image32:
    """Views of images spread evenly over a labelled data set: (cells, size, size, 3) float32, 0..1."""
    listed = read_labelled(folder)
    chosen = [listed[i] for i in np.linspace(0, len(listed) - 1, cells).round().astype(int)]
    views = []
    for image in chosen:
        rgb = read_image(folder / image.file)
        center = (rgb.shape[1] / 2, rgb.shape[0] / 2)
        views.append(cell_view(correct(rgb, crop_background(rgb)), center, um_per_px, view_um, size))
    return np.stack(views)


def compare(folder: Path, cells: int, um_per_px: float, model: str | None, backend: str) -> Parity:
    """Run the same real cells through the NumPy reference and ``backend``."""
    reference = load(ModelChoice(model, "numpy", threads=1))
    other = load(ModelChoice(model, backend, threads=1))
    views = real_views(folder, cells, um_per_px, reference.view_um, reference.size)
    expected, found = reference.answer(views), other.answer(views)
    apart = np.abs(found.logits - expected.logits)
    return Parity(
        cells=cells,
        classes=apart.shape[1],
        scale=float(np.abs(expected.logits).max()),
        worst=float(apart.max()),
        state=float(np.abs(found.state - expected.state).max()),
        answers_changed=int((found.logits.argmax(1) != expected.logits.argmax(1)).sum()),
    )


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled crops")
    parser.add_argument("--um-per-px", type=float, default=0.225, help="scale of the crops; default: that of acevedo20")
    parser.add_argument("--model", help="name of a shipped bundle or a folder")
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    p = compare(given.data, given.cells, given.um_per_px, given.model, given.backend)
    print(f"{given.backend} against numpy, {p.cells} cells x {p.classes} classes")
    print(f"logits differ by at most {p.worst:.2g} = {p.relative:.2g} of their scale {p.scale:.3g} (bound 1e-3)")
    print(f"states differ by at most {p.state:.2g}; {p.answers_changed} answers changed")
    if given.json:
        given.json.write_text(json.dumps({**p._asdict(), "relative": p.relative}, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(p.relative > 1e-3)


if __name__ == "__main__":
    main()
