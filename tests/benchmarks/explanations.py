"""How far the explanations of a bundle can be trusted, on half b of fold 3: `evaluate --explanations` in float32 and int8.

python tests/benchmarks/explanations.py --data DATA/acevedo20 [--model NAME|DIR] [--backend onnx] [--json FILE]

A bundle that does not keep the mean of its pooled features gets it from cells of folds 0 to 2 first, in a copy.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge.automaton import pool
from nca_edge.camera import read_image
from nca_edge.classifier import ModelChoice, load
from nca_edge.crops import EvaluateRequest, evaluate, evaluation_text
from nca_edge.labelled import read_labelled
from nca_edge.single_cell import read_crop

UM_PER_PX = 0.225
TRAINING_CELLS = 300
LEFT_OUT = ("platelet", "immature_granulocyte_unspecified", "neutrophil_unspecified")
PRECISIONS = ("fp32", "int8")


def training_means(data: Path, choice: ModelChoice) -> list[float]:
    """Mean pooled features over cells of the folds that were trained on, evenly spread."""
    classifier = load(choice)
    listed = [image for image in read_labelled(data) if image.fold in (0, 1, 2) and image.label not in LEFT_OUT]
    chosen = [listed[n] for n in np.linspace(0, len(listed) - 1, TRAINING_CELLS).astype(int)]
    pooled = []
    for image in chosen:
        reading = read_crop(read_image(data / image.file), classifier, UM_PER_PX)
        if reading.shown is None:
            raise RuntimeError("read_crop explains unless told otherwise")
        state = classifier.answer(reading.shown.view[None]).state[0]
        pooled.append(pool(state, classifier.bundle.manifest.architecture.pool))
    return [round(float(value), 6) for value in np.mean(pooled, axis=0)]


def with_means(bundle: Path, folder: Path, means: list[float]) -> Path:
    """A copy of a bundle that keeps them."""
    copy = folder / "bundle"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    (copy / "manifest.json").write_text(json.dumps({**manifest, "channel_means": means}), "utf-8")
    return copy


def measure(data: Path, choice: ModelChoice, folder: Path) -> dict[str, Any]:
    """What the command says in each precision, with the mean of training cells."""
    bundle = load(choice).bundle
    model = choice.model
    if bundle.manifest.channel_means is None:
        model = str(with_means(bundle.folder, folder, training_means(data, choice)))
    request = EvaluateRequest(data, UM_PER_PX, dict.fromkeys(LEFT_OUT), "3b", explanations=True)
    table: dict[str, Any] = {
        "model": bundle.manifest.name, "manifest_sha256": bundle.sha256, "data": data.name, "fold": "3b",
        "um_per_px": UM_PER_PX,
    }  # fmt: skip
    for precision in PRECISIONS:
        outcome = evaluate(request, ModelChoice(model, choice.backend, precision, 1), lambda done, total: None)
        print(evaluation_text(outcome), flush=True)
        if outcome.trust is None:
            raise RuntimeError("explanations were asked for")
        table[precision] = {"n": outcome.result.n, "backend": outcome.backend, **outcome.trust.to_json()}
    return table


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="name of a shipped bundle or a folder")
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(given.data, ModelChoice(given.model, given.backend, "fp32", 1), Path(folder))
    if given.json:
        given.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
