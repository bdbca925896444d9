"""Room is made by deleting what was signed long ago, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from done import Done
from sessions import cell, counted, signed

from nca_edge.errors import UsageError
from nca_edge.session import Session, audit
from nca_edge.session.retention import delete, look

OLD = (datetime.now(timezone.utc) - timedelta(days=40)).isoformat(timespec="seconds")


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One old session of each kind, and a young one."""
    with monkeypatch.context() as patch:
        patch.setattr(audit, "now", lambda: OLD)
        with signed(tmp_path / "signed"), counted(tmp_path / "unsigned", cell(1)):
            pass
        with signed(tmp_path / "amended") as session:
            session.amend("Ada", "why")
        with counted(tmp_path / "abandoned", cell(1)) as session:
            session.abandon("Ada", "broken")
        with signed(tmp_path / "damaged"):
            (tmp_path / "damaged/cells/000001-001.crop.png").unlink()
        with signed(tmp_path / "torn"):
            pass
    (tmp_path / "torn/session.db").write_bytes(b"no database at all, and long enough to be looked at" * 99)
    with signed(tmp_path / "young"):
        pass
    (tmp_path / "no-session").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "signed")
    return tmp_path


def test_only_what_was_signed_long_ago_and_is_sound_may_go(sessions: Path) -> None:
    said = {row.folder.name: row.why for row in look(sessions, 30)}
    assert said.pop("torn").startswith(f"The session {sessions / 'torn'} is damaged")
    assert said == {
        "signed": "",
        "unsigned": "it is not signed (REVIEW).",
        "amended": "it is not signed (AMENDED).",
        "abandoned": "it is not signed (ABANDONED).",
        "damaged": "it is not sound: a picture of cell 000001-001 is missing.",
        "young": "it was signed 0 days ago.",
    }


def test_a_clock_that_was_set_back_deletes_nothing(sessions: Path) -> None:
    assert all(row.why for row in look(sessions, 30, datetime(2016, 1, 1, tzinfo=timezone.utc)))


def test_what_is_kept_cannot_be_deleted(sessions: Path) -> None:
    for name in ("unsigned", "amended", "abandoned", "damaged", "young"):
        with pytest.raises(UsageError, match="is kept: it"):
            delete(sessions / name, 30)
        assert (sessions / name / "session.db").exists()
    with pytest.raises(UsageError, match="at least 1 day"):
        look(sessions, 0)
    with pytest.raises(UsageError, match="at least 1 day"):
        look(sessions, float("nan"))


def test_prune_says_first_and_deletes_when_told(sessions: Path, call: Callable[..., Done]) -> None:
    done = call("session", "prune", sessions, "--older-than", "30")
    assert done.code == 0 and "would be deleted" in done.out and "--yes deletes" in done.out
    assert (sessions / "signed").exists()
    done = call("session", "prune", sessions, "--older-than", "30", "--yes")
    assert done.code == 0 and done.out.count(" deleted\n") == 1
    assert not (sessions / "signed").exists()
    names = {path.name for path in sessions.iterdir()}
    assert names == {"unsigned", "amended", "abandoned", "damaged", "torn", "young", "no-session", "link"}


def test_a_session_in_use_is_not_deleted(sessions: Path, call: Callable[..., Done]) -> None:
    with Session.open(sessions / "signed"):
        done = call("session", "prune", sessions, "--older-than", "30", "--yes")
    assert done.code == 1 and "is in use by process" in done.err
    assert (sessions / "signed/session.db").exists()


def test_describe_on_the_command_line(tmp_path: Path, call: Callable[..., Done]) -> None:
    with counted(tmp_path, cell(1)):
        pass
    assert call("session", "describe", tmp_path, "--by", "Bo", "--specimen", "S-99", "--target", "200").code == 0
    with Session.open(tmp_path) as session:
        assert (session.slide.specimen, session.slide.slide, session.slide.target) == ("S-99", "2", 200)
        assert session.audit_log()[-1].actor == "Bo"
