"""The one way through the house: a field or a crop in, a reading out.

A field: quality gate -> illumination -> red cells and scale -> white cells -> views -> classify -> explain. A crop of one cell
joins at its view. Everything is a generator; whoever iterates decides what is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from PIL import Image

from nca_edge.classifier import Classifier
from nca_edge.detect import white_cells
from nca_edge.errors import InputError
from nca_edge.explain import Question
from nca_edge.measure import measured, seen_part, unoutlined
from nca_edge.neighbours import neighbours
from nca_edge.preprocess import cell_view, correct, crop_background, field_background, window
from nca_edge.quality import assess, assess_smear, nothing_in
from nca_edge.records import (
    Box,
    CellReading,
    ChannelRelevance,
    Detection,
    Explanation,
    Frame,
    FrameError,
    Image8,
    Image32,
    Prediction,
    Quality,
    Reading,
    RedCells,
    Scale,
    Shown,
)
from nca_edge.scale import crop_scale, field_scale, red_cells
from nca_edge.stopwatch import Watch, untimed
from nca_edge.threads import allowed

ARTEFACT = "artefact"
CELL_DIAMETER_UM = 13.0
"""Typical white cell, for a field whose red cells say nothing."""
MIN_CROP_PX = 16
"""A crop of fewer pixels a side shows no cell."""
MAX_CROP_PX = 1024
"""A longer crop is read at a half, a third, ... of its size: beyond this only memory and time grow."""
MAX_FIELD_PX = 2400
"""A longer field likewise: at 4000 x 3000 px one took 22 s and 711 MB. What is left is 0.2 um a pixel for a 20-megapixel camera
on a 40x lens, where the model sees 0.4."""
MIN_IMAGE_UM = 4.0
"""An image that spans less does not show a white cell."""
BATCH = 16
"""Cells answered at once: a field may hold hundreds, and each state of the paper's model takes 2 MB."""


@dataclass(frozen=True, slots=True)
class CropReading:
    """One single-cell image, named and explained."""

    prediction: Prediction
    explanation: Explanation | None
    """Mask and peaks in pixels of the image as it was given; None where it was not asked for."""
    scale: Scale
    shown: Shown | None = None
    """What a picture of it needs; None where no explanation was asked for."""
    no_cell: str | None = None
    """Why the image shows no cell: its answer is unsure and nothing is outlined; None where it shows something."""


@dataclass(frozen=True, slots=True)
class Found:
    """Some cells of a field that are answered at once."""

    cells: tuple[Detection, ...]
    before: int
    """Cells of the field that came earlier."""
    scale: Scale
    every: tuple[Detection, ...]
    """All of the field, these among them."""


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


def read_field(
    frame: Frame, classifier: Classifier, um_per_px: float | None, scales: list[float], watch: Watch = untimed
) -> Reading:
    """One field. ``scales``: what earlier fields' red cells said."""
    if max(frame.rgb.shape) > MAX_FIELD_PX:
        return _read_reduced_field(frame, classifier, um_per_px, scales, watch)
    with watch("light"), allowed(classifier.threads):
        corrected = correct(frame.rgb, field_background(frame.rgb))
    with watch("gate"), allowed(classifier.threads):
        quality = assess(frame.rgb, corrected)
    if not quality.accepted:
        return _rejected(frame, quality)
    wrong = _wrong_scale(um_per_px, frame.rgb, classifier.view_um)
    if wrong:
        return _rejected(frame, replace(quality, accepted=False, reasons=(wrong,)))
    with watch("detect"), allowed(classifier.threads):
        red = red_cells(corrected, scale_known=um_per_px is not None)
        quality = assess_smear(quality, red)
        if not quality.accepted:
            return _rejected(frame, quality)
        scale = _known_scale(um_per_px, red, scales)
        found = white_cells(corrected, red, scale.um_per_px if scale else None)
    scale = scale or _scale_of_cells(found, classifier.view_um, frame.rgb)
    cells: list[CellReading] = []
    for start in range(0, len(found), BATCH):
        batch = Found(tuple(found[start : start + BATCH]), start, scale, tuple(found))
        cells += _read_cells(corrected, batch, classifier, watch)
    return Reading(frame.name, True, (), False, quality.focus, scale, tuple(cells))


