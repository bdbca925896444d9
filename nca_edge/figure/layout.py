"""The figure of one cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nca_edge import RESEARCH_USE
from nca_edge.drawing import CELL_COLOUR, NUCLEUS_COLOUR, overlay, stretch
from nca_edge.figure.primitives import (
    AGAINST,
    GAP,
    HAIR,
    INK,
    LINE,
    SOFT,
    Pen,
    Row,
    asked,
    bars,
    caption,
    font,
    key,
    named,
    paragraph,
    peaks,
    tiles,
    write,
)
from nca_edge.records import Explanation, Measures, Prediction, Scale, Shown

WIDTH, MARGIN, PICTURE = 1500, 40, 340
"""px of the figure, of its margin, of a picture of the cell."""
TOP, TABLES = 140, 545
"""px above the pictures, above the tables."""
DPI = 200
NO_CELL = "No cell is seen"
"""Instead of a class, over an image that is black, of one colour or nothing but noise."""
SCALES = {
    "given": "scale given by the user",
    "session": "scale of earlier fields",
    "red_cells": "scale estimated from the red cells",
    "cell_size": "scale estimated from the cell's own size",
    "view": "scale not known",
}
"""``Scale.source`` for people."""


@dataclass(frozen=True, slots=True)
class Case:
    """What one figure shows."""

    title: str
    """Name of the image."""
    model: str
    """Name of the model, its backend and precision."""
    shown: Shown
    prediction: Prediction
    scale: Scale
    flag: str | None = None
    """A warning that the reader must see; None: none."""
    no_cell: str | None = None
    """Why the image shows no cell; None where it shows one."""


def figure(case: Case) -> Image.Image:
    """The whole figure, RGB, ``WIDTH`` px wide."""
    relevance = relevance_rows(case.shown.explanation)
    probabilities = sorted(case.prediction.probabilities.items(), key=lambda item: -item[1])
    height = TABLES + 45 + LINE * max(len(relevance) + 1, len(probabilities), 13) + 50
    image = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    _heading(draw, case)
    _pictures(image, draw, case)
    _maps(image, draw, case.shown.explanation)
    bars(draw, (MARGIN, TABLES), _relevance_title(case.shown.explanation), relevance)
    bars(
        draw,
        (MARGIN + 500, TABLES),
        "Probability of each class",
        [(named(name), 100 * p) for name, p in probabilities],
        "{:.1f} %",
    )
    _measures(draw, (MARGIN + 1000, TABLES), case)
    write(draw, (MARGIN, height - 32), f"{RESEARCH_USE} Model {case.model}.", 17, SOFT)
    return image


def save(image: Image.Image, path: Path) -> None:
    """As PNG that prints at its true size."""
    image.save(path, dpi=(DPI, DPI), optimize=True)


def relevance_rows(explanation: Explanation) -> list[Row]:
    """What adds up to the logit: the top channels, all others together, the biases and the stabiliser, and the sum."""
    top = [(f"channel {c.channel}", c.relevance) for c in explanation.top_channels]
    absorbed = explanation.bias_share + explanation.epsilon_share
    rest = explanation.logit - absorbed - sum(value for _, value in top)
    return [*top, ("all other channels", rest), ("biases and stabiliser", absorbed), ("sum", explanation.logit)]


def _heading(draw: Pen, case: Case) -> None:
    p = case.prediction
    sure = f"{named(p.label)}, {100 * p.confidence:.0f} %{' - unsure, a person has to name it' if p.unsure else ''}"
    write(draw, (MARGIN, 24), NO_CELL if case.no_cell else sure, 36)
    below = f"{case.no_cell}. What the model makes of it:" if case.no_cell else asked(case.shown.explanation)
    write(draw, (MARGIN, 74), f"{case.title}: {below}", 20, SOFT, WIDTH - 2 * MARGIN)
    if case.flag:
        wide = font(20).getlength(case.flag)
        draw.rectangle((WIDTH - MARGIN - wide - 24, 28, WIDTH - MARGIN, 62), outline=AGAINST, width=3)
        write(draw, (WIDTH - MARGIN - int(wide) - 12, 33), case.flag, 20)
    draw.line((MARGIN, 108, WIDTH - MARGIN, 108), INK, 2)


def _pictures(image: Image.Image, draw: Pen, case: Case) -> None:
    shown, right = case.shown, MARGIN + PICTURE + GAP
    side = len(shown.crop)
    # the outline is drawn on the enlarged picture: on a small crop its lines would be as wide as the nucleus
    enlarged = Image.fromarray(shown.crop).resize((PICTURE, PICTURE), Image.Resampling.BICUBIC)
    mask = Image.fromarray(shown.explanation.mask).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
    outlined = overlay(np.asarray(enlarged), np.asarray(mask))
    image.paste(enlarged, (MARGIN, TOP))
    image.paste(Image.fromarray(outlined), (right, TOP))
    for left in (MARGIN, right):
        draw.rectangle((left - 1, TOP - 1, left + PICTURE, TOP + PICTURE), outline=HAIR)
    write(draw, (MARGIN, TOP - 26), "As it was seen, corrected", 18)
    if shown.explanation.mask.any():
        write(draw, (right, TOP - 26), "Its mask:", 18)
        key(draw, (right + 92, TOP - 23), CELL_COLOUR, "cell")
        key(draw, (right + 160, TOP - 23), NUCLEUS_COLOUR, "nucleus")
    else:
        write(draw, (right, TOP - 26), "No cell was outlined", 18)
    if case.scale.source != "view":
        bar = 5 / (side * case.scale.um_per_px) * PICTURE
        draw.line((MARGIN, TOP + PICTURE + 16, MARGIN + bar, TOP + PICTURE + 16), INK, 5)
        write(draw, (MARGIN + int(bar) + 10, TOP + PICTURE + 6), f"5 um ({SCALES[case.scale.source]})", 17, SOFT)


def _maps(image: Image.Image, draw: Pen, explanation: Explanation) -> None:
    left = MARGIN + 2 * (PICTURE + GAP) + 10
    write(draw, (left, TOP - 26), f"The {len(explanation.top_channels)} strongest channels, after the last step", 18)
    maps = np.stack([stretch(c.map) for c in explanation.top_channels])
    captions = [caption(c.channel, c.relevance) for c in explanation.top_channels]
    tiles(image, draw, (left, TOP), (maps, peaks(explanation)), captions)
    at = (left, TOP + PICTURE + 7)
    several = explanation.looks > 1
    words = f"Dark blue: a channel's least value, yellow: its largest. Ring: where it had its say{'' if several else '.'}"
    write(draw, at, words, 17, SOFT)
    if several:
        at = (left, TOP + PICTURE + 28)
        write(draw, at, f"(of {explanation.looks} looks, turned and mirrored, the one in which it said most).", 17, SOFT)


def _measures(draw: Pen, at: tuple[int, int], case: Case) -> None:
    """Size and shape, and the reason where they are not known."""
    left, top = at
    measures = case.shown.explanation.measures
    write(draw, (left, top), "Size and shape by the mask", 18)
    lines = measure_lines(measures)
    for n, (name, value) in enumerate(lines):
        y = top + 36 + n * LINE
        write(draw, (left, y), name, 18)
        write(draw, (left + 270, y), value, 18)
    y = top + 46 + len(lines) * LINE
    outside = case.shown.explanation.outside_share
    notes = [f"({measures.reason})"] if measures.reason else []
    notes += [f"({SCALES[case.scale.source]})"] if measures.area_um2 is not None and case.scale.source != "given" else []
    notes += [] if outside is None else [f"{100 * outside:.0f} % of what speaks for the class peaks outside the cell"]
    for note in notes:
        y = paragraph(draw, (left, y), note, 420) + 8


def measure_lines(measures: Measures) -> list[tuple[str, str]]:
    """Name and value with its unit; ``not known`` where there is none."""

    def told(value: float | None, digits: int, unit: str = "") -> str:
        return "not known" if value is None else f"{value:.{digits}f}{unit}"

    share = None if measures.nucleus_share is None else 100 * measures.nucleus_share
    return [
        ("area", told(measures.area_um2, 0, " um2")),
        ("equivalent diameter", told(measures.equivalent_diameter_um, 1, " um")),
        ("circularity", told(measures.circularity, 2)),
        ("nucleus", told(measures.nucleus_area_um2, 0, " um2")),
        ("nucleus, share of the cell", told(share, 0, " %")),
        ("nucleus to cytoplasm", told(measures.nucleus_cytoplasm_ratio, 2)),
    ]


def _relevance_title(explanation: Explanation) -> str:
    """What the bars are, and of how many looks."""
    total = "difference of logits" if explanation.against else "class logit"
    return f"Relevance, adds up to the {total}" + (f"; mean of {explanation.looks} looks" if explanation.looks > 1 else "")
