"""A live count: stages in threads, a real session, real faults."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.camera.mosaic import Mosaic, sample_mosaic
from nca_edge.camera.operator import Pose
from nca_edge.camera.protocol import NoFrame, SourceEnded
from nca_edge.camera.simulated import Microscope
from nca_edge.classifier import ModelChoice
from nca_edge.cli import microscope
from nca_edge.errors import UsageError
from nca_edge.live import LiveEvent, LiveRequest, LiveRun, begin
from nca_edge.live import run as live_run
from nca_edge.live import stage as live_stage
from nca_edge.live import start as live_start
from nca_edge.live.screen import KEYS, Panel
from nca_edge.live.start import LiveCount
from nca_edge.records import Image8
from nca_edge.samples import sample_fields
from nca_edge.session import Session

CHOICE = ModelChoice(None, "onnx", "fp32", 1)
PLACES = ((0.0, 480.0), (640.0, 480.0), (1280.0, 480.0))
"""Of the sample sheet: each shows one to two whole white cells."""


@cache
def sheet() -> Mosaic:
    return sample_mosaic()


class Still:
    """A microscope whose stage rests at some places, one after the other: frames as fast as they are looked at."""

    name, every, live = "still", False, False

    def __init__(self, places: tuple[tuple[float, float], ...] = PLACES, frames: int = 9) -> None:
        self.scope = Microscope(sheet(), (640, 480), 1)
        self.poses = [Pose(x, y, 0.0, True) for x, y in places for _ in range(frames)]
        self.at = 0

    def open(self) -> dict[str, Any]:
        return {"locked": ["exposure"]}

    def read(self, wait_s: float) -> Image8:
        if self.at == len(self.poses):
            raise SourceEnded("over")
        time.sleep(0.06)
        self.at += 1
        return self.scope.photograph(self.poses[self.at - 1])

    def close(self) -> None:
        pass


@contextmanager
def counting(folder: Path, source: Any, **request: Any) -> Iterator[LiveCount]:
    """A live count of any source."""
    asked = {"out": folder, "session": None, "um_per_px": None, "target": None, "choice": CHOICE} | request
    with begin(LiveRequest("test:", **asked), lambda text: None, source) as live:
        yield live


def all_events(live: LiveRun, act: Callable[[LiveEvent], None] = lambda event: None) -> list[LiveEvent]:
    found = []
    watching = live.events()
    live.start()
    for event in watching:
        found.append(event)
        act(event)
    return found


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


def test_a_place_that_was_read_is_not_read_again(tmp_path: Path) -> None:
    back = (PLACES[0], PLACES[1], (PLACES[0][0] + 4, PLACES[0][1] - 4))
    with counting(tmp_path / "s", Still(back)) as live:
        events = all_events(live)
    assert sum(e.kind == "field" for e in events) == 2
    assert "seen" in [e.state for e in events if e.kind == "frame"][-3:]


def test_cells_that_two_fields_share_are_counted_once(tmp_path: Path) -> None:
    with counting(tmp_path / "one", Still(PLACES[:1])) as live:
        all_events(live)
        alone = live.finish().table.leukocytes
    x, y = PLACES[0]
    with counting(tmp_path / "two", Still(((x, y), (x + 40, y)))) as live:
        events = all_events(live)
        assert live.finish().table.leukocytes == alone >= 1
    assert sum(e.kind == "field" for e in events) == 2


def test_undo_takes_the_last_field_back_and_it_can_be_read_again(tmp_path: Path) -> None:
    undone: list[str] = []

    def act(event: LiveEvent) -> None:
        if event.kind == "field" and event.name == "frame-000002":
            live.undo()
        undone.extend([event.name] if event.kind == "undone" else [])

    with counting(tmp_path / "s", Still((*PLACES[:2], PLACES[2], PLACES[1]), 20)) as live:
        events = all_events(live, act)
    assert undone == ["frame-000002"]
    fields = [e for e in events if e.kind == "field"]
    assert len(fields) == 4  # the place that was taken back was read again
    assert events[-1].fields == 3
    with Session.open(tmp_path / "s", read_only=True) as session:
        assert [f.voided for f in session.fields()] == [False, True, False, False]
        assert "voided" in [row.action for row in session.audit_log()]


def test_a_count_that_goes_on_knows_where_it_was(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        all_events(live)
        assert live.earlier == ""
        before = live.finish(interrupted=True).table.leukocytes
    said: list[str] = []
    asked = LiveRequest("test:", None, tmp_path / "s", None, None, CHOICE)
    with begin(asked, said.append, Still((PLACES[1], PLACES[2], PLACES[0]))) as live:
        events = all_events(live)
        after = live.finish().table.leukocytes
    assert [e.name for e in events if e.kind == "field"] == ["frame-000003"]  # the one place that is new
    assert after > before
    assert "The places of 2 earlier fields are known again, as long as the slide lies as it lay." in said


def test_a_count_that_goes_on_says_which_places_it_does_not_know(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        all_events(live)
        live.finish(interrupted=True)
    lines = (tmp_path / "s" / "places.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "s" / "places.jsonl").write_bytes(lines[0] + lines[1][:500])  # as a power cut may leave it
    said: list[str] = []
    asked = LiveRequest("test:", None, tmp_path / "s", None, None, CHOICE)
    with begin(asked, said.append, Still(PLACES[:1])) as live:
        assert not [e for e in all_events(live) if e.kind == "field"]
    assert any(text.startswith("Of 2 earlier fields the places of 1 are known again: go on where nothing") for text in said)


def test_a_place_that_was_taken_back_is_read_again_another_time(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        all_events(live)
        live.finish(interrupted=True)
        live.session.void_field("frame-000001", "Ada")
    asked = LiveRequest("test:", None, tmp_path / "s", None, None, CHOICE)
    with begin(asked, lambda text: None, Still((PLACES[1], PLACES[0]))) as live:
        assert [e.name for e in all_events(live) if e.kind == "field"] == ["frame-000003"]


def test_a_field_says_how_long_it_took_from_its_picture(tmp_path: Path) -> None:
    with counting(tmp_path / "s", Still(PLACES[:1])) as live:
        assert [e.delay_s for e in all_events(live) if e.kind == "field"] == [None]  # of a recording nobody waits
    camera = Still(PLACES[:1], 40)
    camera.live = True
    with counting(tmp_path / "t", camera) as live:
        delays = [e.delay_s for e in all_events(live) if e.kind == "field"]
    assert len(delays) == 1 and delays[0] is not None and delays[0] > 0


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


def test_a_full_disk_loses_nothing_that_fits_later(
    tmp_path: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_disk_that_stays_full_is_told_at_the_end(
    tmp_path: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_clock_that_jumps_does_not_disturb_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = time.time, []

    def jumping() -> float:
        calls.append(1)
        return real() + (-1) ** len(calls) * 4e8

    monkeypatch.setattr(time, "time", jumping)
    with counting(tmp_path / "s", Still(PLACES[:2])) as live:
        assert sum(e.kind == "field" for e in all_events(live)) == 2


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


# The command line, as a process of its own


def test_sigterm_ends_a_session_cleanly(program: Path, tmp_path: Path) -> None:
    command = [program, "run", "test:?fps=15", "--out", tmp_path / "s", "--json", "--backend", "onnx"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        rest, said = process.communicate(timeout=120)
    assert process.returncode == 130 and first["field"] == "frame-000001"
    assert json.loads(rest.splitlines()[-1])["summary"]["interrupted"] is True
    assert "Stopped: what was read is kept." in said
    with Session.open(tmp_path / "s") as session:
        assert len(list(session.fields())) >= 1
    assert (tmp_path / "s" / "report.html").is_file()


def test_keys_on_a_terminal_pause_undo_and_stop(program: Path, tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(program, [str(program), "run", "test:?fps=15", "--out", str(tmp_path / "s"), "--backend", "onnx"])
    said = ""
    keys = iter([("1 field", b"u"), ("was taken back", b" "), ("paused", b"q")])
    wanted, key = next(keys)
    done, until = False, time.monotonic() + 150
    while time.monotonic() < until and not done:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                said += os.read(terminal, 65536).decode("utf-8", "replace")
            except OSError:
                break
        if wanted and wanted in said:
            os.write(terminal, key)
            wanted, key = next(keys, ("", b""))
    if wanted:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0 and not wanted
    assert "space: pause" in said and "leukocytes counted." in said and "Research use only" in said
    with Session.open(tmp_path / "s") as session:
        assert next(field.voided for field in session.fields()) is True


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "Give a field, a folder of fields or a camera"),
        (["test:", "--camera"], 2, "not both"),
        (["v4l2:97"], 1, "There is no camera at /dev/video97: plug it in"),
        (["nowhere.mp4"], 2, "no such file, folder or camera"),
        (["http://127.0.0.1:9/x"], 1, "cannot be reached"),
        (["test:", "--calibration", "nowhere.json"], 2, "cannot be read"),
    ],
)
def test_a_camera_that_cannot_be_used_is_one_sentence(
    call: Callable[..., Any], tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    if arguments and arguments[0] in ("v4l2:97", "nowhere.mp4"):
        pytest.importorskip("av")
    done = call("run", *arguments, "--out", tmp_path / "s", "--backend", "onnx")
    assert done.code == code and sentence in done.err and "Traceback" not in done.err
    assert not (tmp_path / "s").exists()  # no empty session is left


def test_without_a_camera_the_command_says_what_to_do(call: Callable[..., Any], tmp_path: Path) -> None:
    if list(Path("/dev").glob("video*")) or shutil.which("rpicam-vid"):
        pytest.skip("this machine has a camera")
    done = call("run", "--camera", "--out", tmp_path / "s")
    assert done.code == 1 and done.err.startswith("There is no camera: plug one in, or name one")
    assert not (tmp_path / "s").exists()


def test_a_folder_of_text_files_holds_no_image(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    done = call("run", tmp_path / "notes", "--out", tmp_path / "s")
    assert done.code == 2 and "holds no image" in done.err
    done = call("run", f"test:{tmp_path / 'notes'}", "--out", tmp_path / "s2", "--backend", "onnx")
    assert done.code == 2 and "holds no image" in done.err


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
