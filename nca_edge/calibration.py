"""What is known of one microscope: its light, its colour and its scale, as ``nca-edge calibrate`` found them.

Two files side by side. ``NAME.json``::

    {"schema": 1, "kind": "nca-edge calibration", "microscope": NAME, "created": UTC, "source": URI,
     "size": [width, height], "um_per_px": X, "um_per_px_range": [low, high], "scale_fields": n, "red_cells": n,
     "white": [R, G, B], "light": "NAME.light.png", "light_sha256": HASH, "settings": {of the camera},
     "notice": "Research use only. ..."}

``NAME.light.png``: RGB, 8 bits, what the camera sees of an empty slide, reduced (it is smooth), of any size. ``um_per_px`` is
of a frame of ``size``; null where the red cells did not tell it. A session keeps the whole of it, the picture as base64.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.errors import InputError, UsageError
from nca_edge.records import Image8

SCHEMA, KIND = 1, "nca-edge calibration"
LIGHT_PX = 160
"""Long side of the stored light: as fine as it is fitted."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """One microscope."""

    microscope: str
    """Name: letters, digits, ``-``, ``_`` and ``.``."""
    source: str
    """URI of the camera that was calibrated."""
    size: tuple[int, int]
    """(width, height) of its frames, px."""
    um_per_px: float | None
    """Scale; None: the red cells did not tell."""
    um_per_px_range: tuple[float, float] | None
    """Range in which it lies, at about 95 %: see ``live.calibrate``."""
    scale_fields: int
    """Fields whose red cells told the scale."""
    red_cells: int
    """Red cells in them."""
    white: tuple[float, float, float]
    """Colour of the empty slide where it is brightest, R, G, B, 0..255."""
    light: Image8
    """(h, w, 3) uint8, what the camera sees of an empty slide, long side at most ``LIGHT_PX``."""
    settings: Mapping[str, Any]
    """What the camera was set to."""
    created: str = ""
    """UTC; empty: now."""

    def light_of(self, size: tuple[int, int]) -> Image8:
        """The light at the size of a frame, (height, width, 3) uint8.

        Raises
        ------
        UsageError
            The frame has another shape than the calibrated camera's.
        """
        if abs(size[0] * self.size[1] - size[1] * self.size[0]) > 0.01 * size[0] * self.size[1]:
            raise UsageError(
                f"The calibration of {self.microscope} is for frames of {self.size[0]} x {self.size[1]}, this camera gives "
                f"{size[0]} x {size[1]}: calibrate again, or set the camera to that size."
            )
        return np.asarray(Image.fromarray(self.light).resize(size, Image.Resampling.BICUBIC))

    def document(self) -> dict[str, Any]:
        """Everything as JSON, the light inside: what a session keeps."""
        png = _png(self.light)
        return {
            "schema": SCHEMA, "kind": KIND, "microscope": self.microscope, "created": self.created or _now(),
            "source": self.source, "size": list(self.size), "um_per_px": self.um_per_px,
            "um_per_px_range": None if self.um_per_px_range is None else list(self.um_per_px_range),
            "scale_fields": self.scale_fields, "red_cells": self.red_cells, "white": list(self.white),
            "light_sha256": hashlib.sha256(png).hexdigest(), "light_png": base64.b64encode(png).decode(),
            "settings": dict(self.settings), "notice": RESEARCH_USE,
        }  # fmt: skip

    def write(self, path: Path) -> None:
        """Write both files, each in one step."""
        document = self.document()
        png = base64.b64decode(document.pop("light_png"))
        light = path.with_name(f"{path.stem}.light.png")
        document["light"] = light.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for place, data in ((light, png), (path, (json.dumps(document, indent=2) + "\n").encode())):
                part = place.with_name(place.name + ".part")
                part.write_bytes(data)
                os.replace(part, place)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}): choose another place with --out.") from error


def config_folder() -> Path:
    """Where calibrations lie unless told otherwise."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(home) / "nca-edge" / "microscopes"


def calibration_path(name: str) -> Path:
    """File of a microscope in the user's folder; UsageError for a name that is none."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise UsageError(f"{name!r} is no name of a microscope: use letters, digits, - and _.")
    return config_folder() / f"{name}.json"


def read_calibration(path: Path) -> Calibration:
    """Read both files; ``path`` is the JSON, or the name of a microscope in the user's folder.

    Raises
    ------
    UsageError
        They are missing, damaged, changed, or of a newer version.
    """
    if not path.exists() and path.suffix != ".json" and len(path.parts) == 1:
        path = calibration_path(str(path))
    try:
        document = json.loads(path.read_text("utf-8"))
        if not isinstance(document, dict):
            raise UsageError(f"{path} is no calibration: give a file that nca-edge calibrate wrote.")
        if isinstance(document.get("light"), str):
            document["light_png"] = base64.b64encode((path.parent / Path(document["light"]).name).read_bytes()).decode()
    except OSError as error:
        raise UsageError(f"{error.filename or path}: cannot be read ({error.strerror}); calibrate again.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no calibration ({error}): give a file that nca-edge calibrate wrote.") from error
    return of_document(document, str(path))


def of_document(document: Mapping[str, Any], where: str) -> Calibration:
    """The inverse of ``Calibration.document``; UsageError, which begins with ``where``, for what is none."""
    if document.get("kind") != KIND:
        raise UsageError(f"{where} is no calibration: give a file that nca-edge calibrate wrote.")
    if document.get("schema") != SCHEMA:
        raise UsageError(f"{where} was written by a newer nca-edge: update nca-edge, or calibrate again.")
    try:
        png = base64.b64decode(document["light_png"], validate=True)
        if hashlib.sha256(png).hexdigest() != document["light_sha256"]:
            raise UsageError(f"{where}: the picture of the light was changed or damaged; calibrate again.")
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            light = np.asarray(image.convert("RGB"), np.uint8)
        width, height = (int(n) for n in document["size"])
        red, green, blue = (float(v) for v in document["white"])
        scale, span = document["um_per_px"], document["um_per_px_range"]
        return Calibration(
            str(document["microscope"]), str(document["source"]), (width, height), None if scale is None else float(scale),
            None if span is None else (float(span[0]), float(span[1])), int(document["scale_fields"]),
            int(document["red_cells"]), (red, green, blue), light, dict(document["settings"]), str(document["created"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OSError, IndexError) as error:
        raise UsageError(f"{where} is damaged ({type(error).__name__}: {error}); calibrate again.") from error


def _png(pixels: Image8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
