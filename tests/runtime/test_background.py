"""A model that learnt a mark beside the cell: what it names by the mark is flagged, what it names by the cell is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nca_edge.automaton import Architecture, Weights
from nca_edge.backends import NumpyBackend
from nca_edge.bundle import Manifest
from nca_edge.bundle_writer import Contents, write_bundle
from nca_edge.classifier import from_8bit
from nca_edge.preprocess import normalise
from nca_edge.samples import sample_fields

Call = Callable[..., Any]
A = Architecture(32, 1, 5, 2, 2, "max", "half-lattice", 2, 2)
"""Channel 3 becomes how dark a grid cell is, channel 4 how dark beyond any stain; the head reads their maxima."""
MANIFEST = Manifest(
    name="ink", classes=("basophil", "monocyte"), groups={"basophil": ("basophil",), "monocyte": ("monocyte",)},
    architecture=A, view_um=25.6, mean=(0.8, 0.8, 0.8), std=(0.2, 0.2, 0.2), temperature=1.0, unsure_below=0.5, seed=0,
)  # fmt: skip
UM_PER_PX = 0.082


def weights() -> Weights:
    """By hand: a grid cell is dark where red light is missing; basophil is said by ink, monocyte by a nucleus."""
    w = {name: np.zeros(shape, np.float32) for name, shape in A.shapes().items()}
    w["w1"][:, 0] = -1
    w["w1_bias"][:] = (0, -3.5)  # in red a nucleus has 2.7, ink 4
    w["w2"][3, 0], w["w2"][4, 1] = 1, 10
    w["head1"][0, 4], w["head1"][1, 3] = 1, 1
    w["head2"][0, 0], w["head2"][1, 1] = 5, 1
    return w


@pytest.fixture
def model(tmp_path: Path) -> Path:
    fire = np.array([0, 1], np.uint8)  # all even rows, then all odd ones
    views = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    mean, std = (np.asarray(values, np.float32) for values in (MANIFEST.mean, MANIFEST.std))
    logits = NumpyBackend(A, weights(), fire)(normalise(from_8bit(views), mean, std)).logits
    write_bundle(tmp_path / "ink", Contents(MANIFEST, weights(), fire, {"views": views, "logits": logits}, {}))
    return tmp_path / "ink"


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """A real field, and the same with a dot of cyan ink beside its white cell, 14 um from its middle."""
    (tmp_path / "fields").mkdir()
    with Image.open(sample_fields() / "bccd-BloodImage_00209.jpg") as image:
        rgb = np.asarray(image.convert("RGB")).copy()
    Image.fromarray(rgb).save(tmp_path / "fields" / "clean.png")
    row, column = np.indices(rgb.shape[:2])
    rgb[np.hypot(row - 200, column - 500) < 12] = (10, 160, 200)
    Image.fromarray(rgb).save(tmp_path / "fields" / "marked.png")
    return tmp_path / "fields"


def cell_of(session: Path, field: str) -> dict[str, Any]:
    """The row of the white cell, which lies at (384, 311)."""
    rows = [json.loads(line) for line in (session / "cells.jsonl").read_text().splitlines()]
    (found,) = [
        row
        for row in rows
        if row["field"] == field
        and abs(row["box"][0] + row["box"][2] / 2 - 384) < 40
        and abs(row["box"][1] + row["box"][3] / 2 - 311) < 40
    ]
    return found


def test_a_planted_mark_is_flagged_in_session_and_report(model: Path, fields: Path, tmp_path: Path, call: Call) -> None:
    done = call("run", fields, "--out", tmp_path / "s", "--um-per-px", UM_PER_PX, "--model", model, "--backend", "numpy")
    assert done.code == 0, done.err
    clean, marked = (cell_of(tmp_path / "s", f"{name}.png") for name in ("clean", "marked"))
    assert (clean["label"], clean["rests_on_background"]) == ("monocyte", False)
    assert clean["outside_share"] == pytest.approx(0, abs=0.01)
    assert (marked["label"], marked["rests_on_background"]) == ("basophil", True)
    assert marked["outside_share"] == pytest.approx(1, abs=0.01)
    flagged = sum(json.loads(line)["rests_on_background"] for line in (tmp_path / "s/cells.jsonl").read_text().splitlines())
    report = (tmp_path / "s" / "report.html").read_text("utf-8")
    assert report.count('class="badge outside-badge"') == flagged >= 1


def test_classify_flags_it_too(model: Path, fields: Path, tmp_path: Path, call: Call) -> None:
    for name in ("clean", "marked"):
        with Image.open(fields / f"{name}.png") as image:
            image.crop((384 - 156, 311 - 156, 384 + 156, 311 + 156)).save(tmp_path / f"{name}.png")
    options = ("--um-per-px", UM_PER_PX, "--model", model, "--backend", "numpy")
    done = call("classify", tmp_path / "clean.png", tmp_path / "marked.png", *options)
    clean, marked = done.out.splitlines()
    assert "monocyte" in clean and "outside" not in clean
    assert "basophil" in marked and marked.endswith("relevance outside the cell")
    other = call("classify", tmp_path / "marked.png", *options, "--class", "monocyte", "--json")
    row = json.loads(other.out)
    assert (row["label"], row["explained"], row["rests_on_background"]) == ("basophil", "monocyte", False)
