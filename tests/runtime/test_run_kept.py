"""What is read is kept, whatever happens in between: a full disk, a stop, a second run, a source that changes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from done import Call
from fieldruns import Heard, Write, lines, request

from nca_edge import runner
from nca_edge.bundle import load_bundle, shipped_models
from nca_edge.classifier import ModelChoice
from nca_edge.errors import StorageError, UsageError
from nca_edge.records import (
    Box,
    CellReading,
    ChannelRelevance,
    Detection,
    Explanation,
    Frame,
    FrameError,
    Prediction,
    Reading,
    Scale,
)
from nca_edge.session import Session, State


def test_a_disk_that_fills_up(small_disk: Callable[[str], Path], made_up: MadeUp, call: Call) -> None:
    """Some fields fit; what was committed stays, and after making room the run goes on."""
    disk = small_disk("size=16250k")  # what a commit leaves free, and a little more
    (disk / "filler").write_bytes(b"x" * 250_000)
    source = made_up.source(40)
    done = call("run", source, "--out", disk / "s", "--threads", "1", "--backend", "onnx")
    assert done.code == 1 and done.out == ""
    assert (
        "MB are free on the disk" in done.err
        and "no space left" in done.err.lower()
        and "resume with --session" in done.err
        and "Traceback" not in done.err
    )
    with sqlite3.connect(disk / "s" / "session.db") as db:
        (kept,) = db.execute("SELECT count(*) FROM field").fetchone()
    db.close()
    assert 0 < kept < 40
    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
    assert call("report", disk / "s").code == 0
    done = call("run", source, "--session", disk / "s")
    assert done.code == 0
    assert [field["field"] for field in lines(disk / "s" / "fields.jsonl")] == [f"{n:02}.png" for n in range(40)]


class MadeUp:
    """Fields whose reading is made up: one lymphocyte each, without a look at the pixels."""

    def __init__(self, folder: Path, dark: Write) -> None:
        self.folder, self.dark = folder, dark
        self.before_field: Callable[[str], None] = lambda name: None
        self.classes = load_bundle(shipped_models() / "edge").manifest.classes

    def source(self, n: int) -> Path:
        for number in range(n):
            self.dark(self.folder / f"{number:02}.png")
        return self.folder

    def observe(self, frames: Iterable[Frame | FrameError], *_: object) -> Iterator[Reading]:
        for frame in frames:
            self.before_field(frame.name)
            yield Reading(frame.name, True, (), False, 1.0, Scale(0.1, "red_cells"), (self.cell(),))

    def cell(self) -> CellReading:
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        top = tuple(ChannelRelevance(c, 1.0, (1, 1), np.eye(8, dtype=np.float32)) for c in range(10))
        why = Explanation("lymphocyte", 1.0, top, 0.0, 0.0, np.zeros((32, 32), np.uint8))
        said = Prediction("lymphocyte", 1.0, False, {name: float(name == "lymphocyte") for name in self.classes})
        return CellReading(1, Detection(Box(1, 2, 30, 30), False, 1.0), said, why, True, noise)


@pytest.fixture
def made_up(tmp_path: Path, dark: Write, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    fake = MadeUp(tmp_path / "made up", dark)
    monkeypatch.setattr(runner, "observe", fake.observe)
    return fake


def test_the_target(made_up: MadeUp, tmp_path: Path) -> None:
    heard = Heard()
    outcome = runner.run(request(made_up.source(5), tmp_path / "s", target=2), heard.show, heard.append)
    assert (outcome.fields, outcome.table.leukocytes, outcome.interrupted) == (2, 2, False)
    assert heard[-1] == "The target of 2 leukocytes is reached."
    heard = Heard()
    outcome = runner.run(request(made_up.folder, tmp_path / "s", resume=True, target=2), heard.show, heard.append)
    assert (outcome.fields, heard.shown) == (2, [])
    assert heard[-1] == "The session has 2 leukocytes already, as many as --target 2 asks for: nothing is read."
    outcome = runner.run(request(made_up.folder, tmp_path / "s", resume=True, target=3), heard.show, heard.append)
    assert (outcome.fields, heard.shown) == (3, [("02.png", 1, 3)])


def test_a_source_that_changes_while_it_is_read(made_up: MadeUp, tmp_path: Path) -> None:
    """What appears is left to the next call, what vanishes is a failure of its own."""
    source = made_up.source(3)

    def change(name: str) -> None:
        if name == "00.png":
            made_up.dark(source / "00b.png")
            made_up.dark(source / "09.png")

    made_up.before_field = change
    heard = Heard()
    outcome = runner.run(request(source, tmp_path / "s"), heard.show, heard.append)
    assert (outcome.fields, [name for name, _, _ in heard.shown]) == (3, ["00.png", "01.png", "02.png"])
    heard = Heard()
    runner.run(request(source, tmp_path / "s", resume=True), heard.show, heard.append)
    assert heard.shown == [("00b.png", 1, 2), ("09.png", 2, 2)]


def test_a_field_that_vanishes(dark: Write, tmp_path: Path) -> None:
    source = dark(tmp_path / "in" / "a.png").parent
    dark(source / "b.png")
    heard = Heard()

    def show(reading: Reading, done: int, total: int) -> None:
        (source / "b.png").unlink(missing_ok=True)

    outcome = runner.run(request(source, tmp_path / "s"), show, heard.append)
    assert (outcome.fields, outcome.failed) == (2, 1)
    assert heard[-1] == "b.png: no such file; check the path."


def test_stopped_during_a_commit(made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field is there as a whole or not at all, and the session can be written again."""
    from nca_edge.session import store

    insert, calls = store.insert, []

    def stop(*arguments: Any) -> None:
        calls.append(arguments[1])
        if calls == ["field", "cell", "field", "cell"]:
            raise KeyboardInterrupt
        insert(*arguments)

    monkeypatch.setattr(store, "insert", stop)
    heard = Heard()
    outcome = runner.run(request(made_up.source(3), tmp_path / "s"), heard.show, heard.append)
    assert (outcome.interrupted, outcome.fields, outcome.table.leukocytes) == (True, 1, 1)
    outcome = runner.run(request(made_up.folder, tmp_path / "s", resume=True), heard.show, heard.append)
    assert (outcome.interrupted, outcome.fields, outcome.table.leukocytes) == (False, 3, 3)


