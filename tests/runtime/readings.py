"""Readings made up to the last number: what a session has to store and give back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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
from nca_edge.session import Session

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