def _read_reduced_field(
    frame: Frame, classifier: Classifier, um_per_px: float | None, scales: list[float], watch: Watch
) -> Reading:
    """Read a large field at a whole fraction of its size; scale and boxes are told in its own pixels, crops stay reduced."""
    height, width = frame.rgb.shape[:2]
    factor = -(-max(height, width) // MAX_FIELD_PX)
    with watch("reduce"):
        small = Frame(frame.name, np.asarray(Image.fromarray(frame.rgb).reduce(factor)))
    given = um_per_px * factor if um_per_px is not None else None
    reading = read_field(small, classifier, given, [scale * factor for scale in scales], watch)
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


def _wrong_scale(um_per_px: float | None, rgb: Image8, view_um: float) -> str | None:
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


def _scale_of_cells(found: list[Detection], view_um: float, rgb: Image8) -> Scale:
    """Neither the user nor any red cell told the scale: take the white cells for typical ones."""
    whole = [d for d in found if not d.border]
    if whole:
        return Scale(CELL_DIAMETER_UM / median(float(np.sqrt(d.box.w * d.box.h)) for d in whole), "cell_size")
    return Scale(view_um / min(rgb.shape[:2]), "view")


def read_crop(
    rgb: Image8,
    classifier: Classifier,
    um_per_px: float | None = None,
    explain: bool = True,
    asked: Question = Question(),  # noqa: B008  (frozen)
) -> CropReading:
    """One image of one cell; the answer depends on this image (and a given scale) alone.

    Parameters
    ----------
    asked : which class is explained; by default the one that the model names

    Raises
    ------
    InputError
        The image is too small or too narrow to show a cell, or the given scale cannot be its own.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_CROP_PX:
        raise InputError(f"{width} x {height} pixels are too few to show a cell; at least {MIN_CROP_PX} a side are needed.")
    wrong = _wrong_scale(um_per_px, rgb, classifier.view_um)
    if wrong:
        raise InputError(wrong)
    if max(height, width) > MAX_CROP_PX:
        return _read_reduced(rgb, classifier, um_per_px, explain, asked)
    corrected = correct(rgb, crop_background(rgb))
    scale = Scale(um_per_px, "given") if um_per_px is not None else crop_scale(corrected, classifier.view_um)
    center = (width / 2, height / 2)
    view = cell_view(corrected, center, scale.um_per_px, classifier.view_um, classifier.size)
    (seen,) = classifier.look(view[None])
    no_cell = nothing_in(rgb, corrected)
    prediction = classifier.predict(seen)
    prediction = replace(prediction, unsure=prediction.unsure or no_cell is not None)
    if not explain:
        return CropReading(prediction, None, scale, no_cell=no_cell)
    crop = window(corrected, center, classifier.view_um / scale.um_per_px)
    seen = classifier.look_again(seen, view, asked.looks)  # the answer is given; more looks only steady the explanation
    explanation = classifier.explain(seen, crop, asked.of(prediction.label))
    explanation = unoutlined(explanation) if no_cell else measured(explanation, scale, center, (height, width))
    shown = Shown(np.round(crop * 255).astype(np.uint8), view, explanation)
    return CropReading(prediction, _on_image(explanation, corrected, center), scale, shown, no_cell)


def _read_reduced(rgb: Image8, classifier: Classifier, um_per_px: float | None, explain: bool, asked: Question) -> CropReading:
    """Read a large crop at a whole fraction of its size; scale, mask and peaks are told for the crop as it was given."""
    height, width = rgb.shape[:2]
    factor = -(-max(height, width) // MAX_CROP_PX)
    small = np.asarray(Image.fromarray(rgb).reduce(factor))
    if min(small.shape[:2]) < MIN_CROP_PX:
        raise InputError(f"{width} x {height} pixels are too narrow a strip to show a cell; cut the image to the cell.")
    reading = read_crop(small, classifier, um_per_px * factor if um_per_px is not None else None, explain, asked)
    scale = Scale(reading.scale.um_per_px / factor if um_per_px is None else um_per_px, reading.scale.source)
    if reading.explanation is None:
        return replace(reading, scale=scale)
    mask = reading.explanation.mask.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
    top = tuple(
        replace(c, peak=(min(c.peak[0] * factor + factor // 2, width - 1), min(c.peak[1] * factor + factor // 2, height - 1)))
        for c in reading.explanation.top_channels
    )
    return replace(reading, scale=scale, explanation=replace(reading.explanation, mask=mask, top_channels=top))


def _on_image(explanation: Explanation, image: Image32, center: tuple[float, float]) -> Explanation:
    """Move mask and peaks from the view's square to the image around it."""
    height, width = image.shape[:2]
    side = len(explanation.mask)
    x0, y0 = round(center[0] - side / 2), round(center[1] - side / 2)
    mask = np.zeros((height, width), np.uint8)
    xa, ya, xb, yb = seen_part(center, side, (height, width))
    mask[ya + y0 : yb + y0, xa + x0 : xb + x0] = explanation.mask[ya:yb, xa:xb]

    def moved(channel: ChannelRelevance) -> ChannelRelevance:
        x, y = channel.peak[0] + x0, channel.peak[1] + y0
        return replace(channel, peak=(min(max(x, 0), width - 1), min(max(y, 0), height - 1)))

    return replace(explanation, mask=mask, top_channels=tuple(moved(c) for c in explanation.top_channels))
