"""cells.jsonl, fields.jsonl and cells.csv: what scripts and spreadsheets read, made from rows alone.

The same rows give the same bytes: fixed key order, rounded numbers, no times, ids or absolute paths.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence

from nca_edge.session.rows import CellRow, FieldRow

CELLS_JSONL = "cells.jsonl"
FIELDS_JSONL = "fields.jsonl"
CELLS_CSV = "cells.csv"
REPORT_HTML = "report.html"

DIGITS = 6
"""Decimals of every number: finer than any of them is known, coarse enough to read."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet may run text that begins so."""


def cells_jsonl(cells: Iterable[CellRow]) -> Iterator[bytes]:
    """One line a cell."""
    return (_line(cell_object(cell)) for cell in cells)


def fields_jsonl(fields: Iterable[FieldRow]) -> Iterator[bytes]:
    """One line a field, also those that were rejected or failed."""
    return (_line(field_object(field)) for field in fields)


def cell_object(cell: CellRow) -> dict[str, object]:
    """A line of cells.jsonl as a dictionary (DESIGN section 5); ``human_label`` and ``reviewed_by`` once a person spoke."""
    value: dict[str, object] = {
        "field": cell.field,
        "cell": cell.cell,
        "box": [cell.box.x, cell.box.y, cell.box.w, cell.box.h],
        "label": cell.label,
        "confidence": _number(cell.confidence),
        "unsure": cell.unsure,
        "counted": cell.counted,
        "border": cell.border,
        "probabilities": {label: _number(p) for label, p in cell.probabilities.items()},
        "top_channels": [
            {"channel": top.channel, "relevance": _number(top.relevance), "peak": list(top.peak)} for top in cell.top_channels
        ],
        "mask": cell.mask,
        "crop": cell.crop,
        "overlay": cell.overlay,
        "focus": _number(cell.focus),
        "um_per_px": _number(cell.um_per_px),
        "scale_source": cell.scale_source,
    }
    if cell.reviewed:
        value |= {"human_label": cell.human_label, "reviewed_by": cell.reviewed_by}
    return value


def field_object(field: FieldRow) -> dict[str, object]:
    """A line of fields.jsonl as a dictionary (DESIGN section 5); with ``voided`` where a person took the field back."""
    value: dict[str, object] = {
        "field": field.name,
        "accepted": field.accepted,
        "reasons": list(field.reasons),
        "n_cells": field.n_cells,
        "um_per_px": _number(field.um_per_px),
    }
    return value | {"voided": True} if field.voided else value


def cells_csv(cells: Iterable[CellRow], classes: Sequence[str]) -> Iterator[bytes]:
    """A heading and one row a cell, with one column of probability per class; true is 1, false is 0.

    Once a person has looked at a cell, two columns more tell what she said.
    """
    listed = tuple(cells)
    reviewed = any(cell.reviewed for cell in listed)
    spoken = ["human_label", "reviewed_by"] if reviewed else []
    yield csv_row([*_CSV_HEAD, *(f"p_{label}" for label in classes), *spoken])
    for cell in listed:
        box, flags = cell.box, (cell.unsure, cell.counted, cell.border)
        head = [cell.field, cell.cell, box.x, box.y, box.w, box.h, cell.label, _number(cell.confidence), *map(int, flags)]
        tail = [_number(cell.focus), _number(cell.um_per_px), cell.scale_source, cell.crop, cell.mask, cell.overlay]
        said = [cell.human_label, cell.reviewed_by] if reviewed else []
        yield csv_row([*head, *tail, *(_number(cell.probabilities.get(label)) for label in classes), *said])


_CSV_HEAD = ("field", "cell", "x", "y", "w", "h", "label", "confidence", "unsure", "counted", "border") + (
    "focus", "um_per_px", "scale_source", "crop", "mask", "overlay",
)  # fmt: skip


def _line(value: dict[str, object]) -> bytes:
    # ASCII escapes: file names hold line separators that some readers split at, and bytes that are no Unicode.
    return (json.dumps(value, allow_nan=False) + "\n").encode("ascii")


def _number(value: float | None) -> float | None:
    """Rounded, without a negative zero; None for what JSON cannot say."""
    if value is None or not math.isfinite(value):
        return None
    return round(value, DIGITS) + 0.0


def csv_row(values: Sequence[object]) -> bytes:
    """One line; text that a spreadsheet would run begins with an apostrophe."""
    buffer = io.StringIO()
    # With \n as its terminator the writer would leave a lone \r unquoted, and half of a name would begin a row of its own.
    csv.writer(buffer, lineterminator="\r\n").writerow([_safe(value) for value in values])
    return (buffer.getvalue().removesuffix("\r\n") + "\n").encode("utf-8", "backslashreplace")


def _safe(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
