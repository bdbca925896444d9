"""Masks as NCA-WSS makes them, on other models than ours, beside ours: one table for both sets of drawn masks.

Usage: python -m tests.benchmarks.yardstick --data DATA [--released MODELS/wbc_nca_matek19.pt] [--run RUN] [--json FILE]
Rows of FILE that were not measured anew stay: a run that went on is measured again without the others.

The plain recipe: first principal component of the last state, Otsu's threshold. DATA holds segwbc1 and segwbc2; the cells are
those of ``masks.py``. The weights that were released with the MICCAI paper and a run of the preset wss see whole images; the
former normalised by the set's own colours, as they saw images in training, the latter by those of its training data. A run that
was stopped, or still trains, is measured with its best weights; ``figures.py`` then writes the table, which says after how many
epochs, what of the training was not the preset's, and how many cells of half 3a they name. Needs the extras train and export.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nca_edge.automaton import draw_fire
from nca_edge.backends import Backend, OnnxBackend
from nca_edge.classifier import ModelChoice, load
from nca_edge.mask import CELL
from nca_edge.preprocess import correct, crop_background, normalise
from nca_edge.records import Image8, Image32
from nca_export.onnx_graph import build_onnx
from nca_export.run import Run, read_run
from nca_export.source import own_statistics
from nca_train.recipe import Train, load_recipe
from nca_train.released import load_released
from nca_train.store import FACTS, WEIGHTS
from tests.benchmarks.masks import SETS, bootstrap, cells_of, measure, overlap, plain

TRIES = 5
"""Copies of a run that is written meanwhile."""
PROGRESS = 50
"""Cells between two signs of life."""


@dataclass(frozen=True, slots=True)
class Model:
    """An automaton that is shown whole images."""

    about: dict[str, Any]
    """What it is, for the table."""
    backend: Backend
    size: int
    """Side of its input, px."""
    image_channels: int
    colours: tuple[Image32, Image32] | None = None
    """Mean and standard deviation of the colours that it was trained with; None: a set's own."""


def released(file: Path) -> Model:
    """The weights of the MICCAI paper."""
    a, weights = load_released(file)
    backend = OnnxBackend("model.onnx", build_onnx(a, weights, draw_fire(a, 0)), a, threads=1)
    return Model({"model": "released weights", "file": file.name}, backend, a.size, a.image_channels)


def trained(folder: Path) -> Model:
    """A run: finished, stopped, or still training."""
    run = read_still(folder)
    a, facts = run.architecture, run.facts
    backend = OnnxBackend("model.onnx", build_onnx(a, run.weights, run.fire), a, threads=1)
    preset = load_recipe(run.recipe.name)
    about = {
        "model": f"preset {run.recipe.name}", "epochs": facts["epochs_done"], "epochs_of_preset": preset.train.epochs,
        "instead": changed(run.recipe.train, preset.train), "epoch": facts["selected"]["epoch"],
        "validation_accuracy": facts["selected"]["validation_accuracy"],
    }  # fmt: skip
    mean, std = (np.asarray(facts[key], np.float32) for key in ("mean", "std"))
    return Model(about, backend, a.size, a.image_channels, (mean, std))


def changed(train: Train, preset: Train) -> dict[str, list[Any]]:
    """Key -> what the run has and what the preset has, where they differ, of the table ``[train]`` but the epochs."""
    mine, theirs = asdict(train), asdict(preset)
    return {key: [mine[key], theirs[key]] for key in mine if mine[key] != theirs[key] and key != "epochs"}


def read_still(folder: Path) -> Run:
    """A run that may be writing: its best weights and what is said of them, from a copy of one moment."""
    for _ in range(TRIES):
        before = (folder / FACTS).read_bytes()
        with tempfile.TemporaryDirectory() as copy:
            for name in (FACTS, WEIGHTS):
                shutil.copy(folder / name, copy)
            if (folder / FACTS).read_bytes() == before == (Path(copy) / FACTS).read_bytes():
                return read_run(Path(copy))
        time.sleep(1)
    raise SystemExit(f"{folder}: changes all the time; try again.")


