"""`nca-edge run` at a camera: signals, keys, and what is said where there is none."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nca_edge.session import Session


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
