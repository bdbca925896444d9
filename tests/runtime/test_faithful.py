"""Deletion and insertion by hand, and what evaluate --explanations says of the shipped model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nca_edge.automaton import pool
from nca_edge.classifier import ModelChoice, from_8bit, load
from nca_edge.crops import EvaluateRequest, evaluate
from nca_edge.faithful import Case, Head, area, curve, curves, overlap
from nca_edge.records import Image8
from nca_edge.trust import channel_means

HEAD = Head(
    {
        "head1": np.array([[1, 0, 0], [0, 1, 0]], np.float32), "head1_bias": np.zeros(2, np.float32),
        "head2": np.array([[1, -1], [0, 0]], np.float32), "head2_bias": np.zeros(2, np.float32),
    },
    2.0,
    np.array([0.0, 1.0, 5.0]),
)  # fmt: skip
CASE = Case(np.array([[4.0, 3.0, 7.0]]), np.array([4.0, -3.0, 0.0]), np.array([4.0, -3.0, 0.0]), 0)
"""Logits 4 - 3 = 1 and 0, divided by 2; channel 2 says nothing."""


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def test_orders() -> None:
    case = replace(CASE, expected=np.array([1.0, -2.0, 0.5]))
    assert case.strongest_first().tolist() == [1, 0, 2] and case.relevance_first().tolist() == [0, 1, 2]
    assert case.speaking_first().tolist() == [0, 2, 1]


def test_deletion_by_hand() -> None:
    """Without channel 0: 0 - 3; then channel 1 falls to its mean 1: 0 - 1; channel 2 changes nothing."""
    expected = [sigmoid(0.5), sigmoid(-1.5), sigmoid(-0.5), sigmoid(-0.5)]
    assert curve(CASE, HEAD, CASE.strongest_first()) == pytest.approx(expected)


def test_insertion_by_hand() -> None:
    expected = [sigmoid(-0.5), sigmoid(1.5), sigmoid(0.5), sigmoid(0.5)]
    assert curve(CASE, HEAD, CASE.strongest_first(), insert=True) == pytest.approx(expected)


def test_a_channel_is_taken_from_every_look() -> None:
    """A second look says 2 - 5 = -3: the mean logit is -1; without channel 0 -4, then without channel 1 -1."""
    case = replace(CASE, pooled=np.array([[4.0, 3.0, 7.0], [2.0, 5.0, 1.0]]))
    expected = [sigmoid(-0.5), sigmoid(-2), sigmoid(-0.5), sigmoid(-0.5)]
    assert curve(case, HEAD, CASE.strongest_first()) == pytest.approx(expected)


def test_a_channel_of_max_and_mean_goes_with_both_features() -> None:
    head = replace(
        HEAD, weights={**HEAD.weights, "head1": np.array([[1, 0, 1, 0], [0, 1, 0, 1]], np.float32)}, means=np.zeros(4)
    )
    case = Case(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([1.0, 0.5]), np.array([1.0, 0.5]), 0)
    assert curve(case, head, np.array([0, 1])) == pytest.approx([sigmoid(-1), sigmoid(-3), sigmoid(0)])


def test_area_and_overlap_by_hand() -> None:
    assert area(np.array([1.0, 0.5, 0.0])) == pytest.approx(0.5) and area(np.array([1.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert overlap(np.array([1, 2, 3, 4]), np.array([4, 9, 1, 8])) == 0.5


def test_all_curves_begin_and_end_alike() -> None:
    rows = curves(CASE, HEAD, np.random.default_rng(0))
    assert rows.shape == (8, 4)
    assert rows[:4, 0] == pytest.approx(rows[4:, -1]) and rows[:4, -1] == pytest.approx(rows[4:, 0])


def test_the_mean_of_the_golden_cells_stands_in_for_that_of_training() -> None:
    classifier = load(ModelChoice(backend="onnx", threads=1))
    classifier.bundle = replace(classifier.bundle, manifest=replace(classifier.bundle.manifest, channel_means=None))
    means, baseline = channel_means(classifier)
    states = classifier.answer(from_8bit(classifier.bundle.golden_views)).state
    assert baseline == "golden cells"
    assert means == pytest.approx(np.mean([pool(state, "max+mean") for state in states], axis=0), rel=1e-6)
    stored = tuple(float(n) for n in range(128))
    classifier.bundle = replace(classifier.bundle, manifest=replace(classifier.bundle.manifest, channel_means=stored))
    means, baseline = channel_means(classifier)
    assert baseline == "training cells" and means.tolist() == list(stored)


@pytest.fixture
def data(tmp_path: Path, cells: tuple[Image8, ...]) -> Path:
    for name, cell in zip(("neutrophil/a", "neutrophil/b", "basophil/c"), cells, strict=True):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cell).save(tmp_path / "data" / f"{name}.png")
    return tmp_path / "data"


def test_the_command_measures_the_explanations(data: Path, call: Callable[..., Any]) -> None:
    done = call("evaluate", "--data", data, "--explanations", "--backend", "onnx", "--threads", "1", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)["explanations"]
    assert told["n"] == told["overlap"]["n"] == 3
    assert set(told["overlap"]) == {"rotation", "flip", "stain", "fire", "precision", "n"}
    assert all(0 <= told["overlap"][name] <= 1 for name in ("rotation", "flip", "stain", "fire", "precision"))
    assert told["peaks"]["n"] + told["peaks"]["no_mask"] + told["peaks"]["large"] == 3
    assert 0 <= told["peaks"]["center"] <= told["peaks"]["inside"] <= 1
    deletion = told["deletion"]
    assert deletion["ratio"] == pytest.approx(deletion["strongest_first"] / deletion["random"])
    assert len(told["curves"]["deletion_strongest"]) == 65
    assert told["flagged"]["n"] + told["flagged"]["others"] == 3
    assert told["several"]["looks"] == 8 and told["several"]["n"] == 3 and 1 <= told["looks"] <= 4
    assert told["several"]["overlap"]["rotation"] == told["several"]["overlap"]["flip"] == 1
    plain = call("evaluate", "--data", data, "--explanations", "--backend", "onnx", "--threads", "1")
    assert "explanations of 3 cells" in plain.out and "relevance that peaks in the cell" in plain.out


def test_a_backend_without_8_bits_has_no_figure_for_them(data: Path) -> None:
    request = EvaluateRequest(data, None, {"basophil": None}, None, explanations=True)
    outcome = evaluate(request, ModelChoice(backend="numpy"), lambda done, total: None)
    assert outcome.trust is not None and outcome.trust.overlap["precision"] is None and outcome.trust.n == 2
