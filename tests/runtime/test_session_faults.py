"""A full disk, a kill, another program: what was acknowledged is there, and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import readings
from readings import FACTS, cell, image, planned, reading, rejected, session_in, work

import nca_edge
from nca_edge.errors import StorageError
from nca_edge.session import Session
from nca_edge.session import database as database_module
from nca_edge.session import store as store_module


def noted(events: list[str], name: str, real: Callable[..., object]) -> Callable[..., object]:
    """``real``, which notes that it was called."""

    def call(*arguments: object) -> object:
        events.append(name)
        return real(*arguments)

    return call


def test_pictures_are_durable_before_the_row_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    with session_in(tmp_path) as session:
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, noted(events, name, getattr(os, name)))
        session._db.set_trace_callback(lambda sql: events.append(sql.split("(")[0].strip()))
        session.commit(reading("a.png", cell()))
        session._db.set_trace_callback(None)
    written = [event for event in events if not event.startswith("SELECT")]
    assert written == ["BEGIN IMMEDIATE"] + ["fsync"] * 3 + ["replace"] * 3 + ["fsync"] + [
        "INSERT INTO field", "INSERT INTO cell", "UPDATE session SET state = 'COUNTING'", "INSERT INTO audit VALUES", "COMMIT",
    ]  # fmt: skip


def test_a_failure_between_pictures_and_rows_leaves_no_row_and_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise sqlite3.OperationalError("database or disk is full")

    with session_in(tmp_path) as session:
        session.commit(rejected())
        with monkeypatch.context() as patch:
            patch.setattr(store_module, "insert", fail)
            with pytest.raises(StorageError, match=r"There is no space left on the disk of .*: free some space"):
                session.commit(reading("a.png", cell(1, shade=10), cell(2, shade=11)))
        assert session.fields_done() == {"dark.png"}
        assert list(session.cells()) == []
        assert (session.folder / "cells/000002-001.crop.png").exists()
        session.commit(reading("b.png", cell(1, shade=90)))
        (row,) = session.cells()
        assert (row.field, row.crop, image(session, row.crop)[0, 0, 0]) == ("b.png", "cells/000002-001.crop.png", 90)


def test_a_second_cell_that_fails_takes_the_field_with_it(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        with pytest.raises(StorageError):
            session.commit(reading("a.png", cell(1), cell(1)))
        assert session.fields_done() == set()
        session.commit(reading("a.png", cell(1), cell(2)))
        assert len(list(session.cells())) == 2


def test_ctrl_c_in_a_commit_leaves_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    with session_in(tmp_path) as session:
        with monkeypatch.context() as patch:
            patch.setattr(store_module, "write_pictures", interrupt)
            with pytest.raises(KeyboardInterrupt):
                session.commit(reading("a.png", cell()))
        assert session.fields_done() == set()
        session.commit(reading("a.png", cell()))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_every_step_says_so_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call)
    for k in range(7 if call == "fsync" else 6):
        left = [k]

        def failing(*arguments: Any, left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        with Session.create(tmp_path / f"{k}", FACTS) as session:
            session.commit(reading("before.png", cell()))
            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing)
                with pytest.raises(StorageError, match="There is no space left"):
                    session.commit(reading("a.png", cell(1), cell(2)))
            assert session.fields_done() == {"before.png"}
            assert not list(session.folder.rglob("*.part"))
            session.commit(reading("a.png", cell(1), cell(2)))
            assert session.fields_done() == {"before.png", "a.png"}


def test_a_database_that_cannot_grow_says_so_and_loses_nothing(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session.commit(reading("before.png", cell()))
        session._db.execute(f"PRAGMA max_page_count = {session._db.execute('PRAGMA page_count').fetchone()[0]}")
        with pytest.raises(StorageError, match="There is no space left"):
            session.commit(reading("a.png", *(cell(number) for number in range(1, 60))))
        assert session.fields_done() == {"before.png"}
        session._db.execute("PRAGMA max_page_count = 100000")
        session.commit(reading("a.png", cell()))
    with Session.open(tmp_path / "s") as session:
        assert session.fields_done() == {"before.png", "a.png"}
        assert session._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EROFS, "x"), "The disk of {} is read-only: choose a folder on another disk or make this one writable."),
        (OSError(errno.EACCES, "x"), "You are not allowed to write in {}: choose another folder or ask for the right"),
        (OSError(errno.EIO, "Input/output error"), "could not be read or written (Input/output error)"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "You are not allowed to write in {}"),
        (sqlite3.OperationalError("database is locked"), "Another program is writing to the session {}"),
        (sqlite3.DatabaseError("database disk image is malformed"), "The session {} is damaged"),
    ],
)
def test_faults_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    with session_in(tmp_path) as session:
        monkeypatch.setattr(store_module, "write_pictures", fail)
        with pytest.raises(StorageError) as caught:
            session.commit(reading("a.png", cell()))
    assert sentence.format(tmp_path / "s") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_program_at_the_database_is_waited_for_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_S", 0.05)
    with session_in(tmp_path) as session:
        other = sqlite3.connect(tmp_path / "s/session.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="Another program is writing"):
            session.commit(reading("a.png", cell(shade=10)))
        assert not list((tmp_path / "s/cells").iterdir())
        other.close()
        session.commit(reading("a.png", cell(shade=10)))


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with session_in(tmp_path):
        pass
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['work'](sys.argv[2])"
    env = {**os.environ, "PYTHONPATH": str(Path(nca_edge.__path__[0]).parent)}
    said: set[str] = set()
    for stop_after in (1, 5, 8):
        writer = subprocess.Popen(
            [sys.executable, "-c", code, readings.__file__, str(folder)], stdout=subprocess.PIPE, text=True, env=env
        )
        assert writer.stdout is not None
        said.update(writer.stdout.readline().strip() for _ in range(stop_after))
        writer.send_signal(signal.SIGKILL)
        said.update(line.strip() for line in writer.stdout if line.endswith("\n"))
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        with Session.open(folder) as session:
            assert said <= session.fields_done()
            assert session._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            for row in session.cells():
                assert image(session, row.crop)[0, 0, 0] == int(row.field[:3])
                assert image(session, row.mask).shape == (64, 64)
                assert image(session, row.overlay).shape == (64, 64, 3)
    work(str(folder))
    with Session.open(folder) as session:
        session.export()
    with Session.create(tmp_path / "whole", FACTS) as whole:
        for plan in planned():
            whole.commit(plan)
        whole.export()
    for name in ("cells.jsonl", "fields.jsonl", "cells.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
