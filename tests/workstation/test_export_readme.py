"""The tables of export/README.md are those of the files that the benchmarks wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import graph_tables, int8_error, released

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests/benchmarks/results"


TABLES: dict[str, Callable[[Any], str]] = {
    "int8_error": int8_error.table,
    "released": lambda found: released.table(found["variants"]),
    "graphs": graph_tables.latency_table,
    "graphs, blocks": lambda found: graph_tables.block_table(found["blocks"]),
    "graphs, company": lambda found: graph_tables.company_table(found["company"]),
    "nodes": lambda found: graph_tables.node_table(found["automata"]),
    "nodes, native": lambda found: graph_tables.native_table(found["automata"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_those_of_the_files(name: str) -> None:
    table = TABLES[name](json.loads((RESULTS / f"{name.partition(',')[0]}.json").read_text("utf-8")))
    assert table in (ROOT / "export/README.md").read_text("utf-8")
