"""report.html: everything a person needs to judge a session, in one file that loads nothing.

It is made from the session folder alone, and the same folder gives the same bytes. No script; the content security policy
allows the pictures inside the file and the one style sheet, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nca_edge.differential import ARTEFACT, UNIDENTIFIED, Differential, differential
from nca_edge.drawing import map_strip, outline, shrink
from nca_edge.flags import Flag, Rule
from nca_edge.i18n import Words
from nca_edge.records import Image8
from nca_edge.session import CellRow, FieldRow, Session, replace_file
from nca_edge.session.derived import REPORT_HTML
from nca_edge.session.faults import storage
from nca_edge.summary import minute, summarize
from nca_edge.wording import blast_sentence, flag_sentence, standing

CROP_PX = 160
"""Crops are at most this wide: two to three times their size on the page, and 500 cells stay a few megabytes."""
HISTORY = ("created", "migrated", "review_begun", "signed", "amended", "abandoned")
"""Actions of the audit log that the report tells of."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one cell as data: URIs; empty where the file is missing or damaged."""

    crop: str
    """The crop."""
    outline: str
    """The mask's outline, to lie over the crop: crisper and smaller than a second JPEG with the outline in it."""
    maps: str
    """The channel maps side by side."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """The cells of one class."""

    label: str
    """The class."""
    cells: tuple[CellRow, ...]
    """Unsure ones first, then by rising confidence: what deserves a look stands in front."""

    @property
    def unsure(self) -> int:
        """Cells that a person has to name."""
        return sum(cell.verdict.unsure for cell in self.cells)

    @property
    def border(self) -> int:
        """Cells cut by a field's edge."""
        return sum(cell.border for cell in self.cells)


def write_report(
    session_folder: Path, to: Path | None = None, rules: Iterable[Rule] | None = None, language: str = "en"
) -> Path:
    """(Re)build ``report.html`` from a session folder.

    Parameters
    ----------
    session_folder : the folder of a session
    to : folder of the report; None: the session's
    rules : of the flags; None: those of nca-edge
    language : one of ``i18n.LANGUAGES``

    Returns
    -------
    Path
        The report, replaced in one step.
    """
    path = (to or session_folder) / REPORT_HTML
    with Session.open(session_folder, read_only=True) as session, session.snapshot(), storage(path.parent):
        replace_file(path, render_report(session, rules, language))
    return path


def render_report(session: Session, rules: Iterable[Rule] | None = None, language: str = "en") -> Iterator[bytes]:
    """The report of an open session, piece by piece."""
    # File names may hold what is no valid Unicode; such bytes are shown escaped.
    return (chunk.encode("utf-8", "backslashreplace") for chunk in _render(session, rules, Words(language)))


def count(session_folder: Path) -> Differential:
    """The differential of a session as it counts now."""
    with Session.open(session_folder, read_only=True) as session:
        return differential(session.verdicts(), session.facts.classes, session.facts.groups)


def galleries(cells: list[CellRow], table: Differential) -> tuple[Gallery, ...]:
    """Cells grouped by the class that counts, in the order of the differential table, artefacts last."""
    order = [part.name for row in table.rows for part in (row, *row.parts)] + [row.name for row in table.outside] + [ARTEFACT]
    labels = {cell.verdict.label for cell in cells}
    found = [label for label in order if label in labels] + sorted(labels.difference(order))
    return tuple(Gallery(label, tuple(sorted((c for c in cells if c.verdict.label == label), key=_urgency))) for label in found)


def _urgency(cell: CellRow) -> tuple[bool, float]:
    return not cell.verdict.unsure, cell.confidence


def _render(session: Session, rules: Iterable[Rule] | None, words: Words) -> Iterator[str]:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(
        title=lambda label: _title(label, words), name=words.label, figure=_figure, minute=minute,
        known=lambda label: label.replace("_", " ") if words.language == "en" else words.label(label),
        decimal=lambda value: words.number(value, 1), flag=lambda flag: _flag(flag, words),
    )  # fmt: skip
    environment.tests.update(
        record=lambda value: isinstance(value, dict), listing=lambda value: isinstance(value, list | tuple)
    )
    folder = files("nca_edge") / "templates"
    style = (folder / "report.css").read_text("utf-8")
    cells, fields = list(session.cells()), list(session.fields())
    summary = summarize(session, rules)
    table = summary.table
    # generate() yields piece by piece, so that only one cell's pictures are in memory at a time.
    return environment.from_string((folder / "report.html.j2").read_text("utf-8")).generate(
        t=words,
        research_use=words("research_use"),
        style=_Safe(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        session=session,
        facts=session.facts,
        name=summary.name,
        summary=summary,
        standing=standing(words, summary),
        blasts=blast_sentence(words, table),
        log=[row for row in session.audit_log() if row.action in HISTORY],
        table=table,
        galleries=galleries(cells, table),
        n_cells=len(cells),
        fields=fields,
        rejected=[field for field in fields if not field.accepted and not field.failed],
        failed=[field for field in fields if field.failed],
        scales=_scales(fields, words),
        pictures=lambda cell: _pictures(session, cell),
    )


class _Safe(str):
    """Text of our own that is HTML already."""

    def __html__(self) -> str:
        return self


def _scales(fields: list[FieldRow], words: Words) -> list[tuple[str, int, float, float]]:
    """(where the scale came from, fields, least, largest um_per_px), in order of first use."""
    found: dict[str, list[float]] = {}
    for field in fields:
        if field.um_per_px is not None:
            found.setdefault(field.scale_source or "", []).append(field.um_per_px)
    return [(_scale(source, words), len(values), min(values), max(values)) for source, values in found.items()]


def _pictures(session: Session, cell: CellRow) -> Pictures:
    try:
        crop, mask = _read(session.folder / cell.crop, "RGB"), _read(session.folder / cell.mask, "L")
    except (OSError, ValueError):
        # The counts stand in the database; a lost picture must not take the report with it.
        return Pictures("", "", "")
    maps = session.channel_maps(cell)
    height, width = crop.shape[:2]
    peaks = [((top.peak[0] + 0.5) / width, (top.peak[1] + 0.5) / height) for top in cell.top_channels[: len(maps)]]
    return Pictures(
        crop=_uri(Image.fromarray(shrink(crop, CROP_PX)), "JPEG"),
        outline=_uri(outline(shrink(mask, CROP_PX, smooth=False)), "PNG"),
        maps=_uri(map_strip(maps, peaks), "PNG") if len(maps) else "",
    )


def _read(path: Path, mode: str) -> Image8:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


def _uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=82, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _scale(source: str, words: Words) -> str:
    return words(f"report.scale_{source}") if words.knows(f"report.scale_{source}") else source


def _title(label: str, words: Words) -> str:
    """Heading of several cells; English alone makes its plurals by rule."""
    name = words.label(label)
    return f"{name}s" if words.language == "en" and label != UNIDENTIFIED else name


def _flag(flag: Flag, words: Words) -> str:
    return flag.text if words.language == "en" else flag_sentence(words, flag)


def _figure(value: Any) -> str:
    """A number as a person writes it: four significant digits, thousands set apart."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
