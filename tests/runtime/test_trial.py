"""A backend that dies must not take the count with it, and what this board is known to run is remembered."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from nca_edge import trial
from nca_edge.bundle import find_bundle
from nca_edge.classifier import ModelChoice, load
from nca_edge.errors import UsageError

EDGE = find_bundle(None).resolve()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "nca-edge" / "backends.json"


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that ends in an illegal instruction, in processes of their own only."""
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_backend_that_lives_is_tried_once(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial.problem(EDGE, "onnx", "fp32") is None
    (key,) = json.loads(state.read_text("utf-8"))["lived"]
    assert key.startswith("onnx fp32 onnxruntime ")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it was known"))
    assert trial.problem(EDGE, "onnx", "fp32") is None


def test_a_backend_that_dies_is_passed_over(
    deadly: None, state: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "installed", lambda name: None if name == "litert" else f"{name} 1")
    with caplog.at_level(logging.WARNING):
        classifier = load(ModelChoice(str(EDGE)))
    assert classifier.backend.name == "numpy"
    assert caplog.messages == [
        "the onnx backend in fp32 was killed by signal 4 when it was tried on this board; the numpy backend is used instead."
    ]
    with pytest.raises(UsageError, match=r"killed by signal 4 .*; choose another --backend\."):
        load(ModelChoice(str(EDGE), "onnx"))
    assert not state.exists()  # tried again next time: it may have been mended


def test_a_backend_that_complains_lives(tmp_path: Path) -> None:
    assert trial.problem(tmp_path / "no bundle", "onnx", "fp32") is None


def test_one_that_never_answers_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE_S", 0.01)
    assert "gave no answer within 0.01 s" in (trial.problem(EDGE, "onnx", "fp32") or "")


def test_the_quickest_of_the_last_benchmark_comes_first() -> None:
    names = ["onnx", "litert", "numpy"]
    assert trial.quickest_first("model", "fp32", names) == names
    trial.remember("model", "fp32", {"onnx": 9.0, "litert": 7.0})
    assert trial.quickest_first("model", "fp32", names) == ["litert", "onnx", "numpy"]
    assert trial.quickest_first("another", "fp32", names) == trial.quickest_first("model", "int8", names) == names
    trial.remember("model", "fp32", {"numpy": 1.0})
    assert trial.quickest_first("model", "fp32", names) == ["numpy", "onnx", "litert"]


@pytest.mark.parametrize("content", ["", "[]", '{"lived": 3}', "\x00"])
def test_damaged_memory_is_no_memory(state: Path, content: str) -> None:
    state.parent.mkdir()
    state.write_text(content, "utf-8")
    assert trial.quickest_first("model", "fp32", ["onnx", "numpy"]) == ["onnx", "numpy"]
    assert trial.problem(EDGE, "onnx", "fp32") is None
    assert json.loads(state.read_text("utf-8"))["lived"]


def test_without_a_place_each_start_tries_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert trial.problem(EDGE, "onnx", "fp32") is None
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert trial.problem(EDGE, "onnx", "fp32") is None


def test_a_process_of_its_own_runs_this_installation_and_not_a_checkout_that_lies_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `nca-edge doctor` is typed in the folder of a clone."""
    (tmp_path / "nca_edge").mkdir()
    (tmp_path / "nca_edge" / "__init__.py").write_text("raise ImportError('another nca_edge')")
    monkeypatch.chdir(tmp_path)
    assert trial.problem(find_bundle(None).resolve(), "onnx", "int8", anew=True) is None
