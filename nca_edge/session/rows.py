"""What the database holds, as plain records."""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
from dataclasses import dataclass
from typing import Any

from nca_edge.records import Box, RunFacts
from nca_edge.session.files import picture_path
from nca_edge.session.people import SlideFacts

UNIDENTIFIED = "unidentified"
"""What a person calls a leukocyte that she cannot name."""
ARTEFACT = "artefact"
"""Anything that is no white cell."""


@dataclass(frozen=True, slots=True)
class TopChannel:
    """One of the channels that spoke most for the class; its map is read by ``Session.channel_maps``."""

    channel: int
    """Index into the state's channels."""
    relevance: float
    """Its share of the class logit."""
    peak: tuple[int, int]
    """(x, y) px in the crop."""


@dataclass(frozen=True, slots=True)
class FieldRow:
    """A committed field."""

    number: int
    """Running number in the session, from 1, in order of commit."""
    name: str
    """File name relative to the source, or ``frame-000012``."""
    committed_at: str
    """UTC, ISO 8601; for people, nothing depends on it."""
    accepted: bool
    """False: rejected by the quality gate, or unreadable."""
    failed: bool
    """True: it could not be read at all."""
    reasons: tuple[str, ...]
    """Why it was not accepted."""
    focus: float
    """Sharpness of the field."""
    um_per_px: float | None
    """Micrometres per pixel; None for a field that was not accepted."""
    scale_source: str | None
    """As ``records.Scale.source``."""
    n_cells: int
    """Cells found in it, counted or not."""
    voided: bool = False
    """Taken back by a person: stored, but none of its cells is counted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a cell counts as now: a person's word before the model's."""

    label: str
    """Its class."""
    unsure: bool
    """It has no certain class: the model is unsure and nobody has named it, or a person called it unidentified."""
    counted: bool
    """It takes part in the differential."""


@dataclass(frozen=True, slots=True)
class CellRow:
    """A committed cell, with what its field tells about it."""

    field: str
    """Name of its field."""
    field_number: int
    """Number of its field in the session."""
    cell: int
    """Number within the field, from 1."""
    box: Box
    """Around the whole cell, px of the field."""
    border: bool
    """Cut by the field's edge."""
    score: float
    """Contrast of its nucleus against the red cells."""
    label: str
    """The model's best class, also when unsure; kept for ever (``verdict`` has a person's word in it)."""
    confidence: float
    """Its calibrated probability, 0..1."""
    unsure: bool
    """The model was unsure: a person has to name the cell."""
    counted: bool
    """Takes part in the differential by the model's word."""
    probabilities: dict[str, float]
    """Class -> calibrated probability, in the bundle's order."""
    explained_label: str
    """The class that ``top_channels`` explain."""
    logit: float
    """Its logit."""
    bias_share: float
    """Relevance that the head's biases absorbed."""
    epsilon_share: float
    """Relevance that the stabiliser absorbed."""
    top_channels: tuple[TopChannel, ...]
    """Ten, largest absolute relevance first."""
    focus: float
    """Sharpness of the field."""
    um_per_px: float | None
    """Micrometres per pixel of the field."""
    scale_source: str | None
    """As ``records.Scale.source``."""
    human_label: str | None = None
    """What a person said, the model's own class where she accepted it; None: nobody has reviewed the cell."""
    reviewed_by: str | None = None
    """Who said it."""
    voided: bool = False
    """Its field was taken back."""
    measures: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further measures, name -> number, truth value or text."""

    @property
    def id(self) -> str:
        """Its name within the session, such as ``000012-003`` (field 12, cell 3): what reviewing takes, safe in a URL."""
        return f"{self.field_number:06d}-{self.cell:03d}"

    @property
    def reviewed(self) -> bool:
        """A person has said what it is."""
        return self.human_label is not None

    @property
    def corrected(self) -> bool:
        """A person said something else than the model."""
        return self.human_label not in (None, self.label)

    @property
    def in_scope(self) -> bool:
        """A person has to look at it: it is counted, or would be if the model were wrong to call it an artefact."""
        return not self.voided and (self.counted or (self.label == ARTEFACT and not self.border))

    @property
    def verdict(self) -> Verdict:
        """What it counts as now."""
        if self.human_label is None:
            return Verdict(self.label, self.unsure, self.counted and not self.voided)
        if self.human_label == UNIDENTIFIED:
            return Verdict(self.label, True, self.in_scope)
        return Verdict(self.human_label, False, self.in_scope and self.human_label != ARTEFACT)

    @property
    def crop(self) -> str:
        """Path of the crop (PNG), relative to the session folder."""
        return picture_path(self.field_number, self.cell, "crop")

    @property
    def mask(self) -> str:
        """Path of the mask (8-bit PNG: 0, 128 cell, 255 nucleus), relative to the session folder."""
        return picture_path(self.field_number, self.cell, "mask")

    @property
    def overlay(self) -> str:
        """Path of the crop with the mask's outline (PNG), relative to the session folder."""
        return picture_path(self.field_number, self.cell, "overlay")


