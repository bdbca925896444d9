"""Cameras that are programs or pipes: real ones, pulled and plugged in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cameras
import pytest
from cameras import jpeg, stamp_of, stamped

from nca_edge.camera import Reader, open_uri
from nca_edge.camera.protocol import NoFrame
from nca_edge.classifier import ModelChoice
from nca_edge.errors import CameraError
from nca_edge.live import LiveRequest, begin


def test_the_pi_program_is_metered_once_and_then_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("on")
    stub = cameras.stub_rpicam(tmp_path / "bin", tmp_path / "state")
    told = '[{"ExposureTime": 1}, {"ExposureTime": 8123, "AnalogueGain": 1.5, "ColourGains": [1.25, 2.0]}]'
    metering = f"case \" $* \" in *' --metadata '*) echo '{told}'; exit;; esac"
    stub.write_text(stub.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{metering}\n"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    source = open_uri("rpicam:0")
    settings = source.open()
    try:
        assert settings["locked"] == ["awbgains", "gain", "shutter"]
        assert (settings["shutter"], settings["gain"], settings["awbgains"]) == ("8123", "1.500", "1.250,2.000")
        assert settings["command"][-6:] == ["--shutter", "8123", "--gain", "1.500", "--awbgains", "1.250,2.000"]
        assert source.read(10.0).shape == (240, 320, 3)
        source.close()
        assert source.open() == settings  # back with the same light, without metering anew
    finally:
        source.close()


def test_a_program_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CameraError, match="rpicam-vid is not installed: sudo apt install rpicam-apps"):
        open_uri("rpicam:0").open()
    with pytest.raises(CameraError, match=r"gst-launch-1\.0 is not installed"):
        open_uri("csi:0").open()


def test_a_program_without_camera_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cameras.stub_rpicam(tmp_path / "bin", tmp_path / "state")  # no state: pulled
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    source = open_uri("rpicam:0?shutter=1")
    source.open()
    try:
        with pytest.raises(CameraError, match=r"rpicam-vid ended.*no cameras available"):
            for _ in range(100):
                try:
                    source.read(0.2)
                except NoFrame:
                    continue
    finally:
        source.close()


def test_a_pulled_program_comes_back_with_new_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    state.write_text("on")
    cameras.stub_rpicam(tmp_path / "bin", state)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with Reader(open_uri("rpicam:0?shutter=1")) as reader:
        assert wait_for(reader) > 0
        state.write_text("off")
        while reader.status().state == "open":
            time.sleep(0.02)
        plugged = cameras.now_ms()
        state.write_text("on")
        assert wait_for(reader) > plugged and reader.status().losses >= 1


def wait_for(reader: Reader, wait_s: float = 20.0) -> int:
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        shot = reader.newest()
        if shot is not None:
            return stamp_of(shot.rgb)
    return -1


def test_a_pipe_gives_pictures_and_an_ordinary_file_does_not(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(jpeg(stamped(3)))
    with pytest.raises(CameraError, match="is no pipe: make one with mkfifo"):
        open_uri(f"pipe:{tmp_path / 'plain'}").open()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "state").write_text("on")
    with Reader(open_uri(f"pipe:{tmp_path / 'fifo'}")) as reader:
        program = [sys.executable, cameras.__file__, "fifo", str(tmp_path / "fifo"), str(tmp_path / "state")]
        with subprocess.Popen(program) as writer:
            assert wait_for(reader) > 0
            writer.terminate()


def test_a_camera_in_a_format_that_nobody_decodes_is_told_in_a_count(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    raw = """
import sys, time
while True:  # as a program does that is started again
    try:
        with open(sys.argv[1], "wb") as file:
            while True:
                file.write(bytes(range(1, 251)) * 2458)
                time.sleep(0.02)
    except BrokenPipeError:
        continue
"""
    said: list[str] = []
    request = LiveRequest(f"pipe:{tmp_path / 'fifo'}", tmp_path / "s", None, None, None, ModelChoice(None, "onnx", "fp32", 1))
    with subprocess.Popen([sys.executable, "-c", raw, str(tmp_path / "fifo")]) as writer:
        with begin(request, said.append) as live:
            watching, until = live.events(), time.monotonic() + 60
            live.start()
            for event in watching:
                said.append(event.text)
                if "choose MJPEG" in event.text or time.monotonic() > until:
                    live.stop()
            live.finish()
        writer.kill()
    assert any("something that is no JPEG picture: choose MJPEG as its format" in text for text in said)
