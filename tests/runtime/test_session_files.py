"""The files derived from a session are exact, and can be made again at any time."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from readings import FACTS, cell, planned, reading, rejected, session_in

from nca_edge.errors import StorageError
from nca_edge.records import CellReading, ChannelRelevance, Explanation, Prediction
from nca_edge.session import Session
from nca_edge.session import audit as audit_module
from nca_edge.session import database as database_module
from nca_edge.session import store as store_module

HOSTILE = (
    "../../etc/passwd", "/", "a" * 5000, "weiße Zelle \u202e.png", '<b>"x"</b>.png', "line\nbreak\u2028.png", "row\r=1+1",
    "=1+1.png", "\udcff\ud800.png", "", "x'; DROP TABLE cell; --", "CON", ".part",
)  # fmt: skip


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
