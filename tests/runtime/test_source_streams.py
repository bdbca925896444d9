"""Cameras that are servers: streams and snapshots, whole, torn, or of something else."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cameras
import pytest
from cameras import jpeg, stamp_of, stamped

from nca_edge.camera import http, open_uri
from nca_edge.camera.protocol import TornFrame
from nca_edge.classifier import ModelChoice
from nca_edge.errors import CameraError
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


def test_an_answer_that_is_refused_leaves_no_connection_open(served: Callable[[Answer], str]) -> None:
    for answer in (lambda h: send(h, "application/json", b'{"detail": "off"}'), lambda h: h.send_error(404)):
        source = open_uri(served(answer))
        with pytest.raises(CameraError):
            source.open()
        assert source._answer is source._connection is source._socket is None  # type: ignore[attr-defined]
