"""The power goes, or the disk refuses, at any write of a session: what was acknowledged is there, and nothing is damaged."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nca_edge.errors import StorageError, UsageError
from nca_edge.session import Session
from nca_edge.session.verify import verify
from tests.benchmarks.durability import kills
from tests.runtime.sessions import FACTS, SLIDE, cell, field, first_version
from tests.workstation.crashed_disk import crash
from tests.workstation.power_cuts import cuts, heads, outcome, played, steps
from tests.workstation.recorded_disk import Disk, recorded

STATES = 1050
"""Simulated cuts of the real session; a third in each way of losing what was not synced."""
CONTROLS = 150
"""Of each negative control."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory where there is one: the cuts are simulated, and a real disk would only be slow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def begun(folder: Path) -> Session:
    try:
        return Session.create(folder, FACTS, SLIDE)
    except UsageError:
        return Session.open(folder)


def test_no_power_cut_loses_what_was_acknowledged(place: Path) -> None:
    disk = Disk()
    played(place / "s", disk, 14)
    assert len([event for event in disk.log if event[0] == "write"]) > 100
    assert cuts(place / "s", disk, STATES) == {"ok": STATES}


@pytest.mark.parametrize("control", [Disk(synchronous="NORMAL"), Disk(synchronous="OFF"), Disk(picture_syncs=False)])
def test_the_simulation_notices_where_a_sync_is_left_out(place: Path, control: Disk) -> None:
    played(place / "s", control, 14)
    found = cuts(place / "s", control, CONTROLS)
    assert found["lost"] + found["corrupt"] > CONTROLS / 10, found


def test_after_a_cut_the_session_goes_on(place: Path) -> None:
    disk, draw = Disk(), random.Random(3)
    played(place / "s", disk, 6)
    first = next(place for place, event in enumerate(disk.log) if event[0] == "ack")
    for number in range(30):
        files = crash(disk.log, draw.randint(first + 1, len(disk.log)), ("none", "subset", "torn")[number % 3], draw)
        assert outcome(place / "s", files, []) == "ok"
        with Session.open(place / "s") as session:
            if session.signature is None:
                for step in steps(session, 6):
                    step()
            assert session.fields_done() == {f"{n:03d}.png" for n in range(6)}
        assert verify(place / "s").problems == ()


def test_a_power_cut_while_an_older_session_is_brought_along_leaves_one_or_the_other(place: Path) -> None:
    folder = place / "s"
    with Session.create(folder, FACTS, SLIDE) as session:
        for n in range(4):
            session.commit(field(f"{n}.png", cell(1), cell(2)))
        before = tuple(replace(one, measures={}) for one in session.cells())  # the first version kept none
    first_version(folder)
    disk, draw = Disk(), random.Random(5)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        disk.log += [("open", str(path)), ("write", str(path), 0, path.read_bytes()), ("sync", str(path))]
    disk.log += [("folder", str(folder)), ("folder", str(folder / "cells"))]
    began = len(disk.log)
    with recorded(disk), Session.open(folder):
        pass
    for number in range(60):
        files = crash(disk.log, draw.randint(began, len(disk.log)), ("none", "subset", "torn")[number % 3], draw)
        assert outcome(folder, files, []) == "ok"
        with Session.open(folder, read_only=True) as session:
            assert tuple(session.cells()) == before
        assert verify(folder).problems == ()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_any_one_write_tells_no_lie(place: Path, error: int) -> None:
    """The session is refused its k-th write, for every k; the step that fails says so, and can be done again."""
    k = 0
    while True:
        folder, disk = place / str(k), Disk(fail_at=k, error=error)
        refused = ""
        with recorded(disk):
            try:
                with Session.create(folder, FACTS, SLIDE) as session:
                    for step in steps(session, 3):
                        try:
                            step()
                        except StorageError as said:
                            refused += str(said)
                            step()
                        disk.log.append(("ack", session.head))
            except StorageError as said:
                refused += str(said)
        words = "There is no space left on the disk of" if error == errno.ENOSPC else "could not be read or written"
        assert refused == "" or (words in refused and str(folder) in refused), refused
        assert disk.writes <= k or refused or heads(disk.log), k
        if heads(disk.log):
            with Session.open(folder) as session:
                assert set(heads(disk.log)) <= {row.hash for row in session.audit_log()}
            assert verify(folder).problems == (), k
        else:  # refused at its very beginning: it can be begun again, or is there and can be gone on with
            with begun(folder) as session:
                session.commit(field("a.png", cell(1)))
        shutil.rmtree(folder)
        if disk.writes <= k:
            assert refused == ""
            break
        k += 1
    assert k > 60


def test_a_writer_that_is_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """A short form of tests/benchmarks/durability.py."""
    found = kills(5, tmp_path)
    assert (found["times"], found["lost"], found["unsound"]) == (5, 0, 0)
    assert found["acknowledged"] >= 5
