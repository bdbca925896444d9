"""What is committed stays, what is not was never there."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from readings import FACTS, cell, image, reading, rejected, session_in

from nca_edge.errors import StorageError, UsageError
from nca_edge.records import Box, CellReading, ChannelRelevance, Detection, Prediction, RunFacts
from nca_edge.session import Session, TopChannel
from nca_edge.session import database as database_module
from nca_edge.session import files as files_module

# What a session holds


def test_facts_and_rows_come_back(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session.commit(reading("a.png", cell(1), cell(2, label="artefact")))
        session.commit(rejected())
        identity = session.id
    with Session.open(tmp_path / "s") as session:
        assert (session.id, session.facts) == (identity, FACTS)
        assert session.fields_done() == {"a.png", "dark.png"}
        first, second = session.fields()
        assert (first.number, first.name, first.accepted, first.reasons, first.n_cells) == (1, "a.png", True, (), 2)
        assert (first.focus, first.um_per_px, first.scale_source) == (12.3456789, 0.1, "red_cells")
        assert (second.number, second.accepted, second.failed, second.reasons) == (2, False, False, ("It is too dark.",))
        assert (second.n_cells, second.um_per_px, second.scale_source) == (0, None, None)
        one, two = session.cells()
        assert (one.field, one.field_number, one.cell, one.box) == ("a.png", 1, 1, Box(10, 20, 30, 40))
        assert (one.label, one.confidence, one.unsure, one.counted, one.border) == ("lymphocyte", 0.75, False, True, False)
        assert (one.score, one.logit, one.bias_share, one.epsilon_share) == (4.25, 2.0, 0.25, -1e-9)
        assert one.top_channels[:2] == (TopChannel(5, 1.5, (0, 2)), TopChannel(4, 0.5, (1, 2)))
        assert (len(one.top_channels), two.label, two.counted) == (6, "artefact", False)


def test_pictures_are_what_was_seen(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session.commit(reading("a.png", cell()))
        (row,) = session.cells()
        assert (row.crop, row.mask) == ("cells/000001-001.crop.png", "cells/000001-001.mask.png")
        np.testing.assert_array_equal(image(session, row.crop), cell().crop)
        np.testing.assert_array_equal(image(session, row.mask), cell().explanation.mask)
        drawn = image(session, row.overlay)
        assert [tuple(drawn[3, x]) for x in (0, 1, 2, 3)] == [(200, 200, 200), (0, 0, 0), (240, 228, 66), (200, 200, 200)]


def test_five_maps_are_kept_each_stretched(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session.commit(reading("a.png", cell()))
        (row,) = session.cells()
        maps = session.channel_maps(row)
    assert maps.shape == (5, 2, 2)
    np.testing.assert_array_equal(maps, np.tile(np.array([[0, 64], [128, 255]], np.uint8), (5, 1, 1)))


def test_maps_that_are_flat_or_not_finite_are_kept_too() -> None:
    flat = ChannelRelevance(0, 1.0, (0, 0), np.full((2, 2), 3, np.float32))
    broken = ChannelRelevance(0, 1.0, (0, 0), np.array([[np.nan, np.inf], [0, 2]], np.float32))
    assert files_module.unpack_maps(files_module.pack_maps([flat, broken])).tolist() == [[[0, 0], [0, 0]], [[0, 0], [0, 255]]]
    assert files_module.unpack_maps(files_module.pack_maps([])).shape[0] == 0


def test_numpy_numbers_are_stored_as_numbers(tmp_path: Path) -> None:
    odd = cell()
    odd = CellReading(
        np.int64(1),  # type: ignore[arg-type]
        Detection(Box(np.int64(1), np.int32(2), np.int64(3), np.int64(4)), np.bool_(True), np.float32(0.5)),  # type: ignore[arg-type]
        Prediction("lymphocyte", np.float32(0.5), np.bool_(True), {"lymphocyte": np.float32(0.5)}),  # type: ignore[arg-type, dict-item]
        odd.explanation,
        np.bool_(False),  # type: ignore[arg-type]
        odd.crop,
    )
    with session_in(tmp_path) as session:
        session.commit(reading("a.png", odd))
        (row,) = session.cells()
        assert (row.box, row.border, row.score, row.confidence, row.counted) == (Box(1, 2, 3, 4), True, 0.5, 0.5, False)


def test_the_database_is_set_to_survive_a_power_cut(tmp_path: Path) -> None:
    with session_in(tmp_path):
        pass
    with Session.open(tmp_path / "s") as session:
        settings = [
            session._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "user_version")
        ]
    assert settings == ["wal", 2, 2]
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["cells", "session.db"]


def test_ids_are_not_taken_from_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "now", lambda: "1970-01-01T00:00:00+00:00")
    with Session.create(tmp_path / "a", FACTS) as one, Session.create(tmp_path / "b", FACTS) as two:
        assert one.id != two.id
        assert one.created_at == two.created_at


# Beginning and resuming


def test_a_second_session_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with session_in(tmp_path):
        pass
    with pytest.raises(UsageError, match=r"already holds a session: resume it with --session .*, or give another folder"):
        session_in(tmp_path)


def test_a_folder_with_files_that_would_be_overwritten_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"holds cells\.csv but no session"):
        Session.create(tmp_path, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.csv"]
    with pytest.raises(UsageError, match="is a file, not a folder"):
        Session.create(tmp_path / "cells.csv", FACTS)


def test_a_creation_that_was_cut_short_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(database_module, "_insert_facts", fail)
        with pytest.raises(StorageError):
            session_in(tmp_path)
    with pytest.raises(UsageError, match="does not hold a session"):
        Session.open(tmp_path / "s")
    with session_in(tmp_path) as session:
        assert session.facts == FACTS


def test_what_is_no_session_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a session \(it holds no session.db\)"):
        Session.open(tmp_path)
    path = tmp_path / "session.db"
    path.write_bytes(b"no database at all, and long enough to be looked at" * 99)
    with pytest.raises(StorageError, match="is damaged"):
        Session.open(tmp_path)
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="does not hold a session of nca-edge"):
        Session.open(tmp_path)
    with pytest.raises(UsageError, match="already holds a session"):
        Session.create(tmp_path, FACTS)
    assert path.read_bytes() == before


def test_a_session_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session._db.execute("PRAGMA user_version = 3")
    with pytest.raises(StorageError, match=r"newer nca-edge \(format 3, this one reads 2\): update nca-edge"):
        Session.open(tmp_path / "s")


def test_resuming_with_other_facts_names_what_differs(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session.require(FACTS)
        other = RunFacts("tiny", "cd" * 32, "onnx", "fp32", 2, 0.12, FACTS.classes, FACTS.groups, {})
        with pytest.raises(UsageError) as caught:
            session.require(other)
    assert str(caught.value) == (
        f"The session {tmp_path / 's'} began with model hash abababababab, backend numpy, threads 1, no --um-per-px, "
        "but this call has model hash cdcdcdcdcdcd, backend onnx, threads 2, --um-per-px 0.12: "
        "resume with what it began with, or start a new session with --out."
    )


def test_a_field_is_never_counted_twice(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session.commit(reading("a.png", cell(shade=10)))
        session.commit(reading("a.png", cell(shade=90), cell(2)))
        assert [(row.name, row.n_cells) for row in session.fields()] == [("a.png", 1)]
        (row,) = session.cells()
        assert image(session, row.crop)[0, 0, 0] == 10


def test_the_schema_is_part_of_the_package() -> None:
    schema = (files("nca_edge") / "schema.sql").read_text("utf-8")
    assert f"PRAGMA user_version = {database_module.USER_VERSION};" in schema
    assert f"PRAGMA application_id = {database_module.APPLICATION_ID};" in schema
