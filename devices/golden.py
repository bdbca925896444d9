"""Every variant's answers to the golden cells, and one sample field, as JSON: run where nca-edge is installed.

Usage: python golden.py > HERE.json
       python golden.py --compare HERE.json NAME=THERE.json ... > RESULT.json      (exit 1: another answer than here)
       python golden.py --threads > THREADS.json, under an emulator that counts what each thread executes, and then
       python golden.py --instructions THREADS.json COUNTS.txt > THERE.instructions.json      (--compare finds it beside THERE)
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import threading
from pathlib import Path
from typing import Any

FP32_BOUND = 1e-5
"""Largest difference of a float32 logit, as a share of the largest, and of the compiled step's, whose head is in float32."""
EXACT = ("native int8",)
"""Whose states are the same to the last bit on any machine."""
MORE = 5
"""Cells that the second thread of a variant answers more than the first."""
UNCOUNTED = "not counted: this emulator was given no plugin, or is built without; see devices/README.md"


def answers() -> dict[str, Any]:
    """Logits of the golden cells by variant, and the cells of a sample field."""
    from nca_edge.bundle import find_bundle, load_bundle
    from nca_edge.camera import file_frames
    from nca_edge.classifier import ModelChoice, from_8bit, load
    from nca_edge.pipeline import observe
    from nca_edge.samples import sample_fields

    bundle = load_bundle(find_bundle(None))
    logits, states = {}, {}
    for backend, precision in variants(bundle):
        classifier = load(ModelChoice(None, backend, precision, threads=1, trial=False))
        answer = classifier.answer(from_8bit(bundle.golden_views))
        logits[f"{backend} {precision}"] = answer.logits.tolist()
        states[f"{backend} {precision}"] = hashlib.sha256(answer.state.tobytes()).hexdigest()
    field = sample_fields() / "bccd-BloodImage_00209.jpg"
    classifier = load(ModelChoice(None, "onnx", "fp32", threads=1, trial=False))
    (reading,) = observe(file_frames(field, [field]), classifier)
    cells = [[c.prediction.label, c.prediction.confidence, c.detection.box.x, c.detection.box.y] for c in reading.cells]
    return {"machine": platform.machine(), "bundle": bundle.sha256, "logits": logits, "states": states, "field": cells}


def variants(bundle: Any) -> list[tuple[str, str]]:
    """Backend and precision of all that run here; the compiled step asks for AVX2, or a 64-bit ARM."""
    from nca_edge.trial import installed

    return [variant for variant in [*sorted(bundle.file_of()), ("numpy", "fp32")] if installed(variant[0])]


def threads() -> dict[str, list[int]]:
    """Answer one cell in one thread and ``MORE`` more in the next, in each variant: what numbers these threads have.

    No thread ends before all have worked, so that none gets the number of another.
    """
    from nca_edge.bundle import find_bundle, load_bundle
    from nca_edge.classifier import ModelChoice, from_8bit, load

    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))  # the main thread, and the emulator's own, which have no numbers or the number 0
    bundle, done = load_bundle(find_bundle(None)), threading.Event()
    view, numbers, alive = from_8bit(bundle.golden_views[:1]), {}, []
    for backend, precision in variants(bundle):
        classifier = load(ModelChoice(None, backend, precision, threads=1, trial=False))
        pair = numbers[f"{backend} {precision}"] = [0, 0]
        for which, cells in enumerate((1, 1 + MORE)):
            worked = threading.Event()

            def work(pair: list[int], which: int, cells: int, worked: threading.Event, classifier: Any = classifier) -> None:
                pair[which] = len(list(tasks.iterdir())) - before
                for _ in range(cells):
                    classifier.answer(view)
                worked.set()
                done.wait()

            alive.append(threading.Thread(target=work, args=(pair, which, cells, worked)))
            alive[-1].start()
            worked.wait()
    done.set()
    for thread in alive:
        thread.join()
    return numbers


def instructions(numbers: dict[str, list[int]], counts: str) -> dict[str, int]:
    """Instructions that one more cell takes, by variant; start-up and what a thread needs cancel.

    Parameters
    ----------
    numbers : what ``threads`` said
    counts : what qemu's plugin ``insn`` wrote, a line ``cpu N insns: M`` for each thread
    """
    of = {int(n): int(m) for n, m in re.findall(r"cpu (\d+) insns: (\d+)", counts)}
    return {name: (of[second] - of[first]) // MORE for name, (first, second) in numbers.items()}


def compare(here: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """How far the answers are apart, by variant."""
    import numpy as np

    rows, good = {}, there["bundle"] == here["bundle"]
    for name, expected in here["logits"].items():
        a, b = np.array(expected), np.array(there["logits"][name])
        apart, same = float(np.abs(a - b).max() / np.abs(a).max()), bool((a.argmax(1) == b.argmax(1)).all())
        equal = here["states"][name] == there["states"][name]
        rows[name] = {"logits_apart": apart, "same_answers": same, "same_bits_of_state": equal}
        good &= same and (equal or name not in EXACT) and (apart <= FP32_BOUND or (name.endswith("int8") and name not in EXACT))
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
    if sys.argv[1:2] == ["--threads"]:
        print(json.dumps(threads()))
        return
    if sys.argv[1:2] == ["--instructions"]:
        numbers, counts = (Path(path).read_text("utf-8") for path in sys.argv[2:])
        print(json.dumps(instructions(json.loads(numbers), counts)))
        return
    if sys.argv[1:2] != ["--compare"]:
        print(json.dumps(answers()))
        return
    here, *others = sys.argv[2:]
    expected = json.loads(Path(here).read_text("utf-8"))
    result = {}
    for name, _, path in (other.partition("=") for other in others):
        counted = Path(path).with_suffix(".instructions.json")
        result[name] = compare(expected, json.loads(Path(path).read_text("utf-8"))) | {
            "instructions_a_cell": json.loads(counted.read_text("utf-8")) if counted.exists() else UNCOUNTED
        }
    print(json.dumps({"emulated": True, "bundle": expected["bundle"], "cores": result}, indent=1))
    sys.exit(not all(row["good"] for row in result.values()))


if __name__ == "__main__":
    main()