def field_row(row: sqlite3.Row) -> FieldRow:
    """FieldRow of a row of ``store.FIELDS``."""
    return FieldRow(
        number=row["number"],
        name=row["name"],
        committed_at=row["committed_at"],
        accepted=bool(row["accepted"]),
        failed=bool(row["failed"]),
        reasons=tuple(json.loads(row["reasons_json"])),
        focus=row["focus"],
        um_per_px=row["um_per_px"],
        scale_source=row["scale_source"],
        n_cells=row["n_cells"],
        voided=bool(row["voided"]),
    )


def cell_row(row: sqlite3.Row, of: FieldRow) -> CellRow:
    """CellRow of a row of ``store.CELLS_OF_FIELD`` and the field it belongs to."""
    return CellRow(
        field=of.name,
        field_number=of.number,
        cell=row["cell"],
        box=Box(row["x"], row["y"], row["w"], row["h"]),
        border=bool(row["border"]),
        score=row["score"],
        label=row["model_label"],
        confidence=row["confidence"],
        unsure=bool(row["unsure"]),
        counted=bool(row["counted"]),
        probabilities=json.loads(row["probabilities_json"]),
        explained_label=row["explained_label"],
        logit=row["logit"],
        bias_share=row["bias_share"],
        epsilon_share=row["epsilon_share"],
        top_channels=tuple(TopChannel(c, r, (p[0], p[1])) for c, r, p in json.loads(row["top_channels_json"])),
        focus=of.focus,
        um_per_px=of.um_per_px,
        scale_source=of.scale_source,
        human_label=row["human_label"],
        reviewed_by=row["given_by"],
        voided=of.voided,
        measures=json.loads(row["measures_json"]),
    )


def cell_key(cell: str) -> tuple[int, int] | None:
    """(number of its field, number within it) of a ``CellRow.id``; None for anything else."""
    found = re.fullmatch(r"([0-9]{6,15})-([0-9]{3,15})", cell)
    return None if found is None else (int(found[1]), int(found[2]))


def slide_facts(row: sqlite3.Row) -> SlideFacts:
    """SlideFacts of the one row of ``session``."""
    calibration = json.loads(row["calibration_json"])
    return SlideFacts(row["specimen"], row["slide"], row["operator"], row["target"], calibration)


def run_facts(row: sqlite3.Row) -> RunFacts:
    """RunFacts of the one row of ``session``."""
    return RunFacts(
        bundle=row["bundle"],
        bundle_sha256=row["bundle_sha256"],
        backend=row["backend"],
        precision=row["precision"],
        threads=row["threads"],
        um_per_px=row["um_per_px"],
        classes=tuple(json.loads(row["classes_json"])),
        groups={name: tuple(members) for name, members in json.loads(row["groups_json"]).items()},
        model_facts=json.loads(row["model_json"]),
    )
