"""The fences of the house: the runtime is light to import and never reaches up to training or export."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

import nca_edge
import nca_edge.profiles

HEAVY = ("av", "torch", "onnxruntime", "cv2", "ai_edge_litert", "picamera2", "matplotlib", "skimage", "scipy")
ABOVE = ("torch", "nca_train", "nca_export")

PACKAGE = Path(nca_edge.__path__[0])
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Found by their files: pkgutil.walk_packages imports each package on its way and passes over one that fails.
MODULES = sorted(
    ".".join(["nca_edge", *source.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    for source in SOURCES
    if source.stem != "__main__"
)

PROBE = """
import importlib, json, os, sys
import asyncio, http.client, sqlite3, jinja2, numpy, typer, PIL.Image  # what each may import, once
for module in sys.argv[1:]:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        importlib.import_module(module)
        with os.fdopen(writer, "w") as told:
            json.dump(sorted({name.partition(".")[0] for name in sys.modules}), told)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        print(json.dumps([module, json.loads(told.read() or "null")]))
    os.wait()
"""
"""A process for each module, none of which has imported another of ours."""


@cache
def loaded() -> dict[str, set[str]]:
    """Top-level names in sys.modules after each module; one that cannot be imported alone is left out."""
    roots = {str(PACKAGE.parent), str(Path(str(files("nca_devices"))).parent)}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(roots)), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROBE, *MODULES, "scipy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {module: set(names) for module, names in told if names is not None}


def test_the_modules_are_found() -> None:
    assert {"nca_edge.errors", "nca_edge.records", "nca_edge.preprocess", "nca_edge.profiles"} <= set(MODULES)
    assert "nca_edge.samples" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_no_runtime_module_imports_anything_heavy(module: str) -> None:
    assert loaded()[module] & {*HEAVY, *ABOVE} == set()


def test_the_fence_would_notice() -> None:
    assert "scipy" in loaded()["scipy"]


def imported_names(tree: ast.AST) -> set[str]:
    """Top-level names of every import statement, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_runtime_source_reaches_up(source: Path) -> None:
    assert imported_names(ast.parse(source.read_text(encoding="utf-8"))) & {*ABOVE} == set()
