"""The tables of export/README.md are those of the files that the benchmarks wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import int8_error, released

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests/benchmarks/results"


@pytest.mark.parametrize("program", [int8_error, released])
def test_the_tables_are_those_of_the_files(program: object) -> None:
    if program is int8_error:
        table = int8_error.table(json.loads((RESULTS / "int8_error.json").read_text("utf-8")))
    else:
        table = released.table(json.loads((RESULTS / "released.json").read_text("utf-8"))["variants"])
    assert table in (ROOT / "export/README.md").read_text("utf-8")
