"""A frame is handed on once, while it is fresh, and never when it is the last one again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cameras import stamp_of, stamped

from nca_edge.camera import Reader, reader
from nca_edge.camera.protocol import NoFrame, SourceEnded, TornFrame
from nca_edge.errors import CameraError
from nca_edge.records import Image8

Step = Callable[[], Image8]


class Scripted:
    """A source that does what it is told, one step a read; then it waits for ever."""

    name, every = "scripted", False

    def __init__(self, steps: list[Step], live: bool = True, opens: list[str] | None = None) -> None:
        self.live = live
        self.steps, self.fails = list(steps), list(opens or [])
        self.opened = self.closed = 0

    def open(self) -> dict[str, Any]:
        if self.fails and (said := self.fails.pop(0)):
            raise CameraError(said)
        self.opened += 1
        return {"locked": ["gain"]}

    def read(self, wait_s: float) -> Image8:
        if not self.steps:
            time.sleep(0.01)
            raise NoFrame("nothing")
        return self.steps.pop(0)()

    def close(self) -> None:
        self.closed += 1


def gives(number: int, pause_s: float = 0.0) -> Step:
    def step() -> Image8:
        time.sleep(pause_s)
        return stamped(number)

    return step


def raises(error: Exception) -> Step:
    def step() -> Image8:
        raise error

    return step


def taken(source: Scripted, n: int, wait_s: float = 5.0) -> tuple[list[int], Any]:
    """Stamps of the next ``n`` frames, or of those that come in time, and the status then."""
    found: list[int] = []
    until = time.monotonic() + wait_s
    with Reader(source) as camera:
        while len(found) < n and time.monotonic() < until:
            shot = camera.newest(0.05)
            if shot is not None:
                found.append(stamp_of(shot.rgb))
        return found, camera.status()


def test_a_recording_waits_for_whoever_looks() -> None:
    source = Scripted([*(gives(n) for n in range(1, 6)), raises(SourceEnded("over"))], live=False)
    found, status = taken(source, 6, 1.0)
    assert found == [1, 2, 3, 4, 5] and status.state == "ended" and status.frames == 5


def test_of_a_camera_only_the_newest_frame_is_taken() -> None:
    source = Scripted([gives(n) for n in range(1, 50)])
    with Reader(source) as camera:
        while source.steps:
            time.sleep(0.01)
        time.sleep(0.05)
        shot = camera.newest(0.05)
        assert shot is not None and stamp_of(shot.rgb) == 49 and shot.number == 49
        assert camera.newest(0.05) is None  # and once only


def test_a_repeated_frame_is_not_handed_on() -> None:
    source = Scripted([gives(1), *[gives(2, 0.02)] * 5, gives(3, 0.02)])
    found, status = taken(source, 3)
    assert found == [1, 2, 3] and status.repeated == 4


def test_a_torn_frame_is_passed_over() -> None:
    found, status = taken(Scripted([gives(1, 0.05), raises(TornFrame("half")), gives(2, 0.05)]), 2)
    assert found == [1, 2] and status.torn == 1 and status.losses == 0


def test_an_old_frame_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "STALE_S", 0.05)
    with Reader(Scripted([gives(1)])) as camera:
        time.sleep(0.2)
        assert camera.newest(0.01) is None
        status = camera.status()
        assert status.state == "stale" and "check its plug" in status.text


def test_an_image_of_a_watched_folder_does_not_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "STALE_S", 0.05)
    source = Scripted([gives(1), gives(2)])
    source.every = True
    with Reader(source) as camera:
        first = camera.newest(5.0)
        time.sleep(0.3)  # the first one is being read, on a slow board
        second = camera.newest(5.0)
    assert first is not None and second is not None and (stamp_of(first.rgb), stamp_of(second.rgb)) == (1, 2)


def test_a_lost_camera_is_opened_again_and_gives_no_old_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "RETRY_S", 0.02)
    source = Scripted([gives(1), raises(CameraError("it is gone")), gives(2, 0.05)], opens=["", "still gone", "still gone", ""])
    found, status = taken(source, 2, 1.0)
    assert found[-1] == 2 and status.losses == 1 and status.state == "open"
    assert source.opened == 2 and source.closed >= 2


def test_a_silent_camera_is_closed_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LOST_S", 0.1)
    monkeypatch.setattr(reader, "RETRY_S", 0.01)
    source = Scripted([gives(1)])
    taken(source, 2, 0.5)
    assert source.opened >= 2


def test_a_camera_that_repeats_itself_for_long_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "STILL_S", 0.1)
    monkeypatch.setattr(reader, "RETRY_S", 0.01)
    source = Scripted([gives(1, 0.01)] * 40)
    found, status = taken(source, 2, 0.8)
    assert found == [1] and source.opened >= 2 and status.losses >= 1


def test_a_camera_that_cannot_be_opened_at_first_is_told_at_once() -> None:
    with pytest.raises(CameraError, match="no camera"):
        Reader(Scripted([], opens=["no camera"])).start()


def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4e9, 1.0, 2e9] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    found, status = taken(Scripted([gives(n, 0.02) for n in (1, 2, 3)]), 3)
    assert found == [1, 2, 3] and status.losses == 0


def test_nothing_is_left_behind() -> None:
    before = threading.active_count()
    source = Scripted([gives(1)])
    with Reader(source):
        pass
    assert threading.active_count() == before and source.closed >= 1


def test_frames_of_a_large_camera_are_told_apart_by_their_noise() -> None:
    rgb = np.random.default_rng(1).integers(0, 255, (1500, 2000, 3)).astype(np.uint8)
    other = rgb.copy()
    other[3::3] += 1
    found: list[int] = []
    with Reader(Scripted([lambda: rgb, lambda: other, lambda: other])) as camera:
        until = time.monotonic() + 3
        while camera.status().repeated < 1 and time.monotonic() < until:
            shot = camera.newest(0.01)
            found += [shot.number] if shot else []
        assert camera.status().frames == 2 and camera.status().repeated == 1
