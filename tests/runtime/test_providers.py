"""A GPU computes only where the installed build lists it and a real run on it gives the golden answers.

The build that the tests run on has no GPU. What such a build does when asked for CUDA is what a board with a broken driver
does: it goes on with the CPU and says so to nobody. The provider that it lists beside the CPU (for a cloud; it computes nothing
itself) stands for a GPU that works: it is loaded, tried and timed as one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nca_edge import doctor, trial
from nca_edge.backends import CPU, OnnxBackend, gpu_providers, onnx, short
from nca_edge.bench import command, peak
from nca_edge.bench.predict import predict
from nca_edge.bench.variant import Timing
from nca_edge.bundle import find_bundle, load_bundle
from nca_edge.classifier import PROVIDERS, ModelChoice, load
from nca_edge.errors import UsageError
from nca_edge.profiles import find_profile

Call = Callable[..., Any]
EDGE = find_bundle(None).resolve()
CUDA, WORKING = "CUDAExecutionProvider", "AzureExecutionProvider"


@pytest.fixture(autouse=True)
def no_wish(own_state: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(onnx.KEEP_CPU, raising=False)


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the build list these besides the CPU, in this process alone."""

    def make(*names: str) -> None:
        import onnxruntime

        monkeypatch.setattr(onnx, "GPU", names)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, CPU])

    return make


@pytest.fixture
def working(lists: Callable[..., None]) -> None:
    import onnxruntime

    if WORKING not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has the CPU alone")
    lists(WORKING)


def provider_of(choice: ModelChoice) -> str:
    backend = load(choice).backend
    assert isinstance(backend, OnnxBackend)
    return backend.provider


def test_a_build_for_the_cpu_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_providers() == [] and provider_of(ModelChoice(str(EDGE), "onnx")) == CPU


def test_listed_in_the_order_of_trial(lists: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", CUDA, CPU])
    assert gpu_providers() == [CUDA, "TensorrtExecutionProvider"]
    assert [short(name) for name in gpu_providers()] == ["CUDA", "Tensorrt"]
    monkeypatch.setenv(onnx.KEEP_CPU, "cpu")
    assert gpu_providers() == []


def test_one_that_does_not_start_is_passed_over(lists: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    lists(CUDA)
    with caplog.at_level(logging.WARNING):
        assert provider_of(ModelChoice(str(EDGE), "onnx")) == CPU
    assert caplog.messages == [
        "CUDA was tried and is not used: CUDA does not start in this build of ONNX Runtime; check its driver and libraries."
    ]


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_asked_for_by_name_it_is_refused() -> None:
    with pytest.raises(UsageError, match="CUDA does not start"):
        load(ModelChoice(str(EDGE), "onnx", trial=False, provider=CUDA))


def test_one_that_dies_is_passed_over(
    lists: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lists(CUDA)
    assert trial.problem(EDGE, "onnx", "fp32") is None  # the CPU is known to live
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert provider_of(ModelChoice(str(EDGE), "onnx")) == CPU
    assert "with CUDAExecutionProvider was killed by signal 11" in caplog.messages[0]


def test_one_that_works_is_used_and_told(working: None) -> None:
    classifier = load(ModelChoice(str(EDGE), "onnx"))
    assert isinstance(classifier.backend, OnnxBackend) and classifier.backend.provider == WORKING
    assert classifier.facts(None).model_facts["provider"] == "Azure"
    assert provider_of(ModelChoice(str(EDGE), "onnx", "int8")) == CPU  # its operators are a CPU's
    trial.remember(classifier.bundle.sha256, PROVIDERS, {WORKING: 9.0, CPU: 3.0})
    assert provider_of(ModelChoice(str(EDGE), "onnx")) == CPU  # the benchmark found it slower


def test_the_benchmark_names_and_remembers_them(working: None, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.setattr(peak, "ENOUGH_S", 1e-3)
    monkeypatch.setattr(command, "CELL_S", 0.01)
    monkeypatch.setattr(command, "sample_fields", lambda: "")
    result = json.loads(call("bench", "--backend", "onnx", "--threads", "1", "--json").out)
    rows = [(row["precision"], row["provider"], row["valid"], row["share_of_peak"] is None) for row in result["results"]]
    assert rows == [("fp32", "CPU", True, False), ("fp32", "Azure", True, True), ("int8", "CPU", True, False)]
    sha256 = load_bundle(EDGE).sha256
    assert set(trial.quickest_first(sha256, PROVIDERS, [CPU, WORKING])) == {CPU, WORKING}
    quickest = min(result["results"][:2], key=lambda row: row["cell_ms"]["p50"])["provider"]
    assert short(trial.quickest_first(sha256, PROVIDERS, [CPU, WORKING])[0]) == quickest


def test_a_gpu_says_nothing_of_another_boards_cpu() -> None:
    gpu = Timing("onnx", "fp32", 1, True, None, {"p50": 1.0}, provider=CUDA)
    here = peak.Peak(fp32_gmac_per_s=50.0, int8_gmac_per_s=200.0)
    assert predict(find_profile("raspberry-pi-5"), load_bundle(EDGE).manifest.architecture, [gpu], here) == []


def test_the_doctor_tries_each(lists: Callable[..., None]) -> None:
    lists(CUDA)
    (finding,) = doctor._providers(load_bundle(EDGE))
    assert finding.what == "GPU, CUDA" and finding.state == doctor.CARE and "does not start" in finding.says
    assert finding.mend == "export NCA_EDGE_PROVIDER=CPU stops trying it"
