"""What is committed stays, what is not was never there, and the derived files are exact."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

import nca_edge
from nca_edge.errors import StorageError, UsageError
from nca_edge.records import (
    Box,
    CellReading,
    ChannelRelevance,
    Detection,
    Explanation,
    Measures,
    Prediction,
    Reading,
    RunFacts,
    Scale,
)
from nca_edge.session import Session, TopChannel
from nca_edge.session import audit as audit_module
from nca_edge.session import database as database_module
from nca_edge.session import files as files_module
from nca_edge.session import store as store_module

MEASURES = Measures(area_um2=12.5, reason="no nucleus was told apart")
FACTS = RunFacts(
    bundle="tiny",
    bundle_sha256="ab" * 32,
    backend="numpy",
    precision="fp32",
    threads=1,
    um_per_px=None,
    classes=("lymphocyte", "artefact"),
    groups={"lymphocyte": ("lymphocyte",)},
    model_facts={"licence": "CC BY 4.0", "accuracy": {"value": 0.5, "n": 2, "interval": [0.01, 0.99]}},
)
HOSTILE = (
    "../../etc/passwd", "/", "a" * 5000, "weiße Zelle \u202e.png", '<b>"x"</b>.png', "line\nbreak\u2028.png", "row\r=1+1",
    "=1+1.png", "\udcff\ud800.png", "", "x'; DROP TABLE cell; --", "CON", ".part",
)  # fmt: skip


def cell(number: int = 1, *, shade: int = 200, label: str = "lymphocyte", size: int = 8) -> CellReading:
    crop = np.full((size, size, 3), shade, np.uint8)
    mask = np.zeros((size, size), np.uint8)
    mask[2:6, 2:6] = 128
    channels = tuple(
        ChannelRelevance(5 - i, 1.5 - i, (i, 2), np.array([[i, i + 1], [i + 2, i + 4]], np.float32)) for i in range(6)
    )
    return CellReading(
        cell=number,
        detection=Detection(Box(10, 20, 30, 40), False, 4.25),
        prediction=Prediction(label, 0.75, False, {"lymphocyte": 0.75, "artefact": 0.25}),
        explanation=Explanation(label, 2.0, channels, 0.25, -1e-9, mask, 0.25, MEASURES),
        counted=label != "artefact",
        crop=crop,
    )


def reading(field: str = "a.png", *cells: CellReading) -> Reading:
    return Reading(field, True, (), False, 12.3456789, Scale(0.1, "red_cells"), cells)


def rejected(field: str = "dark.png") -> Reading:
    return Reading(field, False, ("It is too dark.",), False, 0.5, None, ())


def image(session: Session, path: str) -> np.ndarray[Any, Any]:
    with Image.open(session.folder / path) as picture:
        return np.asarray(picture)


def session_in(folder: Path) -> Session:
    return Session.create(folder / "s", FACTS)


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


# Failing and crashing


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


def planned() -> list[Reading]:
    """A session of 24 fields, each with 0 to 3 cells."""
    return [reading(f"{n:03d}.png", *(cell(i, shade=n, size=64) for i in range(1, 1 + n % 4))) for n in range(24)]


def work(folder: str) -> None:
    """Commit what is still to do, and say so after each field (run in a process of its own)."""
    with Session.open(Path(folder)) as session:
        done = session.fields_done()
        for plan in planned():
            if plan.field not in done:
                session.commit(plan)
                print(plan.field, flush=True)


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with session_in(tmp_path):
        pass
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['work'](sys.argv[2])"
    env = {**os.environ, "PYTHONPATH": str(Path(nca_edge.__path__[0]).parent)}
    said: set[str] = set()
    for stop_after in (1, 5, 8):
        writer = subprocess.Popen(
            [sys.executable, "-c", code, __file__, str(folder)], stdout=subprocess.PIPE, text=True, env=env
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


# Derived files


def test_the_derived_files_are_exact(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session.commit(reading("a.png", cell()))
        session.commit(rejected())
        session.export()
    assert (tmp_path / "s/cells.jsonl").read_text() == (
        '{"field": "a.png", "cell": 1, "box": [10, 20, 30, 40], "label": "lymphocyte", "confidence": 0.75, "unsure": false, '
        '"counted": true, "border": false, "probabilities": {"lymphocyte": 0.75, "artefact": 0.25}, "top_channels": ['
        '{"channel": 5, "relevance": 1.5, "peak": [0, 2]}, {"channel": 4, "relevance": 0.5, "peak": [1, 2]}, '
        '{"channel": 3, "relevance": -0.5, "peak": [2, 2]}, {"channel": 2, "relevance": -1.5, "peak": [3, 2]}, '
        '{"channel": 1, "relevance": -2.5, "peak": [4, 2]}, {"channel": 0, "relevance": -3.5, "peak": [5, 2]}], '
        '"mask": "cells/000001-001.mask.png", "crop": "cells/000001-001.crop.png", "overlay": "cells/000001-001.overlay.png", '
        '"focus": 12.345679, "um_per_px": 0.1, "scale_source": "red_cells", '
        '"outside_share": 0.25, '
        '"rests_on_background": false, '
        '"measures": {"area_um2": 12.5, "equivalent_diameter_um": null, "circularity": null, "nucleus_area_um2": null, '
        '"nucleus_share": null, "nucleus_cytoplasm_ratio": null, "reason": "no nucleus was told apart"}}\n'
    )
    assert (tmp_path / "s/fields.jsonl").read_text() == (
        '{"field": "a.png", "accepted": true, "reasons": [], "n_cells": 1, "um_per_px": 0.1}\n'
        '{"field": "dark.png", "accepted": false, "reasons": ["It is too dark."], "n_cells": 0, "um_per_px": null}\n'
    )
    assert (tmp_path / "s/cells.csv").read_text() == (
        "field,cell,x,y,w,h,label,confidence,unsure,counted,border,focus,um_per_px,scale_source,crop,mask,overlay,"
        "area_um2,equivalent_diameter_um,circularity,nucleus_area_um2,nucleus_share,"
        "nucleus_cytoplasm_ratio,reason,outside_share,rests_on_background,p_lymphocyte,p_artefact\n"
        "a.png,1,10,20,30,40,lymphocyte,0.75,0,1,0,12.345679,0.1,red_cells,cells/000001-001.crop.png,"
        "cells/000001-001.mask.png,cells/000001-001.overlay.png,12.5,,,,,,no nucleus was told apart,0.25,0,0.75,0.25\n"
    )


def test_the_same_input_gives_the_same_bytes_at_another_time_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for place, clock in (("a", "1999-01-01T00:00:00+00:00"), ("b/c", "2026-01-01T00:00:00+00:00")):
        for module in (database_module, audit_module):
            monkeypatch.setattr(module, "now", lambda clock=clock: clock)
        monkeypatch.setattr(store_module, "now", lambda clock=clock: clock)
        with Session.create(tmp_path / place, FACTS) as session:
            for plan in planned():
                session.commit(plan)
            session.export()
            session.export()
        contents.append([(tmp_path / place / name).read_bytes() for name in ("cells.jsonl", "fields.jsonl", "cells.csv")])
    assert contents[0] == contents[1]


def test_export_needs_the_database_alone(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        session.commit(reading("a.png", cell()))
        session.export()
        before = (session.folder / "cells.jsonl").read_bytes()
        for path in [*session.folder.glob("cells/*"), *session.folder.glob("*.jsonl"), *session.folder.glob("*.csv")]:
            path.unlink()
        session.export()
        assert (session.folder / "cells.jsonl").read_bytes() == before


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with session_in(tmp_path) as session:
        session.commit(reading("a.png", cell()))
        session.export()
        before = {path.name: path.read_bytes() for path in session.folder.glob("*.*sv*")}
        session.commit(reading("b.png", cell()))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(StorageError, match="no space left"):
                session.export()
        assert {path.name: path.read_bytes() for path in session.folder.glob("*.*sv*")} == before
        assert not list(session.folder.glob("*.part"))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_does_not_run_a_name(tmp_path: Path, start: str) -> None:
    name = f"{start}cmd|' /C calc'!A0.png"
    with session_in(tmp_path) as session:
        session.commit(reading(name, cell()))
        session.export()
    with (tmp_path / "s/cells.csv").open(newline="", encoding="utf-8") as file:
        _, row = csv.reader(file)
    assert row[0] == f"'{name}"
    assert len(row) == 28
    assert json.loads((tmp_path / "s/cells.jsonl").read_text())["field"] == name


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        for name in HOSTILE:
            session.commit(reading(name, cell()))
        assert session.fields_done() == set(HOSTILE)
        assert [row.field for row in session.cells()] == list(HOSTILE)
        session.export()
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    kinds = ("crop", "mask", "overlay")
    assert names == [f"s/cells/{n:06d}-001.{kind}.png" for n in range(1, len(HOSTILE) + 1) for kind in kinds]
    for derived in ("cells.jsonl", "fields.jsonl"):
        lines = (tmp_path / "s" / derived).read_text("ascii").splitlines()
        assert [json.loads(line)["field"] for line in lines] == list(HOSTILE)
    rows = list(csv.reader(io.StringIO((tmp_path / "s/cells.csv").read_text("utf-8"), newline="")))
    assert len(rows) == len(HOSTILE) + 1


def test_numbers_are_rounded_and_json_stays_json(tmp_path: Path) -> None:
    odd = cell()
    why = odd.explanation
    channel = ChannelRelevance(1, -1e-9, (0, 0), np.zeros((2, 2), np.float32))
    explanation = Explanation(why.label, why.logit, (channel,), why.bias_share, why.epsilon_share, why.mask)
    prediction = Prediction("lymphocyte", 0.12345678, False, {"lymphocyte": float("nan")})
    with session_in(tmp_path) as session:
        session.commit(reading("a.png", CellReading(1, odd.detection, prediction, explanation, True, odd.crop)))
        session.export()
    line = (tmp_path / "s/cells.jsonl").read_text()
    assert '"confidence": 0.123457' in line
    assert '"probabilities": {"lymphocyte": null}' in line
    assert '"relevance": 0.0' in line


def test_the_schema_is_part_of_the_package() -> None:
    schema = (files("nca_edge") / "schema.sql").read_text("utf-8")
    assert f"PRAGMA user_version = {database_module.USER_VERSION};" in schema
    assert f"PRAGMA application_id = {database_module.APPLICATION_ID};" in schema
