"""What is made of the answers and the counts of an emulated board."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "devices" / "golden.py"
VARIANTS = ("native int8", "onnx fp32")
ANSWERS = {
    "machine": "aarch64", "bundle": "b", "logits": {name: [[1.0, 2.0]] for name in VARIANTS},
    "states": dict.fromkeys(VARIANTS, "ab"), "field": [["monocyte", 0.9, 3, 4]],
}  # fmt: skip
COUNTS = "cpu 0 insns: 900\ncpu 1 insns: 1100\ncpu 2 insns: 6100\ntotal insns: 8100\n"


def golden(*arguments: str | Path) -> str:
    return subprocess.run([sys.executable, GOLDEN, *arguments], check=True, capture_output=True, text=True).stdout


def test_a_cell_takes_what_more_cells_took_more(tmp_path: Path) -> None:
    """Five cells more took 5,000 instructions more: start-up, which both threads have, cancels."""
    (tmp_path / "threads").write_text(json.dumps({"onnx fp32": [1, 2]}), "utf-8")
    (tmp_path / "counts").write_text(COUNTS, "utf-8")
    assert json.loads(golden("--instructions", tmp_path / "threads", tmp_path / "counts")) == {"onnx fp32": 1000}


def test_the_result_says_what_was_counted_and_what_was_not(tmp_path: Path) -> None:
    for name in ("here", "counted", "uncounted"):
        (tmp_path / f"{name}.json").write_text(json.dumps(ANSWERS), "utf-8")
    (tmp_path / "counted.instructions.json").write_text('{"onnx fp32": 1000}', "utf-8")
    pairs = (f"{name}={tmp_path / name}.json" for name in ("counted", "uncounted"))
    cores = json.loads(golden("--compare", tmp_path / "here.json", *pairs))["cores"]
    assert cores["counted"]["good"] and cores["counted"]["instructions_a_cell"] == {"onnx fp32": 1000}
    assert cores["uncounted"]["good"] and cores["uncounted"]["instructions_a_cell"].startswith("not counted: ")


def test_another_bit_of_the_compiled_step_is_another_answer(tmp_path: Path) -> None:
    """Of a runtime's float32 it is not: only the logits are asked to be near."""
    for name in VARIANTS:
        there = {**ANSWERS, "states": {**ANSWERS["states"], name: "cd"}}  # type: ignore[dict-item]
        for file, answers in (("here", ANSWERS), ("there", there)):
            (tmp_path / f"{file}.json").write_text(json.dumps(answers), "utf-8")
        command = [sys.executable, GOLDEN, "--compare", tmp_path / "here.json", f"there={tmp_path / 'there.json'}"]
        assert subprocess.run(command, check=False, capture_output=True).returncode == (name == "native int8")