def test_stopped_while_the_model_is_loaded(dark: Write, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(choice: ModelChoice) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "load", stop)
    done = call("run", dark(tmp_path / "a.png"), "--out", tmp_path / "s")
    assert done == (130, "", "Stopped.\n")
    assert not (tmp_path / "s").exists()


def test_stopped_while_the_report_is_written(dark: Write, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "write_report", stop)
    done = call("run", dark(tmp_path / "a.png"), "--out", tmp_path / "s", "--backend", "onnx")
    assert done.code == 130
    assert done.err.splitlines()[-2:] == [
        f"The report was not written; write it with: nca-edge report {tmp_path / 's'}",
        "Stopped.",
    ]
    assert call("report", tmp_path / "s").code == 0


def test_two_runs_on_one_session(made_up: MadeUp, tmp_path: Path) -> None:
    """The second one is refused with the first one's process id; the first one goes on."""
    source = made_up.source(6)
    runner.run(request(source / "00.png", tmp_path / "s"), Heard().show, Heard().append)
    refused: list[str] = []

    def meanwhile(name: str) -> None:
        with pytest.raises(StorageError) as caught:
            runner.run(request(source, tmp_path / "s", resume=True), Heard().show, Heard().append)
        refused.append(str(caught.value))

    made_up.before_field = meanwhile
    outcome = runner.run(request(source, tmp_path / "s", resume=True), Heard().show, Heard().append)
    assert outcome.table.leukocytes == 6
    said = f"The session {tmp_path / 's'} is in use by process {os.getpid()}: end that one first, or give another folder."
    assert refused == [said] * 5
    assert [field["field"] for field in lines(tmp_path / "s" / "fields.jsonl")] == [f"{n:02}.png" for n in range(6)]


def test_a_signed_session_takes_no_more_fields_and_can_still_be_reported(made_up: MadeUp, tmp_path: Path) -> None:
    source = made_up.source(2)
    runner.run(request(source, tmp_path / "s", target=1), Heard().show, Heard().append)
    runner.run(request(source, tmp_path / "s", resume=True, target=2), Heard().show, Heard().append)
    with Session.open(tmp_path / "s") as session:
        assert (session.state, session.slide.target) == (State.REVIEW, 2)
        session.accept([cell.id for cell in session.unreviewed()], "Ada")
        session.sign("Ada")
    assert runner.run(request(source, tmp_path / "s", resume=True), Heard().show, Heard().append).table.leukocytes == 2
    with pytest.raises(UsageError, match="cannot be given more fields, because it is signed"):
        runner.run(request(made_up.source(3), tmp_path / "s", resume=True), Heard().show, Heard().append)
