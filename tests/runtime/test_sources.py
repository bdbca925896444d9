"""Each kind of camera, as a real program, pipe, server or folder; and what is said where there is none."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cameras
import pytest
from cameras import jpeg, stamp_of, stamped
from PIL import Image

from nca_edge.camera import Reader, http, is_live, open_uri
from nca_edge.camera.default import default_uri
from nca_edge.camera.protocol import NoFrame, TornFrame
from nca_edge.classifier import ModelChoice
from nca_edge.errors import CameraError, UsageError
from nca_edge.live import LiveRequest, begin

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def served() -> Iterator[Callable[[Answer], str]]:
    """Serve one answer on the loopback; its URL."""
    servers = []

    def serve(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/stream"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, kind: str, *parts: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.end_headers()
    for part in parts:
        handler.wfile.write(part)
        handler.wfile.flush()


MULTIPART = "multipart/x-mixed-replace; boundary=frame"


@pytest.mark.parametrize(
    ("source", "live"),
    [
        ("camera", True), ("v4l2:0", True), ("rpicam:0", True), ("http://host/x", True), ("test:", True), ("watch:x", True),
        ("pan.mp4", True), ("fields", False), ("field.jpg", False), ("C:fields", False),
    ],
)  # fmt: skip
def test_a_name_says_whether_it_is_a_camera(source: str, live: bool) -> None:
    assert is_live(source) is live


def test_a_folder_that_is_called_like_a_camera_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera").mkdir()
    assert not is_live("camera")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("fields.tar", "no such file, folder or camera"),
        ("rpicam:front", "is no camera number"),
        ("rpicam:0?iso=3", "no option 'iso'"),
        ("rpicam:0?width=big", "no whole number"),
        ("http://", "names no host"),
        ("http://host:port/", "write it like"),
        ("test:?faults=fire", "no fault 'fire'"),
        ("test:?size=10x10", "64 to 4096"),
        ("test:?fps=fast", "write it like"),
    ],
)
def test_a_name_that_means_nothing_is_one_sentence(source: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        open_uri(source)


def test_without_any_camera_it_is_said_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CameraError, match="There is no camera: plug one in"):
        default_uri(tmp_path)


def test_the_default_camera_is_named_so_that_it_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "v4l" / "by-id").mkdir(parents=True)
    link = tmp_path / "v4l" / "by-id" / "usb-Microscope-video-index0"
    link.touch()
    assert default_uri(tmp_path) == f"v4l2:{link}"


def test_a_pi_has_its_own_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cameras.stub_rpicam(tmp_path, tmp_path / "state")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert default_uri(tmp_path / "dev") == "rpicam:0"


def test_a_device_is_missing_busy_forbidden_or_strange() -> None:
    v4l2 = pytest.importorskip("nca_edge.camera.v4l2")
    with pytest.raises(CameraError, match="no camera at /dev/video97: plug it in"):
        v4l2.reachable("/dev/video97")
    assert CameraError.exit_code == 1
    assert "used by another program" in v4l2.device_sentence("/dev/video0", OSError(errno.EBUSY, "busy"))
    assert "no format that can be decoded" in v4l2.device_sentence("/dev/video0", OSError(errno.EINVAL, "invalid"))
    assert "plug it in again" in v4l2.device_sentence("/dev/video0", OSError(errno.ENODEV, "no device"))


def test_a_forbidden_device_names_the_group(tmp_path: Path) -> None:
    """A real refusal: a file of group video that another user may not open."""
    v4l2 = pytest.importorskip("nca_edge.camera.v4l2")
    grp = pytest.importorskip("grp")
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    group = grp.getgrnam("video")
    device = tmp_path / "video0"
    device.touch()
    os.chown(device, 0, group.gr_gid)
    device.chmod(0o660)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            v4l2.reachable(str(device))
        except CameraError as error:
            said = str(error)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)
    assert said == f"You are not allowed to read {device}: run sudo usermod -aG video $USER, then log in again."


def test_a_file_that_is_no_device_gives_no_pictures(tmp_path: Path) -> None:
    v4l2 = pytest.importorskip("nca_edge.camera.v4l2")
    (tmp_path / "video0").touch()
    with pytest.raises(CameraError, match="gives no pictures"):
        v4l2.reachable(str(tmp_path / "video0"))


def test_the_pi_program_is_metered_once_and_then_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("on")
    stub = cameras.stub_rpicam(tmp_path / "bin", tmp_path / "state")
    told = '[{"ExposureTime": 1}, {"ExposureTime": 8123, "AnalogueGain": 1.5, "ColourGains": [1.25, 2.0]}]'
    text = stub.read_text()
    stub.write_text(
        text.replace(
            "import runpy, sys\n", f"import runpy, sys\nif '--metadata' in sys.argv:\n    print({told!r})\n    sys.exit()\n"
        )
    )
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


def test_a_stream_and_a_snapshot_are_read(served: Callable[[Answer], str]) -> None:
    def stream(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/stream":
            for n in range(200):
                data = b"--frame\r\n\r\n" + jpeg(stamped(n + 1, n)) + b"\r\n"
                send(handler, MULTIPART, data) if n == 0 else handler.wfile.write(data)
                time.sleep(0.02)
        else:
            send(handler, "image/jpeg", jpeg(stamped(cameras.now_ms(), 7)))

    url = served(stream)
    for address, kind in ((url, "stream"), (url.replace("/stream", "/snapshot"), "snapshot")):
        source = open_uri(address)
        assert source.open()["kind"] == kind
        first, second = stamp_of(source.read(5.0)), stamp_of(source.read(5.0))
        assert second > first > 0
        source.close()


def test_an_answer_that_is_json_or_missing_is_shown(served: Callable[[Answer], str]) -> None:
    url = served(lambda h: send(h, "application/json", b'{"detail": "camera is off"}'))
    with pytest.raises(
        CameraError, match=r'answered with application/json, which is no picture \(\{"detail": "camera is off"\}\)'
    ):
        open_uri(url).open()
    url = served(lambda h: h.send_error(404))
    with pytest.raises(CameraError, match="answered 404"):
        open_uri(url).open()
    with pytest.raises(CameraError, match="cannot be reached"):
        open_uri(f"http://127.0.0.1:{free_port()}/").open()


def test_a_stream_that_turns_into_json_is_lost_not_shown(served: Callable[[Answer], str]) -> None:
    url = served(lambda h: send(h, MULTIPART, jpeg(stamped(1)), b'\r\n{"error": "capture failed"}', b" " * 100))
    source = open_uri(url)
    source.open()
    assert stamp_of(source.read(2.0)) == 1
    with pytest.raises(CameraError, match=r"JSON instead of pictures|ended the stream"):
        for _ in range(3):
            source.read(1.0)
    source.close()


def test_a_stream_that_stops_in_the_middle_of_a_picture_gives_only_whole_ones(
    served: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "READ_S", 0.3)
    half = jpeg(stamped(2))

    def stops(handler: BaseHTTPRequestHandler) -> None:
        send(handler, MULTIPART, jpeg(stamped(1)), half[: len(half) // 2])
        time.sleep(3)

    source = open_uri(served(stops))
    source.open()
    assert stamp_of(source.read(2.0)) == 1
    with pytest.raises(CameraError, match="stopped in the middle of a picture"):
        source.read(0.2)
    source.close()


@pytest.mark.parametrize(
    ("after", "sentence"),
    [(b'\r\n{"error": "capture failed"}' + b" " * 100, r"JSON instead of pictures|ended the stream"),
     (jpeg(stamped(2))[:4000], "stopped in the middle of a picture")],
)  # fmt: skip
def test_a_count_survives_a_stream_that_goes_wrong_and_says_so(
    served: Callable[[Answer], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bytes, sentence: str
) -> None:
    monkeypatch.setattr(http, "READ_S", 0.3)

    def goes_wrong(handler: BaseHTTPRequestHandler) -> None:
        send(handler, MULTIPART, jpeg(stamped(1)), after)
        time.sleep(1.0)

    said: list[str] = []
    request = LiveRequest(served(goes_wrong), tmp_path / "s", None, None, None, ModelChoice(None, "onnx", "fp32", 1))
    with begin(request, said.append) as live:
        watching, until = live.events(), time.monotonic() + 60
        live.start()
        for event in watching:
            said.append(event.text)
            if re.search(sentence, event.text) or time.monotonic() > until:
                live.stop()
        outcome = live.finish()
    assert any(re.search(sentence, text) for text in said), said
    assert outcome.table.leukocytes == 0 and outcome.report.is_file() and not live.failures


def test_the_command_shows_what_a_camera_answered_and_begins_no_session(
    served: Callable[[Answer], str], call: Callable[..., Any], tmp_path: Path
) -> None:
    url = served(lambda h: send(h, "application/json", b'{"detail": "camera is off"}'))
    done = call("run", url, "--out", tmp_path / "s")
    assert (done.code, (tmp_path / "s").exists()) == (1, False)
    assert 'application/json, which is no picture ({"detail": "camera is off"})' in done.err


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


def test_a_snapshot_that_breaks_off_is_torn(served: Callable[[Answer], str]) -> None:
    whole, asked = jpeg(stamped(4)), []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(1)
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.send_header("Content-Length", str(len(whole)))
        handler.end_headers()
        handler.wfile.write(whole if len(asked) == 1 else whole[:900])
        handler.close_connection = True

    source = open_uri(served(answer))
    source.open()
    with pytest.raises(TornFrame):
        source.read(1.0)
    source.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_watched_folder_gives_each_new_image_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nca_edge.camera import watch

    monkeypatch.setattr(watch, "QUIET_S", 0.05)
    Image.fromarray(stamped(1)).save(tmp_path / "old.png")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_uri(f"watch:{tmp_path}")
    source.open()
    with pytest.raises(NoFrame):
        source.read(0.2)
    data = tmp_path.parent / "whole.png"
    Image.fromarray(stamped(2)).save(data)
    (tmp_path / "new.png").write_bytes(data.read_bytes()[:2000])
    with pytest.raises(NoFrame):
        source.read(0.3)  # half of it: not yet
    shutil.copy(data, tmp_path / "new.png")
    assert stamp_of(source.read(2.0)) == 2
    with pytest.raises(NoFrame):
        source.read(0.2)
    source.close()


def test_a_watched_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="no such folder; make it"):
        open_uri(f"watch:{tmp_path / 'nowhere'}").open()
