"""Sessions in awkward places: in use, read-only, full, killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from done import Done
from sessions import FACTS, SLIDE, cell, counted, field, fill, signed

import nca_edge
from nca_edge.errors import StorageError
from nca_edge.session import Session, State, disk
from nca_edge.session.verify import verify

Call = Callable[..., Done]

HOLD = """
import sys
from pathlib import Path
from nca_edge.session import Session
session = Session.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that has the session open."""
    env = {**os.environ, "PYTHONPATH": str(Path(nca_edge.__path__[0]).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    process.wait()


def test_a_second_process_is_refused_with_the_first_one_s_id_and_may_read(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1)):
        pass
    first = holder(tmp_path)
    try:
        with pytest.raises(StorageError) as caught:
            Session.open(tmp_path)
        assert str(caught.value) == (
            f"The session {tmp_path} is in use by process {first.pid}: end that one first, or give another folder."
        )
        with Session.open(tmp_path, read_only=True) as session:
            assert len(list(session.cells())) == 1
            with pytest.raises(StorageError, match="was opened for reading: open it for writing to change it"):
                session.reclassify("000001-001", "blast", "Ada")
        assert verify(tmp_path).problems == ()
    finally:
        end(first)
    with Session.open(tmp_path):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1)):
        pass
    first = holder(tmp_path)
    first.send_signal(signal.SIGKILL)
    end(first)
    assert (tmp_path / "session.lock").exists()
    with Session.open(tmp_path) as session:
        session.accept(["000001-001"], "Ada")
    assert not (tmp_path / "session.lock").exists()


def test_many_threads_that_open_at_once_let_one_in_at_a_time(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1)):
        pass
    inside, most, refused = [0], [0], [0]

    def go() -> None:
        for _ in range(30):
            try:
                with Session.open(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except StorageError:
                refused[0] += 1

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_threads_of_one_session_take_turns(tmp_path: Path) -> None:
    with Session.create(tmp_path, FACTS) as session:
        fill(session, 20)
        cells = [row.id for row in session.cells()]
        failures: list[BaseException] = []

        def commit() -> None:
            try:
                fill(session, 20, "monocyte")
            except BaseException as error:
                failures.append(error)

        def review() -> None:
            try:
                for name in cells:
                    session.accept([name], "Ada")
                    list(session.verdicts())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for work in (commit, review)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert (len(list(session.cells())), len(session.unreviewed())) == (40, 20)
    assert verify(tmp_path).problems == ()


def test_a_read_only_stick_can_be_read_and_reported(tmp_path: Path, small_disk: Callable[[str], Path], call: Call) -> None:
    stick = small_disk("size=40m")
    process_copy = tmp_path / "unclean"
    with Session.create(stick / "s", FACTS, SLIDE) as session:
        session.commit(field("a.png", cell(1), cell(2)))
        shutil.copytree(stick / "s", process_copy)  # as a power cut leaves it: rows in the log beside the database
    assert (process_copy / "session.db-wal").stat().st_size > 0
    shutil.copytree(process_copy, stick / "unclean")
    subprocess.run(["mount", "-o", "remount,ro", str(stick)], check=True)
    try:
        for name in ("s", "unclean"):
            with Session.open(stick / name, read_only=True) as session:
                assert (len(list(session.cells())), session.state) == (2, State.COUNTING)
            assert call("session", "verify", stick / name).code == 0
            assert call("session", "state", stick / name).code == 0
            with pytest.raises(StorageError, match="is read-only: choose a folder on another disk"):
                Session.open(stick / name)
            done = call("report", stick / name)
            assert (done.code, "is read-only" in done.err) == (1, True)
            assert call("report", stick / name, "--out", tmp_path / f"out-{name}").code == 0
            page = (tmp_path / f"out-{name}/report.html").read_text("utf-8")
            assert re.search("2 leukocytes counted", page) and page.count("data:image/jpeg") == 4
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(stick)], check=True)


def test_a_folder_without_the_right_to_write_can_be_read(tmp_path: Path) -> None:
    with counted(tmp_path / "s", cell(1)):
        pass
    before = sorted(path.name for path in (tmp_path / "s").iterdir())
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom nca_edge.session import Session\nos.getuid() or os.setuid(65534)\n"
        "with Session.open(Path(sys.argv[1]), read_only=True) as s: print(len(list(s.cells())))\n"
        "try: Session.open(Path(sys.argv[1]))\nexcept Exception as error: print(error)"
    )
    # Made readable for everybody, because pytest keeps its folders to their owner, one more for each of its workers.
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(0o755)
        if path.name.startswith("pytest-of-"):
            break
    (tmp_path / "s").chmod(0o555)
    env = {**os.environ, "PYTHONPATH": str(Path(nca_edge.__path__[0]).parent)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True, env=env)
    (tmp_path / "s").chmod(0o755)
    assert done.stdout.splitlines() == [
        "1",
        f"You are not allowed to write in {tmp_path / 's'}: choose another folder or ask for the right to write there.",
    ], done.stderr
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == before


def test_a_disk_that_gets_full_is_left_with_room_for_review_and_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session.create(tmp_path, FACTS) as session:
        fill(session, 3)
        monkeypatch.setattr(disk, "free_bytes", lambda folder: disk.RESERVE_BYTES + 100)
        with pytest.raises(StorageError, match=r"There is no space left .* free some space, then resume with --session"):
            fill(session, 1, "monocyte")
        assert not list(tmp_path.rglob("*.part")) and len(list((tmp_path / "cells").iterdir())) == 9
        session.begin_review("Ada")
        session.accept([row.id for row in session.unreviewed()], "Ada")
        session.sign("Ada")
    assert verify(tmp_path).problems == ()


def test_signing_a_session_in_use_is_refused_with_its_process(tmp_path: Path, call: Call) -> None:
    with signed(tmp_path) as session:
        session.amend("Ada", "why")
        done = call("session", "sign", tmp_path, "--name", "Bo")
        assert (done.code, f"is in use by process {os.getpid()}" in done.err) == (1, True)
