"""The audit log: no row of it can be changed, dropped or moved without ``session verify`` saying so."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from done import Done
from sessions import FACTS, SLIDE, cell, counted, fill, first_version, signed

from nca_edge.errors import StorageError, UsageError
from nca_edge.report import write_report
from nca_edge.session import Session, SlideFacts, audit, rows
from nca_edge.session.verify import verify


@pytest.fixture(scope="module")
def long_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session whose log has 500 rows: 40 fields, then corrections, undos and signatures."""
    folder = tmp_path_factory.mktemp("audit") / "s"
    draw = random.Random(7)
    with Session.create(folder, FACTS, SLIDE) as session:
        fill(session, 40)
        cells = [row.id for row in session.cells()]
        session.begin_review("Ada")
        session.accept(cells, "Ada")
        session.sign("Ada")
        session.amend("Bo", "a second look")
        while len(session.audit_log()) < 500:
            if draw.random() < 0.2:
                session.undo("Bo")
            session.reclassify(draw.choice(cells), draw.choice(session.labels), draw.choice(["Ada", "Bo"]))
        assert len(session.audit_log()) == 500
    return folder


@pytest.fixture
def opened(long_session: Path, tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A copy of it that somebody got at with a database editor."""
    folder = tmp_path / "copy"
    shutil.copytree(long_session, folder)
    with closing(sqlite3.connect(folder / "session.db", isolation_level=None)) as db:
        db.execute("DROP TRIGGER audit_keeps")
        db.execute("DROP TRIGGER audit_grows")
        yield folder, db


def test_a_sound_session_is_said_to_be_sound(long_session: Path) -> None:
    found = verify(long_session)
    assert (found.problems, found.rows, found.fields, found.cells) == ((), 500, 40, 40)


@pytest.fixture(scope="module")
def chain(long_session: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(long_session / "session.db")) as db:
        return audit.raw_rows(db)


def test_every_row_that_was_edited_is_found(chain: list[tuple[Any, ...]]) -> None:
    for index, row in enumerate(chain):
        # Every row in one column, every tenth in all of them.
        for column in range(1, 7) if index % 10 == 0 else [1 + index % 6]:
            other = row[column][:-1] + ("0" if row[column][-1] != "0" else "1")
            edited = (*row[:column], other, *row[column + 1 :])
            assert audit.broken_links([*chain[:index], edited, *chain[index + 1 :]]), (index, column)
    assert audit.broken_links(chain) == []


def test_every_row_that_was_deleted_is_found(chain: list[tuple[Any, ...]]) -> None:
    for index in range(499):
        assert f"audit row {index + 1} is missing." in audit.broken_links([*chain[:index], *chain[index + 1 :]])


def test_a_last_row_that_was_deleted_is_found_by_the_tables(opened: tuple[Path, sqlite3.Connection]) -> None:
    folder, db = opened
    db.execute("DELETE FROM audit WHERE sequence = 500")
    assert audit.broken_links(audit.raw_rows(db)) == []
    (problem,) = verify(folder).problems
    assert problem.startswith("the verdict on cell")


def test_every_two_rows_that_were_swapped_are_found(chain: list[tuple[Any, ...]]) -> None:
    draw = random.Random(3)
    pairs = [(n, n + 1) for n in range(499)] + [tuple(draw.sample(range(500), 2)) for _ in range(200)]
    for one, two in pairs:
        # Once with their numbers, as a file of rows would be reordered, once without, as an editor of the table does it.
        swapped = list(chain)
        swapped[one], swapped[two] = chain[two], chain[one]
        assert audit.broken_links(swapped), (one, two)
        swapped[one], swapped[two] = (chain[one][0], *chain[two][1:]), (chain[two][0], *chain[one][1:])
        assert audit.broken_links(swapped), (one, two)


def test_a_row_that_was_edited_with_its_hash_breaks_the_next(chain: list[tuple[Any, ...]]) -> None:
    for index, row in enumerate(chain[:-1]):
        columns = (*row[:2], "Mallory", *row[3:6])
        forged = [*chain[:index], (*columns, audit.row_hash(columns)), *chain[index + 1 :]]
        assert audit.broken_links(forged) == [f"audit row {index + 2} does not follow the row before it."]


def test_a_tail_that_was_cut_off_is_found_through_the_printed_head(opened: tuple[Path, sqlite3.Connection]) -> None:
    folder, db = opened
    head = verify(folder).head
    write_report(folder)
    # The forger also takes the correction out of the tables, so that they follow from what is left of the log.
    last = json.loads(db.execute("SELECT payload_json FROM audit WHERE sequence = 500").fetchone()[0])
    before, key = last["before"], rows.cell_key(last["cell"])
    assert key is not None
    db.execute("UPDATE verdict SET label = ?, given_by = ? WHERE field = ? AND cell = ?", (before["label"], before["by"], *key))
    db.execute("DELETE FROM audit WHERE sequence = 500")
    said = "is not in the log: its end was cut off or replaced"
    assert [said in problem for problem in verify(folder, head).problems] == [True]
    assert [f"on report.html {said}" in problem for problem in verify(folder).problems] == [True]
    (folder / "report.html").unlink()
    assert verify(folder).problems == ()


def test_a_head_stays_true_when_the_log_grows(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1)) as session:
        head = session.head
        session.reclassify("000001-001", "blast", "Ada")
    assert verify(tmp_path, head).problems == ()
    assert verify(tmp_path, head.upper()).problems == ()
    assert len(verify(tmp_path, "ab" * 32).problems) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("UPDATE cell SET model_label = 'blast'", "field 1 or one of its cells was changed."),
        ("UPDATE cell SET confidence = 0.91 WHERE cell = 2", "field 1 or one of its cells was changed."),
        ("UPDATE cell SET maps_png = x'00'", "field 1 or one of its cells was changed."),
        ("UPDATE field SET name = 'b.png'", "field 1 or one of its cells was changed."),
        ("UPDATE field SET voided = 1", "field 1 is taken back, which is not what the log tells."),
        ("DELETE FROM verdict WHERE cell = 2", "the verdict on cell 000001-002 is not what the log tells."),
        ("UPDATE verdict SET label = 'blast' WHERE cell = 1", "the verdict on cell 000001-001 is not what the log tells."),
        ("UPDATE verdict SET given_by = 'Bo' WHERE cell = 1", "the verdict on cell 000001-001 is not what the log tells."),
        ("UPDATE session SET state = 'REVIEW'", "state of the session is not what the log tells."),
        ("UPDATE session SET specimen = 'S-99'", "specimen of the session is not what the log tells."),
        ("UPDATE session SET bundle_sha256 = 'x'", "bundle_sha256 of the session is not what the log tells."),
        ("DELETE FROM cell WHERE cell = 2; DELETE FROM verdict WHERE cell = 2", "field 1 or one of its cells was changed."),
        ("PRAGMA foreign_keys = OFF; DELETE FROM field", "a row of cell names what is not there."),
    ],
)
def test_tables_that_do_not_follow_from_the_log_are_found(tmp_path: Path, change: str, sentence: str) -> None:
    with signed(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "session.db", isolation_level=None)) as db:
        db.executescript(change)
    assert sentence in verify(tmp_path).problems


def test_the_log_is_append_only(tmp_path: Path) -> None:
    with signed(tmp_path) as session:
        for change in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="the audit log is append-only"):
                session._db.execute(change)


def test_pictures_that_were_changed_or_lost_are_found(tmp_path: Path) -> None:
    with signed(tmp_path) as session:
        one, two = session.cells()
        (tmp_path / one.crop).write_bytes((tmp_path / two.crop).read_bytes())
        (tmp_path / two.mask).unlink()
    assert verify(tmp_path).problems == (
        "a picture of cell 000001-001 was changed.",
        "a picture of cell 000001-002 is missing.",
    )


def test_every_action_is_replayed(tmp_path: Path) -> None:
    with counted(tmp_path, cell(1), cell(2)) as session:
        session.describe(SlideFacts("S-18", "3", "Bo", 50), "Bo")
        session.void_field("a.png", "Bo")
        session.undo("Bo")
        session.accept(["000001-001", "000001-002"], "Bo")
        session.undo("Bo")
        session.accept(["000001-001", "000001-002"], "Ada")
        session.reclassify("000001-001", "blast", "Bo")
        session.reclassify("000001-001", "monocyte", "Bo")
        session.undo("Bo")
        session.sign("Ada")
        session.amend("Ada", "why")
        session.void_field("a.png", "Ada")
        session.abandon("Ada", "slide broken")
        assert {row.action for row in session.audit_log()} == {
            "created", "committed", "described", "review_begun", "reclassified", "accepted", "voided", "undone", "signed",
            "amended", "abandoned",
        }  # fmt: skip
    assert verify(tmp_path).problems == ()


# The command line


def test_verify_on_the_command_line(tmp_path: Path, call: Callable[..., Done]) -> None:
    with signed(tmp_path / "s") as session:
        head = session.head
    done = call("session", "verify", tmp_path / "s")
    assert (done.code, done.out) == (0, f"5 rows of the audit log, 1 fields, 2 cells: sound. head {head}\n")
    told = json.loads(call("session", "verify", tmp_path / "s", "--json", "--head", head).out)
    assert (told["sound"], told["problems"], told["head"]) == (True, [], head)
    with closing(sqlite3.connect(tmp_path / "s/session.db", isolation_level=None)) as db:
        db.execute("UPDATE session SET specimen = 'x'")
    done = call("session", "verify", tmp_path / "s")
    assert (done.code, done.out.splitlines()[0]) == (1, "specimen of the session is not what the log tells.")
    assert call("session", "verify", tmp_path).code == 2
    (tmp_path / "s/session.db").write_bytes(b"no database at all, and long enough to be looked at" * 99)
    assert call("session", "verify", tmp_path / "s").code == 1


def test_state_list_and_sign_on_the_command_line(tmp_path: Path, call: Callable[..., Done]) -> None:
    with counted(tmp_path / "one", cell(1)) as session:
        session.accept(["000001-001"], "Ada")
    with counted(tmp_path / "two", cell(1, unsure=True)):
        pass
    told = json.loads(call("session", "state", tmp_path / "two", "--json").out)
    assert {name: told[name] for name in ("state", "cells", "counted", "unreviewed", "unidentified", "signed_by")} == {
        "state": "REVIEW", "cells": 1, "counted": 1, "unreviewed": 1, "unidentified": 1, "signed_by": None,
    }  # fmt: skip
    refused = call("session", "sign", tmp_path / "two", "--name", "Ada")
    assert (refused.code, "1 cell is not reviewed" in refused.err) == (2, True)
    assert call("session", "sign", tmp_path / "one", "--name", "Ada").code == 0
    assert call("session", "abandon", tmp_path / "two", "--by", "Ada", "--reason", "broken").code == 0
    assert call("session", "list", tmp_path).out.splitlines() == [
        "one                      SIGNED     1 cells, 0 unreviewed  signed by Ada",
        "two                      ABANDONED  1 cells, 1 unreviewed",
    ]
    assert "state          SIGNED" in call("session", "state", tmp_path / "one").out.splitlines()
    (tmp_path / "two/session.db").write_bytes(b"no database at all, and long enough to be looked at" * 99)
    done = call("session", "list", tmp_path)
    assert (done.code, len(done.out.splitlines()), "is damaged" in done.err) == (1, 1, True)


# An older version


def tables(folder: Path) -> dict[str, Any]:
    """Names, types and defaults of all columns, in any order."""
    with closing(sqlite3.connect(folder / "session.db")) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {name: sorted(row[1:] for row in db.execute(f"PRAGMA table_info({name})")) for name in names}
        triggers = sorted(row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'"))
    return {"columns": columns, "triggers": triggers}


def test_a_session_of_the_first_version_is_brought_along(tmp_path: Path) -> None:
    with Session.create(tmp_path / "old", FACTS) as session:
        fill(session, 3)
        before = tuple(replace(one, measures={}) for one in session.cells())  # the first version kept none
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    first_version(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "kept")
    with Session.open(tmp_path / "old", read_only=True) as session:
        assert (tuple(session.cells()), session.state.value) == (before, "COUNTING")
    assert (tmp_path / "old/session.db").read_bytes() == (tmp_path / "kept/session.db").read_bytes()
    with Session.open(tmp_path / "old") as session:
        assert tuple(session.cells()) == before
        session.begin_review("Ada")
        session.accept([row.id for row in before], "Ada")
        session.sign("Ada")
        assert [row.action for row in session.audit_log()] == ["migrated", "review_begun", "accepted", "signed"]
    assert verify(tmp_path / "old").problems == ()
    assert tables(tmp_path / "old") == tables(tmp_path / "new")


def test_a_migration_that_fails_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session.create(tmp_path, FACTS) as session:
        fill(session, 2)
    first_version(tmp_path)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "append", fail)
        with pytest.raises(StorageError, match="There is no space left"):
            Session.open(tmp_path)
    with closing(sqlite3.connect(tmp_path / "session.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == 1
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'audit'").fetchone()[0] == 0
    with Session.open(tmp_path) as session:
        assert len(list(session.cells())) == 2


def test_no_session_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a session"):
        verify(tmp_path)
