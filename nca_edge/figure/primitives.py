"""Words, bars and rows of maps: what every figure is made of."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from nca_edge.drawing import map_strip
from nca_edge.errors import UsageError
from nca_edge.records import Explanation, Image8

INK, SOFT, HAIR = (17, 17, 17), (80, 80, 80), (190, 190, 190)
FOR, AGAINST = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion of Okabe and Ito: what speaks for the class and what against it."""
TILE, GAP, COLUMNS = 128, 15, 5
"""px of a channel's map, px between two of them, maps side by side."""
LINE = 27
"""px from one line of a table to the next."""
Colour = tuple[int, int, int]
Pen = ImageDraw.ImageDraw
Row = tuple[str, float]


def write(draw: Pen, at: tuple[int, int], text: str, size: int, ink: Colour = INK, width: int = 10**6) -> None:
    """One line, cut off where it is too long; the font that comes with Pillow knows ASCII alone."""
    text = text.encode("ascii", "backslashreplace").decode("ascii")
    letters = font(size)
    if letters.getlength(text) > width:
        too_long = bisect_left(range(len(text)), True, key=lambda n: letters.getlength(f"{text[:n]}...") > width)
        text = text[: max(0, too_long - 1)] + "..."
    draw.text(at, text, ink, letters)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font inside Pillow: the same on every board."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise UsageError("pictures need a Pillow that was built with FreeType: install Pillow from its wheel.")
    return found


def paragraph(draw: Pen, at: tuple[int, int], text: str, width: int) -> int:
    """Words in lines of at most ``width`` px; returns where the next line would stand."""
    line, y = "", at[1]
    for word in text.split():
        if line and font(17).getlength(f"{line} {word}") > width:
            write(draw, (at[0], y), line, 17, SOFT)
            line, y = word, y + 22
        else:
            line = f"{line} {word}".strip()
    write(draw, (at[0], y), line, 17, SOFT)
    return y + 22


def key(draw: Pen, at: tuple[int, int], colour: Colour, name: str) -> None:
    draw.rectangle((at[0], at[1], at[0] + 15, at[1] + 15), outline="black", fill=colour, width=1)
    write(draw, (at[0] + 22, at[1] - 3), name, 18)


def bars(draw: Pen, at: tuple[int, int], title: str, rows: list[Row], form: str = "{:+.2f}") -> None:
    """Names, bars from a common zero and numbers; what is negative is hatched."""
    left, top = at
    write(draw, (left, top), title, 18)
    low, high = min(0.0, *(value for _, value in rows)), max(1e-9, *(value for _, value in rows))
    start, room = left + 195, 180
    zero = start - low / (high - low) * room
    for n, (name, value) in enumerate(rows):
        y = top + 36 + n * LINE
        if name == "sum":
            draw.line((left, y - 3, start + room + 80, y - 3), INK, 1)
        write(draw, (left, y), name, 18, width=190)
        x = zero + value / (high - low) * room
        bar(draw, (min(x, zero), y + 3, max(x, zero), y + 19), value < 0)
        write(draw, (start + room + 10, y), form.format(value), 18)
    draw.line((zero, top + 32, zero, top + 34 + len(rows) * LINE), INK, 1)


def bar(draw: Pen, box: tuple[float, float, float, float], against: bool) -> None:
    left, top, right, bottom = box
    if right - left < 1:
        return
    if not against:
        draw.rectangle(box, fill=FOR)
        return
    draw.rectangle(box, outline=AGAINST, width=2)
    for x in range(int(left), int(right), 5):
        length = min(bottom - top, right - x)
        draw.line((x, bottom, x + length, bottom - length), AGAINST, 2)


def tiles(
    image: Image.Image,
    draw: Pen,
    at: tuple[int, int],
    maps: tuple[Image8, list[tuple[float, float]]],
    captions: list[str],
) -> None:
    """Maps with rings and captions, ``COLUMNS`` side by side."""
    for first in range(0, len(captions), COLUMNS):
        top, row = at[1] + first // COLUMNS * (TILE + 46), slice(first, first + COLUMNS)
        image.paste(map_strip(maps[0][row], maps[1][row], TILE, GAP).convert("RGB"), (at[0], top))
        for n, caption in enumerate(captions[row]):
            write(draw, (at[0] + n * (TILE + GAP), top + TILE + 5), caption, 18)


def peaks(explanation: Explanation) -> list[tuple[float, float]]:
    side = len(explanation.mask)
    return [((c.peak[0] + 0.5) / side, (c.peak[1] + 0.5) / side) for c in explanation.top_channels]


def caption(channel: int, relevance: float) -> str:
    return f"{channel}: {relevance:+.2f}"


def named(label: str) -> str:
    return label.replace("_", " ").capitalize()


def asked(explanation: Explanation) -> str:
    if explanation.against:
        return f"why {named(explanation.label).lower()} and not {named(explanation.against).lower()}"
    return f"why {named(explanation.label).lower()}"
