"""A live count: what is counted, and how it begins, pauses and ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from livecounts import CHOICE, PLACES, Still, all_events, counting, sheet
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.camera.operator import Pose
from nca_edge.camera.simulated import Microscope
from nca_edge.errors import UsageError
from nca_edge.live import LiveEvent, LiveRequest
from nca_edge.live import start as live_start
from nca_edge.live.screen import KEYS, Panel
from nca_edge.samples import sample_fields
from nca_edge.session import Session


def test_a_count_ends_with_a_whole_session(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still()) as live:
        events = all_events(live)
        outcome = live.finish()
    fields = [e for e in events if e.kind == "field"]
    assert [e.name for e in fields] == ["frame-000001", "frame-000002", "frame-000003"]
    assert events[-1].kind == "ended" and not live.failures
    assert outcome.fields == 3 and outcome.table.leukocytes == events[-1].table.leukocytes >= 3
    assert (tmp_path / "s" / "report.html").is_file()
    frame = next(e for e in events if e.kind == "frame" and e.frame is not None)
    assert frame.frame is not None and frame.frame.shape == (480, 640, 3) and frame.camera.state == "open"
    with Session.open(tmp_path / "s", read_only=True) as session:
        assert [f.name for f in session.fields()] == [e.name for e in fields]


def test_a_field_says_how_long_it_took_from_its_picture(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:1])) as live:
        assert [e.delay_s for e in all_events(live) if e.kind == "field"] == [None]  # of a recording nobody waits
    camera = Still(PLACES[:1], 40)
    camera.live = True
    with counting(tmp_path / "t", camera) as live:
        delays = [e.delay_s for e in all_events(live) if e.kind == "field"]
    assert len(delays) == 1 and delays[0] is not None and delays[0] > 0


@pytest.mark.parametrize(("source", "name"), [("test:", "test"), ("test:?fps=9", "test"), ("v4l2:0", "v4l2"), ("a.mp4", "a")])
def test_a_session_folder_is_called_after_its_camera(source: str, name: str) -> None:
    """Without a colon, which a USB stick may not take."""
    assert live_start._name(LiveRequest(source, None, None, None, None, CHOICE)) == name


def test_nothing_is_counted_while_paused(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        live.pause()
        events = all_events(live)
    assert {e.kind for e in events} <= {"frame", "ended"} and events[-2].state == "paused"


def test_the_target_ends_the_count(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(), target=1) as live:
        events = all_events(live)
        outcome = live.finish()
    assert sum(e.kind == "field" for e in events) == 1 and outcome.fields == 1
    assert any("target of 1 leukocytes is reached" in e.text for e in events)


def test_a_clock_that_jumps_does_not_disturb_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = time.time, []

    def jumping() -> float:
        calls.append(1)
        return real() + (-1) ** len(calls) * 4e8

    monkeypatch.setattr(time, "time", jumping)
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        assert sum(e.kind == "field" for e in all_events(live)) == 2


def test_a_watcher_that_does_not_keep_up_loses_pictures_only(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(frames=15)) as live:
        slow = live.events()
        all_events(live)
        late = list(slow)
        assert live.latest is not None and live.latest.kind == "ended"
        assert live.latest_frame is not None and live.latest_frame.frame is not None
    assert [e.name for e in late if e.kind == "field"] == ["frame-000001", "frame-000002", "frame-000003"]
    assert sum(e.kind == "frame" for e in late) < 10 and late[-1].kind == "ended"


def test_a_second_session_on_one_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give one of them"), counting(tmp_path / "s", Still(), session=tmp_path / "s"):
        pass


def test_the_panel_fits_a_terminal_of_80_by_24_and_cuts_off_no_advice(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:1])) as live:
        events = all_events(live)
    panel = Panel(100)
    drawn = [panel.lines(event, 79) for event in events]
    said = "camera v4l2:/dev/v4l/by-id/usb-Scope-video-index0: no frame comes from the camera; check its plug."
    drawn.append(panel.lines(replace(events[-1], text=said), 79))
    assert {len(lines) for lines in drawn} == {len(drawn[0])} and len(drawn[0]) <= 22
    assert all(len(line) <= 79 for lines in drawn for line in lines)
    text = " ".join(" ".join(drawn[-1]).split())
    assert said in text and RESEARCH_USE in text and KEYS.split()[0] in text and " in 1 field " in text


def test_a_recording_is_counted_to_its_end(tmp_path: Path, call: Callable[..., Any]) -> None:
    av = pytest.importorskip("av")
    scope = Microscope(sheet(), (640, 480), 1)
    with av.open(str(tmp_path / "pan.mp4"), "w") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for n in range(36):
            x, y = PLACES[n // 18]
            frame = av.VideoFrame.from_ndarray(scope.photograph(Pose(x, y, 0.0, True)), "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    done = call("run", tmp_path / "pan.mp4", "--out", tmp_path / "s", "--backend", "onnx", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0 and lines[-1]["summary"]["fields"] == 2 and lines[-1]["summary"]["leukocytes"] >= 2


def test_a_watched_folder_is_counted_field_by_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nca_edge.camera import open_uri, watch

    monkeypatch.setattr(watch, "QUIET_S", 0.05)
    (tmp_path / "in").mkdir()
    names = ["bccd-BloodImage_00099.jpg", "bccd-BloodImage_00209.jpg"]

    def act(event: LiveEvent) -> None:
        done = event.fields
        if event.kind == "field" and done == 2:
            live.stop()

    with counting(tmp_path / "s", open_uri(f"watch:{tmp_path / 'in'}")) as live:
        watching = live.events()
        live.start()
        for name in names:
            with Image.open(sample_fields() / name) as image:
                image.save(tmp_path / "in" / name)
        events = []
        for event in watching:
            events.append(event)
            act(event)
    assert [e.name for e in events if e.kind == "field"] == ["frame-000001", "frame-000002"]
