"""The one way through the house: a field in, a reading out.

A field: quality gate -> illumination -> red cells and scale -> white cells -> views -> classify -> explain. A crop of one cell
joins at its view (``single_cell``). Everything is a generator; whoever iterates decides what is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from PIL import Image

from nca_edge.classifier import Classifier
from nca_edge.detect import white_cells
from nca_edge.explain import Question
from nca_edge.measure import measured
from nca_edge.neighbours import neighbours
from nca_edge.pieces import whole_cells
from nca_edge.preprocess import cell_view, correct, field_background, window
from nca_edge.quality import assess, assess_smear
from nca_edge.records import (
    Box,
    CellReading,
    Detection,
    Frame,
    FrameError,
    Image8,
    Image32,
    Quality,
    Reading,
    RedCells,
    Scale,
)
from nca_edge.scale import field_scale, red_cells
from nca_edge.stopwatch import Watch, untimed
from nca_edge.threads import allowed, both

ARTEFACT = "artefact"
CELL_DIAMETER_UM = 13.0
"""Typical white cell, for a field whose red cells say nothing."""
MIN_CROP_PX = 16
"""A crop of fewer pixels a side shows no cell."""
MAX_FIELD_PX = 2400
"""A longer field is read at a half, a third, ... of its size: at 4000 x 3000 px one took 22 s and 711 MB. Left is 0.2 um
a pixel for a 20-megapixel camera on a 40x lens, where the model sees 0.4."""
MIN_IMAGE_UM = 4.0
"""An image that spans less does not show a white cell."""
MIN_EARLIER, NEWEST = 3, 9
"""Fields whose red cells told the scale before the next one's are looked for near that size, and of how many its median is."""
BATCH = 16
"""Cells answered at once: a field may hold hundreds, and each state of the paper's model takes 2 MB."""


@dataclass(frozen=True, slots=True)
class Found:
    """Some cells of a field that are answered at once."""

    cells: tuple[Detection, ...]
    before: int
    """Cells of the field that came earlier."""
    scale: Scale
    every: tuple[Detection, ...]
    """All of the field, these among them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What two pictures of one field have in common: made of the first, it makes the second quicker to read."""

    light: Image32
    """Background surface, (height, width, 3) float32, of the size at which the field is read."""
    red: RedCells


def observe(
    frames: Iterable[Frame | FrameError],
    classifier: Classifier,
    um_per_px: float | None = None,
    known: Iterable[float] = (),
    watch: Watch = untimed,
) -> Iterator[Reading]:
    """Read fields one after the other.

    Parameters
    ----------
    um_per_px : scale given by the user; None: estimated from each field's red cells
    known : scales that earlier fields of the session gave, for a field with too few red cells
    watch : is told when each stage of a field begins and ends
    """
    scales = list(known)
    for frame in frames:
        if isinstance(frame, FrameError):
            yield _failed(frame.name, frame.reason)
            continue
        try:
            reading = read_field(frame, classifier, um_per_px, scales, watch)
        except MemoryError:
            reading = _failed(frame.name, "does not fit this machine's memory; export it smaller.")
        if reading.scale is not None and reading.scale.source == "red_cells":
            scales.append(reading.scale.um_per_px)
        yield reading


def prepare(rgb: Image8, threads: int, um_per_px: float | None, scales: list[float]) -> Prepared:
    """What ``read_field`` would find out first, from a picture of the same field taken a moment before."""
    small, factor = _reduced(rgb)
    given = um_per_px * factor if um_per_px is not None else None
    with allowed(threads):
        light = field_background(small)
        return Prepared(light, _red_cells(correct(small, light), given, [scale * factor for scale in scales]))


def read_field(
    frame: Frame,
    classifier: Classifier,
    um_per_px: float | None,
    scales: list[float],
    watch: Watch = untimed,
    prepared: Prepared | None = None,
) -> Reading:
    """One field. ``scales``: what earlier fields' red cells said. ``prepared``: of another picture of this field."""
    if max(frame.rgb.shape) > MAX_FIELD_PX:
        return _read_reduced_field(frame, classifier, um_per_px, scales, watch, prepared)
    with watch("light"), allowed(classifier.threads):
        corrected = correct(frame.rgb, field_background(frame.rgb) if prepared is None else prepared.light)
    with watch("gate"), allowed(classifier.threads):
        if prepared is None:
            quality, red = both(lambda: assess(frame.rgb, corrected), lambda: _red_cells(corrected, um_per_px, scales))
        else:
            quality, red = assess(frame.rgb, corrected), prepared.red
        quality = assess_smear(quality, red)
    if not quality.accepted:
        return _rejected(frame, quality)
    wrong = wrong_scale(um_per_px, frame.rgb, classifier.view_um)
    if wrong:
        return _rejected(frame, replace(quality, accepted=False, reasons=(wrong,)))
    with watch("detect"), allowed(classifier.threads):
        scale = _known_scale(um_per_px, red, scales)
        found = white_cells(corrected, red, scale.um_per_px if scale else None)
    scale = scale or _scale_of_cells(found, classifier.view_um, frame.rgb)
    cells: list[CellReading] = []
    for start in range(0, len(found), BATCH):
        batch = Found(tuple(found[start : start + BATCH]), start, scale, tuple(found))
        cells += _read_cells(corrected, batch, classifier, watch)
    return Reading(frame.name, True, (), False, quality.focus, scale, whole_cells(cells, scale.um_per_px))


