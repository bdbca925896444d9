"""How well masks meet those that a person drew: intersection over union of the whole cell and of the nucleus.

python tests/benchmarks/masks.py --data DATA [--model NAME|DIR] [--backend onnx] [--precision fp32] [--json FILE]

DATA holds segwbc1 and segwbc2. Every tenth cell of segwbc1 was looked at while the method was made; the figure is of the
others. Beside ours stand the plain recipe of NCA-WSS on the same model (last state, first component, Otsu), the component that
ours begins with, and ours begun with a disc instead. ``yardstick.py`` has the plain recipe on other models.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nca_edge import mask as masks
from nca_edge.camera import read_image
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.component import cell_component
from nca_edge.preprocess import cell_view, correct, crop_background, otsu, resize, window
from nca_edge.records import Image8, Image32
from nca_edge.regions import central
from nca_edge.scale import crop_scale
from nca_edge.single_cell import read_crop

SETS = {"segwbc1": 10, "segwbc2": 0}
"""Set -> every so many cells were looked at while the method was made; 0: the set is too small to hold any back."""
Make = Callable[[Image32, Image32, Image32], Image8]
"""(last state, state that the mask comes from, crop) -> mask of the crop; states without the image's channels."""


def plain(last: Image32, early: Image32, crop: Image32) -> Image8:
    """The recipe of NCA-WSS: first principal component of the last state, Otsu; the side that holds the middle is the cell."""
    grid, _, channels = last.shape
    values = last.reshape(-1, channels).astype(np.float64)
    values -= values.mean(0)
    _, vectors = np.linalg.eigh(values.T @ values)
    component = (values @ vectors[:, -1]).reshape(grid, grid).astype(np.float32)
    middle = slice(3 * grid // 8, 5 * grid // 8)
    component *= np.sign(component[middle, middle].mean() - component.mean()) or 1
    fine = resize(component - component.min(), crop.shape[0], crop.shape[0])
    return np.where(fine > otsu(fine), masks.CELL, 0).astype(np.uint8)


def start(last: Image32, early: Image32, crop: Image32) -> Image8:
    """What ours begins with."""
    component = cell_component(early).astype(np.float32)
    fine = resize(component, crop.shape[0], crop.shape[0])
    return np.where(central(fine > otsu(component)), masks.CELL, 0).astype(np.uint8)


def disc(last: Image32, early: Image32, crop: Image32) -> Image8:
    """Ours begun with a disc of half the view instead of the state."""
    line = (np.arange(early.shape[0]) - (early.shape[0] - 1) / 2) / early.shape[0]
    round_state = np.hypot(line[:, None], line[None, :]) < 0.25
    return masks.cell_mask(round_state.astype(np.float32)[..., None], crop)


WAYS: dict[str, Make] = {"plain": plain, "start": start, "disc": disc}


def overlap(found: np.ndarray[Any, np.dtype[np.bool_]], true: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """Intersection over union."""
    return float((found & true).sum() / max(1, (found | true).sum()))


def cells_of(folder: Path, every: int) -> Iterator[tuple[Image8, Image8]]:
    """Image and true mask (0, 128, 255) of each cell of a set that was not looked at."""
    with (folder / "manifest.csv").open(encoding="utf-8") as stream:
        for n, row in enumerate(csv.DictReader(stream)):
            if not every or n % every:
                yield read_image(folder / row["file"]), np.asarray(Image.open(folder / row["mask"]).convert("L"))


def measure(folder: Path, every: int, classifier: Classifier) -> dict[str, Any]:
    """Mean overlaps of one set."""
    cells: dict[str, list[float]] = {name: [] for name in ("ours", *WAYS)}
    nuclei = []
    for rgb, true in cells_of(folder, every):
        reading = read_crop(rgb, classifier)
        if reading.explanation is None:
            raise RuntimeError("read_crop explains unless told otherwise")
        found = reading.explanation.mask
        cells["ours"].append(overlap(found > 0, true > 0))
        nuclei.append(overlap(found == masks.NUCLEUS, true == masks.NUCLEUS))
        for name, made in others(rgb, classifier).items():
            cells[name].append(overlap(made > 0, true > 0))
    return {
        "set": folder.name, "n": len(nuclei), "nucleus": float(np.mean(nuclei)),
        "cell": {name: float(np.mean(values)) for name, values in cells.items()},
        "cell_interval": bootstrap(cells["ours"]), "plain_interval": bootstrap(cells["plain"]),
        "nucleus_interval": bootstrap(nuclei),
    }  # fmt: skip


def others(rgb: Image8, classifier: Classifier) -> dict[str, Image8]:
    """The other ways' masks, at the image's size."""
    corrected = correct(rgb, crop_background(rgb))
    height, width = rgb.shape[:2]
    center, um_per_px = (width / 2, height / 2), crop_scale(corrected, classifier.view_um).um_per_px
    answer = classifier.answer(cell_view(corrected, center, um_per_px, classifier.view_um, classifier.size)[None])
    crop = window(corrected, center, classifier.view_um / um_per_px)
    hidden = classifier.bundle.manifest.architecture.image_channels
    out = {}
    for name, make in WAYS.items():
        made = make(answer.state[0][..., hidden:], answer.mask_state[0][..., hidden:], crop)
        whole = np.zeros((height, width), np.uint8)
        side = made.shape[0]
        y0, x0 = round(center[1] - side / 2), round(center[0] - side / 2)
        ya, xa, yb, xb = max(y0, 0), max(x0, 0), min(y0 + side, height), min(x0 + side, width)
        whole[ya:yb, xa:xb] = made[ya - y0 : yb - y0, xa - x0 : xb - x0]
        out[name] = whole
    return out


def bootstrap(values: list[float]) -> tuple[float, float]:
    """95 % interval of the mean."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (2000, len(values))).mean(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def write(path: Path | None, results: list[dict[str, Any]]) -> None:
    """Keep the figures where they were asked for."""
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="name of a shipped bundle or a folder")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    classifier = load(ModelChoice(given.model, given.backend, given.precision, threads=1))
    results = [measure(given.data / name, every, classifier) for name, every in SETS.items()]
    for r in results:
        ways = ", ".join(f"{name} {value:.3f}" for name, value in r["cell"].items())
        print(f"{r['set']}: {r['n']} cells, whole cell: {ways}; nucleus {r['nucleus']:.3f}")
    write(given.json, results)


if __name__ == "__main__":
    main()
