"""The benchmark: figures that can be checked by hand, boards that say little, variants that crash or answer wrongly."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from done import Call
from PIL import Image

from nca_edge import RESEARCH_USE, trial
from nca_edge.automaton import PRESETS
from nca_edge.bench import board, command, peak, report
from nca_edge.bench.onnx_file import product
from nca_edge.bench.predict import predict
from nca_edge.bench.variant import Question, Timing, time_variant
from nca_edge.bundle import find_bundle, load_bundle
from nca_edge.profiles import find_profile

EDGE = find_bundle(None).resolve()
pytestmark = pytest.mark.usefixtures("own_state")


@pytest.fixture
def one_field(tmp_path: Path) -> Path:
    """A folder of one real field."""
    (tmp_path / "fields").mkdir()
    shutil.copy(Path(str(command.sample_fields())) / "bccd-BloodImage_00209.jpg", tmp_path / "fields")
    return tmp_path / "fields"


def question(bundle: Path = EDGE, backend: str = "numpy", fields: str | None = None) -> Question:
    return Question(str(bundle), backend, "fp32", 1, 0.01, fields, None, None)


@pytest.mark.parametrize("kind", ["MatMul", "MatMulInteger"])
def test_the_products_that_are_timed_are_products(kind: str) -> None:
    import onnxruntime

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (5, 130)).astype(np.uint8), rng.integers(-127, 128, (130, 3)).astype(np.int8)
    if kind == "MatMul":
        a, b = a.astype(np.float32), b.astype(np.float32)  # type: ignore[assignment]
    session = onnxruntime.InferenceSession(product(kind, 5, b), providers=["CPUExecutionProvider"])
    (found,) = session.run(["c"], {"a": a})
    assert (found == a.astype(np.int64) @ b.astype(np.int64)).all()


def test_peak_is_the_best_of_several_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "ENOUGH_S", 1e-3)
    monkeypatch.setattr(peak, "ROWS", (64,))
    monkeypatch.setattr(peak, "SIDES", (32, 64))
    found = peak.measure_peak(1)
    assert found.fp32_gmac_per_s > 0.01 and found.int8_gmac_per_s > 0.01


def test_a_variant_is_timed_with_its_answers_and_its_memory() -> None:
    timing = time_variant(question())
    assert timing.valid and timing.problem is None and timing.agreement == 1 and timing.golden_error == 0
    assert 0 < timing.cell_ms["p50"] <= timing.cell_ms["p90"] <= timing.cell_ms["p99"]
    assert timing.peak_memory_mb is not None and 20 < timing.peak_memory_mb < 2000
    assert timing.batch_ms is not None and timing.stage_ms == {}


def test_stages_add_up_to_the_field(one_field: Path) -> None:
    timing = time_variant(question(backend="onnx", fields=str(one_field)))
    assert list(timing.stage_ms) == ["decode", "light", "gate", "detect", "crop", "model", "lrp", "mask", "measure", "store"]
    assert timing.field_ms is not None and 0.5 * timing.field_ms < sum(timing.stage_ms.values()) <= timing.field_ms
    assert timing.cells_per_minute is not None and timing.cells_per_minute > 0


def test_a_variant_that_crashes_costs_its_row_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    timing = time_variant(question(backend="onnx"))
    assert not timing.valid and timing.problem == "killed by signal 4: this CPU or system does not stand it"


def test_a_runtime_that_kills_what_imports_it_does_not_kill_the_benchmark(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(command, "CELL_S", 0.01)
    monkeypatch.setattr(command, "sample_fields", lambda: "")
    monkeypatch.setattr(command, "_variants", lambda bundle, backend: ([("onnx", "fp32"), ("numpy", "fp32")], []))
    done = call("bench", "--threads", "1", "--board", "raspberry-pi-5")
    assert done.code == 1 and "killed by signal 4" in done.out
    assert "peak of this CPU, 1 threads: not known" in done.out and "\nnumpy         fp32" in done.out


def test_a_missing_extra_is_a_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ai_edge_litert", "tflite_runtime"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("", "utf-8")
        (tmp_path / name / "interpreter.py").write_text("raise ImportError\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    timing = time_variant(question(backend="litert"))
    assert not timing.valid and "nca-edge[litert]" in (timing.problem or "")


def test_a_bundle_without_the_wanted_precision(tmp_path: Path, call: Call, crop_files: list[Path]) -> None:
    bundle = Path(shutil.copytree(EDGE, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["files"] = [entry for entry in manifest["files"] if "int8" not in entry["name"]]
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    done = call("classify", crop_files[0], "--model", bundle, "--precision", "int8")
    assert done.code == 2 and "has no" in done.err and "model in int8; it has: --backend litert --precision fp32" in done.err
    assert {precision for _, precision in command._variants(load_bundle(bundle), "auto")[0]} == {
        "fp32"
    }  # the benchmark goes on
    done = call("bench", "--model", _without(bundle, "onnx"), "--backend", "onnx")
    assert done.code == 2 and "this bundle has no onnx model" in done.err


def _without(bundle: Path, backend: str) -> Path:
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["files"] = [entry for entry in manifest["files"] if entry.get("backend") != backend]
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return bundle


def test_a_quick_wrong_answer_is_invalid(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(EDGE, tmp_path / "bundle"))
    with np.load(bundle / "golden.npz") as archive:
        arrays = dict(archive)
    arrays["logits"] = arrays["logits"] + 1
    np.savez(bundle / "golden.npz", **arrays)
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    for entry in manifest["files"]:
        entry["sha256"] = hashlib.sha256((bundle / entry["name"]).read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    timing = time_variant(question(bundle))
    assert not timing.valid and (timing.problem or "").startswith("INVALID: weights.npz: answers of the numpy backend differ")


def test_sensors_of_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "sys/class/thermal/thermal_zone0/temp": "48123\n", "sys/class/thermal/thermal_zone1/temp": "51500\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/class/power_supply/BAT0/status": "Discharging\n", "proc/loadavg": "3.14 2.00 1.00 2/99 4242\n",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    firmware = tmp_path / "vcgencmd"
    firmware.write_text("#!/bin/sh\necho throttled=0x50005\n", "utf-8")
    firmware.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    felt = board.sense(tmp_path)
    assert felt == board.Sensors(51.5, 1500.0, ("under-voltage", "throttled"), True, 3.14)
    said = command._warnings(felt, felt, board.facts())
    assert any("battery" in text for text in said) and any("held back (throttled, under-voltage)" in text for text in said)
    assert any("busy when it was asked (3.1 programs" in text for text in said)


def test_a_board_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert board.sense(tmp_path) == board.Sensors(None, None, None, None)
    facts = board.facts(tmp_path)
    assert facts.cpu and facts.features == () and facts.memory_mb is None and facts.governor is None


def test_a_board_that_no_profile_knows(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"Banana Pi M5\0")
    facts, felt = board.facts(tmp_path), board.Sensors(40.0, None, None, None)
    assert facts.model == "Banana Pi M5" and facts.profile.startswith("generic")
    assert command._warnings(felt, felt, facts) == [
        f"No profile knows the board 'Banana Pi M5': it is taken for {facts.profile}."
    ]


def test_a_processor_that_no_profile_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "armv7l")
    assert board.facts(tmp_path).profile == "unknown"


def test_a_temperature_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").mkdir(parents=True)  # fails for root too, unlike a forbidden file
    felt = board.sense(tmp_path)
    assert felt.temperature_c is None
    assert "whether it was hot is not known" in command._warnings(felt, felt, board.facts())[-1]


def test_a_prediction_is_arithmetic() -> None:
    a = PRESETS["edge"]
    here = peak.Peak(fp32_gmac_per_s=50.0, int8_gmac_per_s=200.0)
    timings = [Timing("onnx", "fp32", 1, True, None, {"p50": 10.0}), Timing("onnx", "int8", 1, False, "crashed")]
    profile = find_profile("raspberry-pi-5")
    assert profile.cpu is not None and profile.cpu.fp32_mac_per_cycle is not None
    (row,) = predict(profile, a, timings, here)
    share = a.macs / 1e6 / 10.0 / 50.0
    rate = profile.cpu.fp32_mac_per_cycle * profile.cpu.clock_ghz * profile.cpu.threads
    assert row["cell_ms"] == pytest.approx(a.macs / 1e6 / rate / share) and row["assumed_share_of_peak"] == pytest.approx(share)
    assert predict(find_profile("generic-aarch64"), a, timings, here) == []


def test_command(tmp_path: Path, one_field: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "ENOUGH_S", 1e-3)
    monkeypatch.setattr(command, "sample_fields", lambda: one_field)
    monkeypatch.setattr(command, "CELL_S", 0.01)
    out, chart = tmp_path / "deep" / "result.json", tmp_path / "chart.png"
    done = call(
        "bench", "--backend", "numpy", "--threads", "1", "--sustained", "0.001", "--json", "--out", out, "--chart", chart
    )
    result = json.loads(done.out)
    assert done.code == 0 and result == json.loads(out.read_text("utf-8"))
    (row,) = result["results"]
    assert {"backend", "precision", "preset", "update", "threads", "cell_ms", "stage_ms", "gmac_per_cell", "gmac_per_s",
            "share_of_peak", "peak_memory_mb", "agreement", "valid"} <= set(row)  # fmt: skip
    assert row["gmac_per_s"] == pytest.approx(row["gmac_per_cell"] * 1e3 / row["cell_ms"]["p50"])
    assert row["share_of_peak"] == pytest.approx(row["gmac_per_s"] / result["peak"]["fp32_gmac_per_s"])
    assert result["sustained"]["samples"][0]["cell_ms"] > 0
    with Image.open(chart) as image:
        assert image.size[0] == report.WIDTH and len(np.unique(np.asarray(image))) > 10


def test_text_names_what_is_not_valid_and_what_is_predicted() -> None:
    bad = {"backend": "onnx", "precision": "int8", "valid": False, "problem": "INVALID: its answers differ"}
    result = {
        "board": {"cpu": "Cortex-A76", "cpus": 4, "os": "Debian", "python": "3.11", "profile": "raspberry-pi-5"},
        "peak": {"fp32_gmac_per_s": 50.0, "int8_gmac_per_s": 200.0}, "threads": 4,
        "bundle": {"name": "edge", "gmac_per_cell": 0.41}, "results": [{**bad, "stage_ms": {}}],
        "prediction": [{"board": "raspberry-pi-4", "sentence": "int8 about 9 ms a cell"}], "warnings": ["Hot."],
    }  # fmt: skip
    said = report.text(result)
    assert "quickest" not in said and "a field" not in said
    assert "onnx          int8      INVALID: its answers differ" in said and said.endswith(RESEARCH_USE)
    assert "PREDICTED, not measured, raspberry-pi-4: int8 about 9 ms a cell" in said and "Hot." in said


def test_text_says_where_the_time_of_a_field_goes() -> None:
    def row(backend: str, ms: float) -> dict[str, Any]:
        return {
            "backend": backend, "precision": "int8", "valid": True, "cell_ms": {"p50": ms, "p90": ms, "p99": ms},
            "share_of_peak": None, "peak_memory_mb": 150.0, "agreement": 1.0, "field_ms": 100 + ms, "cells_per_minute": 600.0,
            "stage_ms": {"gate": 25.04, "model": ms},
        }  # fmt: skip

    result = {
        "board": {"cpu": "Cortex-A76", "cpus": 4, "os": "Debian", "python": "3.11", "profile": "raspberry-pi-5"},
        "peak": {"fp32_gmac_per_s": None, "int8_gmac_per_s": None}, "threads": 4,
        "bundle": {"name": "edge", "gmac_per_cell": 0.41}, "results": [row("litert", 5.5), row("onnx", 4.5)],
        "prediction": [], "warnings": [],
    }  # fmt: skip
    lines = report.text(result).splitlines()
    assert "quickest here: onnx int8" in lines
    table = [line.split() for line in lines[lines.index("quickest here: onnx int8") + 2 :]]
    assert table[:6] == [
        ["a", "field,", "ms", "litert", "onnx"], ["int8", "int8"], ["gate", "25.0", "25.0"], ["model", "5.5", "4.5"],
        ["all", "106", "104"], ["cells", "a", "minute", "600", "600"],
    ]  # fmt: skip


def test_a_chart_shows_what_is_not_valid(tmp_path: Path) -> None:
    """It stands in red where its bar would be."""
    good = {"backend": "onnx", "precision": "fp32", "valid": True, "cell_ms": {"p50": 4.0, "p90": 5.0}}
    bad = {"backend": "onnx", "precision": "int8", "valid": False, "problem": "INVALID: its answers differ" + " a lot" * 30}
    result = {"board": {"cpu": "Cortex-A76"}, "bundle": {"name": "edge"}, "threads": 4}
    for rows, shown in (([good], False), ([good, bad], True), ([bad], True)):
        report.chart({**result, "results": rows}, tmp_path / "chart.png")
        with Image.open(tmp_path / "chart.png") as image:
            red = (np.asarray(image) == report.WRONG).all(2)
        assert red.any() == shown and not red[:, -report.MARGIN :].any()


def test_what_is_not_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "installed", lambda name: None if name in ("litert", "native") else "there")
    monkeypatch.setattr(trial, "missing", lambda: "this CPU lacks AVX2")
    variants, said = command._variants(load_bundle(EDGE), "auto")
    assert variants == [("onnx", "fp32"), ("onnx", "int8"), ("numpy", "fp32")]
    assert said == [
        "litert was left out: not installed; pip install 'nca-edge[litert]'.",
        "native was left out: this CPU lacks AVX2; run with another --backend than native.",
    ]
    assert ("litert", "int8") in command._variants(load_bundle(EDGE), "litert")[0]


def test_wrong_use(call: Call) -> None:
    done = call("bench", "--board", "abacus")
    assert done.code == 2 and "no board named 'abacus'" in done.err
