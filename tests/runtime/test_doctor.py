"""The doctor: every finding with what mends it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from done import Call

from nca_edge import doctor
from nca_edge.bundle import find_bundle
from nca_edge.doctor import BAD, CARE, GOOD, Finding, examine

pytestmark = pytest.mark.usefixtures("own_state")


@pytest.fixture
def board_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the board only: trying each variant of the model anew takes longest."""
    monkeypatch.setattr(doctor, "_backends", lambda model: iter(()))


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, "utf-8")


def test_a_sound_machine(tmp_path: Path) -> None:
    found = by_name(examine(tmp_path / "sessions"))
    assert all(found[name].state == GOOD for name in ("board", "64 bit", "Python", "model", "clock", "disk", "memory"))
    assert found["backend onnx fp32"] == Finding("backend onnx fp32", GOOD, found["backend onnx fp32"].says)
    assert "reproduces the golden cells" in found["backend onnx int8"].says
    assert all(finding.mend for finding in found.values() if finding.state != GOOD)


@pytest.mark.usefixtures("board_alone")
def test_a_pi_in_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    firmware = tmp_path / "bin" / "vcgencmd"
    write(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0", "proc/meminfo": "MemTotal:  500000 kB\n",
            "sys/class/thermal/thermal_zone0/temp": "84000\n", "bin/vcgencmd": "#!/bin/sh\necho throttled=0x1\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        },
    )  # fmt: skip
    firmware.chmod(0o755)
    monkeypatch.setenv("PATH", f"{firmware.parent}:{os.environ['PATH']}")
    found = by_name(examine(tmp_path, root=tmp_path))
    assert "raspberry-pi-4" in found["board"].says
    assert found["memory"].state == BAD and "512 MB" in found["memory"].says
    assert found["power"] == Finding(
        "power", BAD, "the board holds back: under-voltage",
        "use the board's own power supply and a cooler, then: vcgencmd get_throttled",
    )  # fmt: skip
    assert found["temperature"].state == CARE and found["temperature"].says == "84 degrees C"
    assert found["camera"].mend == "sudo apt install rpicam-apps"
    assert found["clock speed"].mend and "scaling_governor" in found["clock speed"].mend


@pytest.mark.usefixtures("board_alone")
def test_a_board_out_of_scope(tmp_path: Path) -> None:
    write(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0"})
    assert by_name(examine(tmp_path, root=tmp_path))["board"].state == BAD


@pytest.mark.usefixtures("board_alone")
def test_a_32_bit_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "armv7l")
    found = by_name(examine(tmp_path))
    assert found["board"].state == BAD and found["board"].mend == "install the 64-bit system for this board"
    assert found["memory"].state == GOOD  # and it goes on with what can be looked at


@pytest.mark.parametrize("version, state", [((3, 9, 2), BAD), ((3, 10, 0), GOOD), ((3, 13, 1), GOOD)])
def test_python(version: tuple[int, ...], state: str) -> None:
    finding = doctor._python(version)
    assert finding.state == state and (finding.mend is None) == (state == GOOD)


def test_a_clock_that_was_never_set() -> None:
    finding = doctor._clock(0.0)
    assert finding.state == BAD and "1970" in finding.says and "timedatectl" in (finding.mend or "")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 10**7))
    finding = doctor._disk(tmp_path / "not" / "yet")
    assert finding.state == BAD and finding.says == f"only 0.01 GB free at {tmp_path}"


def test_a_backend_that_dies_and_a_bundle_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", "utf-8")
    bundle = Path(shutil.copytree(find_bundle(None), tmp_path / "bundle"))
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(tmp_path))
        found = by_name(examine(tmp_path, str(bundle)))
    assert found["backend onnx fp32"].state == BAD and "killed by signal 4" in found["backend onnx fp32"].says
    (bundle / "weights.npz").write_bytes(b"damaged")
    damaged = by_name(examine(tmp_path, str(bundle)))
    assert damaged["model"].state == BAD and damaged["model"].says.startswith("weights.npz: its content is not what")


def test_command(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = call("doctor", "--json", "--out", tmp_path)
    findings = json.loads(told.out)
    assert told.code == 0 and {"what", "state", "says", "mend"} == set(findings[0])
    monkeypatch.setattr(doctor, "BUILT", 10**11)
    monkeypatch.setattr(doctor, "_backends", lambda model: iter(()))
    plain = call("doctor", "--out", tmp_path)
    assert plain.code == 1 and "mend: sudo timedatectl set-time" in plain.out


def test_the_camera_is_named_as_the_command_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert doctor._camera(tmp_path, None).says == "none is plugged in"
    write(tmp_path, {"dev/video0": ""})
    without = doctor._camera(tmp_path, None)
    assert (without.state, without.mend) == (CARE, "pip install 'nca-edge[camera]'") and "v4l2:/dev/video0" in without.says
    monkeypatch.setattr(doctor, "find_spec", lambda name: True)
    assert doctor._camera(tmp_path, None) == Finding("camera", GOOD, "--camera means v4l2:/dev/video0")
    write(tmp_path, {"dev/v4l/by-id/usb-Scope-video-index0": "", "bin/rpicam-vid": ""})
    (tmp_path / "bin" / "rpicam-vid").chmod(0o755)
    assert doctor._camera(tmp_path, None).says == "--camera means v4l2:/dev/v4l/by-id/usb-Scope-video-index0"
    shutil.rmtree(tmp_path / "dev")
    assert doctor._camera(tmp_path, None).says == "--camera means rpicam:0"


def test_a_camera_that_may_not_be_read_names_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"dev/video0": ""})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    group = (tmp_path / "dev" / "video0").group()
    found = doctor._camera(tmp_path, None)
    assert (found.state, found.mend) == (CARE, f"sudo usermod -aG {group} $USER, then log in again")
