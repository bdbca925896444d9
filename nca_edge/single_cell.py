"""An image of one cell in, a reading out: the way of ``pipeline`` from a cell's view on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from nca_edge.classifier import Classifier
from nca_edge.errors import InputError
from nca_edge.explain import Question
from nca_edge.measure import measured, seen_part, unoutlined
from nca_edge.pipeline import MIN_CROP_PX, wrong_scale
from nca_edge.preprocess import cell_view, correct, crop_background, window
from nca_edge.quality import nothing_in
from nca_edge.records import ChannelRelevance, Explanation, Image8, Image32, Prediction, Scale, Shown
from nca_edge.scale import crop_scale

MAX_CROP_PX = 1024
"""A longer crop is read at a half, a third, ... of its size: beyond this only memory and time grow."""


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
    wrong = wrong_scale(um_per_px, rgb, classifier.view_um)
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