def shown(rgb: Image8, model: Model) -> Image8:
    """A whole image at the model's size; corrected where the model was trained on corrected ones."""
    image = rgb if model.colours is None else np.round(correct(rgb, crop_background(rgb)) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(image).resize((model.size, model.size)))


def plain_recipe(folder: Path, every: int, model: Model) -> dict[str, Any]:
    """Mean overlap of the plain recipe, over all channels of the state and over those that do not hold the image."""
    cells = list(cells_of(folder, every))
    views = np.stack([shown(rgb, model) for rgb, _ in cells])
    mean, std = model.colours or own_statistics(views)
    found: dict[str, list[float]] = {"all": [], "hidden": []}
    began = time.monotonic()
    for n, (rgb, true) in enumerate(cells, start=1):
        state = model.backend(normalise(views[n - 1 : n] / np.float32(255), mean, std)).state[0]
        for name, first in (("all", 0), ("hidden", model.image_channels)):
            part = state[..., first:]
            mask = Image.fromarray(plain(part, part, np.ones((len(state), len(state), 3), np.float32)))
            enlarged = np.asarray(mask.resize((rgb.shape[1], rgb.shape[0])))
            found[name].append(overlap(enlarged >= CELL / 2, true > 0))
        if n % PROGRESS == 0 or n == len(cells):
            so_far = f"{np.mean(found['all']):.3f}"
            print(f"{folder.name}: {n} of {len(cells)} cells, {so_far}, {time.monotonic() - began:.0f} s", flush=True)
    return {
        **model.about, "recipe": "plain", "set": folder.name, "n": len(cells), "cell": float(np.mean(found["all"])),
        "interval": bootstrap(found["all"]), "cell_without_image_channels": float(np.mean(found["hidden"])),
    }  # fmt: skip


def ours(folder: Path, every: int, choice: ModelChoice) -> list[dict[str, Any]]:
    """The plain recipe on our model, and our masks."""
    classifier = load(choice)
    result = measure(folder, every, classifier)
    name = {"model": classifier.bundle.manifest.name, "manifest_sha256": classifier.bundle.sha256}
    rows = [(kind, result["cell"][key], result[f"{key_of}_interval"]) for kind, key, key_of in
            (("plain", "plain", "plain"), ("ours", "ours", "cell"))]  # fmt: skip
    return [
        {**name, "recipe": kind, "set": folder.name, "n": result["n"], "cell": value, "interval": interval}
        for kind, value, interval in rows
    ]


def merged(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a file, where it is there, with those that were measured now in place of the old ones."""
    key = lambda row: (row["model"], row["recipe"], row["set"])  # noqa: E731
    kept = json.loads(file.read_text("utf-8")) if file.exists() else []
    fresh = {key(row): row for row in rows}
    known = [fresh.pop(key(row), row) for row in kept]
    return sorted([*known, *fresh.values()], key=lambda row: (row["set"], row["recipe"] == "ours"))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--released", type=Path, help="state dict of the MICCAI paper")
    parser.add_argument("--run", type=Path, help="run of the preset wss")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    models = [released(given.released)] if given.released else []
    models += [trained(given.run)] if given.run else []
    rows = [plain_recipe(given.data / name, every, model) for model in models for name, every in SETS.items()]
    for name, every in SETS.items():
        rows += ours(given.data / name, every, ModelChoice(backend="onnx", threads=1))
    for row in rows:
        low, high = row["interval"]
        print(f"{row['set']}: {row['model']}, recipe {row['recipe']}: {row['cell']:.3f} ({low:.3f} - {high:.3f}), n {row['n']}")
    if given.json:
        given.json.write_text(json.dumps(merged(given.json, rows), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
