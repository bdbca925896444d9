"""Sessions for the tests: small cells of every kind, committed for real."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from nca_edge.records import (
    Box,
    CellReading,
    ChannelRelevance,
    Detection,
    Explanation,
    Prediction,
    Reading,
    RunFacts,
    Scale,
)
from nca_edge.session import Session, SlideFacts

CLASSES = ("neutrophil_band", "neutrophil_segmented", "lymphocyte", "monocyte", "blast", "erythroblast", "artefact")
FACTS = RunFacts(
    bundle="tiny",
    bundle_sha256="ab" * 32,
    backend="numpy",
    precision="fp32",
    threads=1,
    um_per_px=None,
    classes=CLASSES,
    groups={"neutrophil": ("neutrophil_band", "neutrophil_segmented"), "lymphocyte": ("lymphocyte",)},
    model_facts={},
)
ONE, TWO, THREE = "000001-001", "000001-002", "000001-003"
"""The first cells of the first field."""
SLIDE = SlideFacts("S-17", "2", "Ada", 100, {"um_per_px": 0.1})


def cell(
    number: int,
    label: str = "lymphocyte",
    confidence: float = 0.9,
    *,
    unsure: bool = False,
    border: bool = False,
    size: int = 8,
) -> CellReading:
    """One cell whose pictures tell its number."""
    crop = np.full((size, size, 3), number, np.uint8)
    mask = np.zeros((size, size), np.uint8)
    mask[2:6, 2:6] = 128
    channels = tuple(ChannelRelevance(i, 1.5 - i, (i, 2), np.eye(4, dtype=np.float32) * i) for i in range(6))
    rest = (1 - confidence) / (len(CLASSES) - 1)
    return CellReading(
        number,
        Detection(Box(10, 20, 30, 40), border, 4.25),
        Prediction(label, confidence, unsure, {name: confidence if name == label else rest for name in CLASSES}),
        Explanation(label, 2.0, channels, 0.25, -1e-9, mask),
        label != "artefact" and not border,
        crop,
    )


def field(name: str, *cells: CellReading) -> Reading:
    """An accepted field."""
    return Reading(name, True, (), False, 12.5, Scale(0.1, "red_cells"), cells)


def fill(session: Session, n: int, label: str = "lymphocyte", begin: int = 0) -> None:
    """Commit ``n`` fields of one cell each."""
    for number in range(begin, begin + n):
        session.commit(field(f"{label}-{number:04d}.png", cell(1, label)))


def counted(folder: Path, *cells: CellReading) -> Session:
    """A session in review that holds one field."""
    session = Session.create(folder, FACTS, SLIDE)
    session.commit(field("a.png", *cells))
    session.begin_review("Ada")
    return session


def signed(folder: Path, *cells: CellReading) -> Session:
    """The same, every cell accepted and signed."""
    session = counted(folder, *(cells or (cell(1), cell(2, "monocyte"))))
    session.accept([row.id for row in session.unreviewed()], "Ada")
    session.sign("Ada Lovelace")
    return session


def first_version(folder: Path) -> None:
    """Turn a session into one of the first format, as its own program would have left it."""
    with closing(sqlite3.connect(folder / "session.db", isolation_level=None)) as db:
        db.executescript("DROP TABLE audit; DROP TABLE verdict;")
        for table, columns in {
            "session": ("state", "specimen", "slide", "operator", "target", "calibration_json"),
            "field": ("voided",),
            "cell": ("measures_json", "pictures_sha256"),
        }.items():
            for column in columns:
                db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 1")
