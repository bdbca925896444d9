"""The page's server: one at a time, ended, killed, cut off, and asked for wrongly."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the web extra")
pytest.importorskip("uvicorn", reason="needs the web extra")

from done import Call
from pages import WAIT_S, copy_of, queued, served, start

from nca_edge.samples import sample_fields

pytestmark = pytest.mark.usefixtures("own_state")


def test_a_second_server_is_refused_with_the_first_ones_process(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder) as page:
        second = start("--session", folder)
        out, err = second.communicate(timeout=WAIT_S)
        assert (second.returncode, out) == (1, "") and f"process {page.process.pid}" in err and err.count("\n") == 1


def test_a_read_only_stick_can_be_looked_at_and_not_changed(kept: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=16m")
    folder = disk / "s"
    subprocess.run(["cp", "-r", kept, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with served("--session", folder) as page:
        assert "can be looked at and not changed" in page.ask("GET", "/").text
        assert all(page.ask("GET", path).status == 200 for path in ("/cells", "/queue", "/sign", "/report", "/file/cells.csv"))
        page.do("operator", name="A")
        refused = page.do("reclassify", cell=queued(page), label="monocyte")
        assert refused.status == 409 and "reading" in refused.json["error"]


def test_a_browser_that_goes_away_in_the_middle_harms_nothing(kept: Path) -> None:
    with served("--session", copy_of(kept), "--operator", "A") as page:
        host, port = page.place.split(":")
        for path in ("/events", "/report", "/cells"):
            gone = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
            gone.request("GET", path, headers={"Cookie": page.cookie})
            gone.getresponse().fp.read(1)
            gone.close()
        half = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
        half.putrequest("POST", "/do/sign")
        for name, value in (("Cookie", page.cookie), ("Origin", f"http://{page.place}"), ("X-CSRF-Token", page.csrf)):
            half.putheader(name, value)
        half.putheader("Content-Length", "500")
        half.endheaders(b'{"name": "A')
        half.close()
        assert page.do("reclassify", cell=queued(page), label="monocyte").status == 200


def test_the_server_ends_while_a_page_is_still_listening(kept: Path) -> None:
    with served("--session", copy_of(kept)) as page:
        host, port = page.place.split(":")
        listening = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
        listening.request("GET", "/events", headers={"Cookie": page.cookie})
        assert listening.getresponse().readline() == b"retry: 1000\n"
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(timeout=WAIT_S) == 130
        listening.close()


def test_a_killed_server_comes_back_under_the_same_address_with_everything(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder, "--operator", "Amina") as page:
        first = queued(page)
        assert page.do("reclassify", cell=first, label="basophil").status == 200
        os.kill(page.process.pid, signal.SIGKILL)
        page.process.wait()
    with served("--session", folder) as again:
        assert again.url.partition("token=")[2] == page.url.partition("token=")[2]
        assert queued(again) != first and 'aria-pressed="true"><kbd>6</kbd>' in again.ask("GET", f"/cell/{first}").text


def test_a_new_token_shuts_out_who_had_the_old_one(kept: Path) -> None:
    with served("--session", copy_of(kept)) as first:
        pass
    with served("--session", copy_of(kept), "--new-token") as second:
        cookie = first.cookie.replace(first.place.rpartition(":")[2], second.place.rpartition(":")[2])
        assert second.cookie != cookie and second.ask("GET", "/", cookie=cookie).status == 403


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give a camera"),
        (["--session", "nowhere"], "is not a session"),
        (["--session", "s", "--host", "0.0.0.0"], "would listen everywhere"),
        (["--session", "s", "--host", "here"], "give an address of this machine"),
        (["--session", "s", "--host", "192.0.2.1"], "cannot be served"),
        (["--session", "s", "--cert", "c.pem"], "belong together"),
        (["--session", "s", "--cert", "c.pem", "--key", "c.pem"], "--cert c.pem: no such file; give a PEM file."),
        (["--session", "s", "--cert", "text.txt", "--key", "text.txt"], "cannot be used together: give PEM files."),
        (["--session", "s", "--language", "xx"], "known are en, fr, es, pt, sw"),
        (["test:", "--camera"], "not both"),
        (["test:", "--session", "s", "--out", "t"], "give one of them"),
        (["--session", "s", "--operator", "x" * 201], "at most 200"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str], sentence: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no key")
    done = call("serve", "--port", "0", *arguments)
    assert (done.code, done.out) == (2, "") and sentence in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_a_port_in_use_is_one_sentence(kept: Path, call: Call) -> None:
    folder = copy_of(kept)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = call("serve", "--session", folder, "--port", other.getsockname()[1])
    assert (done.code, done.out) == (2, "") and "give another --port or --host." in done.err and done.err.count("\n") == 1


def test_a_folder_that_cannot_be_read_is_told_before_the_page_opens(call: Call, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a")
    done = call("serve", tmp_path, "--out", tmp_path / "s")
    assert (done.code, "holds no image" in done.err, (tmp_path / "s").exists()) == (2, True, False)
    done = call("serve", sample_fields(), "--calibration", "x.json", "--out", tmp_path / "s")
    assert (done.code, "--calibration is for a camera" in done.err) == (2, True)
