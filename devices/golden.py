"""Every variant's answers to the golden cells, and one sample field, as JSON: run where nca-edge is installed.

Usage: python golden.py > HERE.json
       python golden.py --compare HERE.json NAME=THERE.json ... > RESULT.json      (exit 1: another answer than here)
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

FP32_BOUND = 1e-5
"""Largest difference of a float32 logit, as a share of the largest."""


def answers() -> dict[str, Any]:
    """Logits of the golden cells by variant, and the cells of a sample field."""
    from nca_edge.bundle import find_bundle, load_bundle
    from nca_edge.camera import file_frames
    from nca_edge.classifier import ModelChoice, from_8bit, load
    from nca_edge.pipeline import observe
    from nca_edge.samples import sample_fields

    bundle = load_bundle(find_bundle(None))
    logits = {}
    for backend, precision in [*sorted(bundle.file_of()), ("numpy", "fp32")]:
        classifier = load(ModelChoice(None, backend, precision, threads=1, trial=False))
        logits[f"{backend} {precision}"] = classifier.answer(from_8bit(bundle.golden_views)).logits.tolist()
    field = sample_fields() / "bccd-BloodImage_00209.jpg"
    classifier = load(ModelChoice(None, "onnx", "fp32", threads=1, trial=False))
    (reading,) = observe(file_frames(field, [field]), classifier)
    cells = [[c.prediction.label, c.prediction.confidence, c.detection.box.x, c.detection.box.y] for c in reading.cells]
    return {"machine": platform.machine(), "bundle": bundle.sha256, "logits": logits, "field": cells}


def compare(here: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """How far the answers are apart, by variant."""
    import numpy as np

    rows, good = {}, there["bundle"] == here["bundle"]
    for name, expected in here["logits"].items():
        a, b = np.array(expected), np.array(there["logits"][name])
        apart, same = float(np.abs(a - b).max() / np.abs(a).max()), bool((a.argmax(1) == b.argmax(1)).all())
        rows[name] = {"logits_apart": apart, "same_answers": same}
        good &= same and (apart <= FP32_BOUND or name.endswith("int8"))
    same_field = [cell[0] for cell in here["field"]] == [cell[0] for cell in there["field"]]
    boxes = max((abs(x - y) for a, b in zip(here["field"], there["field"]) for x, y in zip(a[2:], b[2:])), default=0)  # noqa: B905
    return {
        "machine": there["machine"],
        "variants": rows,
        "field_same_cells": same_field,
        "field_boxes_apart_px": boxes,
        "good": good and same_field,
    }


def main() -> None:
    """Print."""
    if sys.argv[1:2] != ["--compare"]:
        print(json.dumps(answers()))
        return
    here, *others = sys.argv[2:]
    expected = json.loads(Path(here).read_text("utf-8"))
    pairs = (other.partition("=") for other in others)
    result = {name: compare(expected, json.loads(Path(path).read_text("utf-8"))) for name, _, path in pairs}
    print(json.dumps({"emulated": True, "bundle": expected["bundle"], "cores": result}, indent=1))
    sys.exit(not all(row["good"] for row in result.values()))


if __name__ == "__main__":
    main()
