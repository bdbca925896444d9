"""Real faults during a live count: a stage that crashes, a full disk, a camera that is black or silent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from livecounts import CHOICE, PLACES, Still, all_events, counting

from nca_edge.camera.protocol import NoFrame, SourceEnded
from nca_edge.cli import microscope
from nca_edge.live import LiveEvent, LiveRequest
from nca_edge.live import run as live_run
from nca_edge.live import stage as live_stage
from nca_edge.live import start as live_start
from nca_edge.records import Image8


def test_a_stage_that_crashes_is_told_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stage, "RESTART_S", 0.05)
    with counting(tmp_path / "s", Still()) as live:
        read, calls = live._analyst.read, []

        def breaks_once(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 1:
                raise ZeroDivisionError("planted")
            return read(*arguments)

        monkeypatch.setattr(live._analyst, "read", breaks_once)
        events = all_events(live)
    told = [e.text for e in events if e.kind == "trouble"]
    assert len(told) == 1 and "reading failed (ZeroDivisionError: planted;" in told[0]
    assert sum(e.kind == "field" for e in events) == 2 and live.failures == told


def test_a_stage_that_crashes_again_and_again_ends_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stage, "RESTART_S", 0.01)
    with counting(tmp_path / "s", Still(frames=60)) as live:
        monkeypatch.setattr(live._watcher, "look", lambda *_: 1 / 0)
        events = all_events(live)
    assert "the count ends here" in live.failures[-1] and events[-1].kind == "ended"


def test_a_full_disk_loses_nothing_that_fits_later(small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_run, "STORE_AGAIN_S", 0.2)
    disk = small_disk("size=40m")
    said: list[str] = []

    def act(event: LiveEvent) -> None:
        if event.kind == "field" and event.name == "frame-000001":
            with (disk / "filler").open("wb") as file:
                file.write(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        elif event.kind == "trouble" and "no space left" in event.text and (disk / "filler").exists():
            said.append(event.text)
            (disk / "filler").unlink()

    with counting(disk / "s", Still(PLACES[:2])) as live:
        events = all_events(live, act)
        live.finish()
    assert said and [e.name for e in events if e.kind == "field"] == ["frame-000001", "frame-000002"]
    assert live.failures == []


def test_a_disk_that_stays_full_is_told_at_the_end(small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_run, "STORE_AGAIN_S", 0.1)
    disk = small_disk("size=40m")

    def act(event: LiveEvent) -> None:
        if event.kind == "field" and event.name == "frame-000001":
            (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))

    with counting(disk / "s", Still(PLACES[:2])) as live:
        all_events(live, act)
        (disk / "filler").unlink()
        assert live.finish().fields == 1
    assert len(live.failures) == 1 and "frame-000002" in live.failures[0] and "could not be stored" in live.failures[0]


def test_a_disk_too_full_to_count_ends_with_exit_code_1_and_a_report(
    small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live_run, "STORE_AGAIN_S", 0.1)
    monkeypatch.setattr(live_start, "open_uri", lambda uri: Still(PLACES[:1]))
    disk = small_disk("size=40m")
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 10_000_000))
    assert microscope.live_run(LiveRequest("test:", disk / "s", None, None, None, CHOICE), False) == 1
    said = capsys.readouterr()
    assert "There is no space left on the disk" in said.err and "free some space" in said.err
    assert "frame-000001" in said.err and "could not be stored" in said.err and "0 leukocytes counted" in said.out
    assert (disk / "s" / "report.html").is_file()


class Black:
    """A camera whose lamp is off: nothing but the sensor's noise."""

    name, every, live = "black", False, False

    def __init__(self) -> None:
        self.left = 12

    def open(self) -> dict[str, Any]:
        return {}

    def read(self, wait_s: float) -> Image8:
        self.left -= 1
        if self.left < 0:
            raise SourceEnded("over")
        time.sleep(0.06)
        return np.random.default_rng(self.left).integers(0, 5, (480, 640, 3)).astype(np.uint8)

    def close(self) -> None:
        pass


def test_a_camera_that_gives_black_is_one_refused_field_that_says_why(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Black()) as live:
        events = all_events(live)
        outcome = live.finish()
    fields = [e for e in events if e.kind == "field"]
    assert len(fields) == 1 and fields[0].reading is not None
    assert fields[0].reading.reasons == ("under-exposed: raise the lamp or the exposure time",)
    assert outcome.rejected == 1 and "rejected" in [e.state for e in events]


def test_a_black_camera_is_a_result_with_exit_code_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live_start, "open_uri", lambda uri: Black())
    assert microscope.live_run(LiveRequest("test:", tmp_path / "s", None, None, None, CHOICE), False) == 0
    said = capsys.readouterr()
    assert "frame-000001: under-exposed: raise the lamp or the exposure time" in said.err
    assert "1 fields: 1 rejected" in said.out


class Silent:
    """A camera that opens and gives nothing."""

    name, every, live = "silent", False, True

    def open(self) -> dict[str, Any]:
        return {}

    def read(self, wait_s: float) -> Image8:
        time.sleep(0.02)
        raise NoFrame("nothing")

    def close(self) -> None:
        pass


def test_a_silent_camera_is_told(tmp_path: Path) -> None:
    def act(event: LiveEvent) -> None:
        if event.kind == "trouble":
            live.stop()

    with counting(tmp_path / "s", Silent()) as live:
        events = all_events(live, act)
    assert any("no frame comes from the camera; check its plug" in e.text for e in events)
