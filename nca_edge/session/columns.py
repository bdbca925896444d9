"""What a commit writes into the rows of a field and its cells."""

from __future__ import annotations

import json

from nca_edge.measure import kept
from nca_edge.records import CellReading, Reading
from nca_edge.session.files import pack_maps

# int(), float() and bool() below are no decoration: sqlite3 would store a NumPy scalar as its raw bytes.


def field_columns(reading: Reading) -> dict[str, object]:
    """Columns of ``field`` that a reading fills."""
    scale = reading.scale
    return {
        "accepted": bool(reading.accepted),
        "failed": bool(reading.failed),
        "reasons_json": json.dumps(reading.reasons),
        "focus": float(reading.focus),
        "um_per_px": None if scale is None else float(scale.um_per_px),
        "scale_source": None if scale is None else scale.source,
    }


def cell_columns(cell: CellReading) -> dict[str, object]:
    """Columns of ``cell`` that a cell of a reading fills."""
    detection, prediction, why = cell.detection, cell.prediction, cell.explanation
    box = detection.box
    tops = [(int(top.channel), float(top.relevance), (int(top.peak[0]), int(top.peak[1]))) for top in why.top_channels]
    return {
        "cell": int(cell.cell),
        "x": int(box.x),
        "y": int(box.y),
        "w": int(box.w),
        "h": int(box.h),
        "border": bool(detection.border),
        "score": float(detection.score),
        "model_label": prediction.label,
        "confidence": float(prediction.confidence),
        "unsure": bool(prediction.unsure),
        "counted": bool(cell.counted),
        "probabilities_json": json.dumps({label: float(p) for label, p in prediction.probabilities.items()}),
        "explained_label": why.label,
        "logit": float(why.logit),
        "bias_share": float(why.bias_share),
        "epsilon_share": float(why.epsilon_share),
        "top_channels_json": json.dumps(tops),
        "measures_json": json.dumps(kept(why)),
        "maps_png": pack_maps(why.top_channels),
    }