def _reduced(rgb: Image8) -> tuple[Image8, int]:
    """A large field at a whole fraction of its size, and the whole number; others as they are."""
    factor = -(-max(rgb.shape[:2]) // MAX_FIELD_PX)
    return (rgb, 1) if factor == 1 else (np.asarray(Image.fromarray(rgb).reduce(factor)), factor)


def _read_reduced_field(
    frame: Frame,
    classifier: Classifier,
    um_per_px: float | None,
    scales: list[float],
    watch: Watch,
    prepared: Prepared | None,
) -> Reading:
    """Read a large field at a whole fraction of its size; scale and boxes are told in its own pixels, crops stay reduced."""
    height, width = frame.rgb.shape[:2]
    with watch("reduce"):
        rgb, factor = _reduced(frame.rgb)
    given = um_per_px * factor if um_per_px is not None else None
    small = Frame(frame.name, rgb)
    reading = read_field(small, classifier, given, [scale * factor for scale in scales], watch, prepared)
    cells = []
    for cell in reading.cells:
        x, y = cell.detection.box.x * factor, cell.detection.box.y * factor
        box = Box(x, y, min(cell.detection.box.w * factor, width - x), min(cell.detection.box.h * factor, height - y))
        cells.append(replace(cell, detection=replace(cell.detection, box=box)))
    scale = reading.scale and Scale(reading.scale.um_per_px / factor if um_per_px is None else um_per_px, reading.scale.source)
    return replace(reading, scale=scale, cells=tuple(cells))


def _read_cells(corrected: Image32, batch: Found, classifier: Classifier, watch: Watch) -> Iterator[CellReading]:
    """Name and explain some cells of a field."""
    centers, um_per_px = [d.box.center for d in batch.cells], batch.scale.um_per_px
    with watch("crop"):
        views = [cell_view(corrected, c, um_per_px, classifier.view_um, classifier.size) for c in centers]
    with watch("model"):
        looks = classifier.look(np.stack(views))
    for n, detection in enumerate(batch.cells):
        with watch("crop"):
            crop = window(corrected, centers[n], classifier.view_um / um_per_px)
        prediction = classifier.predict(looks[n])
        others = neighbours(detection, batch.every, um_per_px, classifier.view_um)
        explanation = classifier.explain(looks[n], crop, Question(prediction.label), watch, others)
        with watch("measure"):
            explanation = measured(explanation, batch.scale, centers[n], corrected.shape[:2])
        counted = prediction.label != ARTEFACT and not detection.border
        crop8 = np.round(crop * 255).astype(np.uint8)
        yield CellReading(batch.before + n + 1, detection, prediction, explanation, counted, crop8)


def wrong_scale(um_per_px: float | None, rgb: Image8, view_um: float) -> str | None:
    """Why a scale given by the user cannot be that of this image; None where it can. It bounds a view's size in px, too."""
    if um_per_px is None:
        return None
    width_um = min(rgb.shape[:2]) * um_per_px
    if width_um < MIN_IMAGE_UM:
        return f"at {um_per_px:g} um per pixel this image is {width_um:.2g} um wide, less than a white cell; check the scale."
    view_px = view_um / um_per_px
    if view_px < MIN_CROP_PX:
        return (
            f"at {um_per_px:g} um per pixel a white cell is {view_px / 2:.0f} pixels wide, too few to name it; check the scale."
        )
    return None


def _failed(name: str, reason: str) -> Reading:
    return Reading(name, False, (reason,), True, 0.0, None, ())


def _rejected(frame: Frame, quality: Quality) -> Reading:
    return Reading(frame.name, False, quality.reasons, False, quality.focus, None, ())


def _known_scale(um_per_px: float | None, red: RedCells, scales: list[float]) -> Scale | None:
    if um_per_px is not None:
        return Scale(um_per_px, "given")
    own = field_scale(red)
    if own is None and scales:
        return Scale(median(scales), "session")
    return own


def _red_cells(corrected: Image32, um_per_px: float | None, scales: list[float]) -> RedCells:
    return red_cells(corrected, um_per_px or _newest_um_per_px(scales), um_per_px is not None)


def _newest_um_per_px(scales: list[float]) -> float | None:
    """What the newest fields agree on, once there are a few: one lens has one scale, and after a change of it they are soon all
    of the new one."""
    return median(scales[-NEWEST:]) if len(scales) >= MIN_EARLIER else None


def _scale_of_cells(found: list[Detection], view_um: float, rgb: Image8) -> Scale:
    """Neither the user nor any red cell told the scale: take the white cells for typical ones."""
    whole = [d for d in found if not d.border]
    if whole:
        return Scale(CELL_DIAMETER_UM / median(float(np.sqrt(d.box.w * d.box.h)) for d in whole), "cell_size")
    return Scale(view_um / min(rgb.shape[:2]), "view")
