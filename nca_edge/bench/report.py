"""What a benchmark says to people: a table and a chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from nca_edge import RESEARCH_USE

WIDTH, LINE, MARGIN = 900, 30, 24
INK, FAINT, BARS = (25, 30, 40), (120, 125, 135), ((38, 98, 160), (110, 160, 210))
WRONG, ROOM = (176, 32, 32), 78
"""Colour and most letters of what is said in the place of a bar."""
PANEL = 90
PANELS = (
    ("cell_ms", "ms a cell", BARS[0]), ("temperature_c", "degrees C", (190, 80, 40)), ("frequency_mhz", "MHz", (60, 130, 90)),
)  # fmt: skip
"""What is drawn over time: key of a sample, unit, colour."""

HEADS = ("p50 ms", "p90 ms", "p99 ms", "of peak", "MB", "agrees")


def text(result: dict[str, Any]) -> str:
    """The table."""
    board, peak = result["board"], result["peak"]
    lines = [
        f"{board['cpu']}, {board['cpus']} CPUs, {board['os']}, Python {board['python']} (profile {board['profile']})",
        f"peak of this CPU, {result['threads']} threads: "
        + ("not known" if None in peak.values() else "float32 {:.0f}, int8 {:.0f} GMAC/s".format(*peak.values())),
        f"model {result['bundle']['name']}, {result['bundle']['gmac_per_cell']:.2g} GMAC a cell",
        "",
        f"{'backend':<13} {'precision':<9}" + "".join(f"{name:>9}" for name in HEADS),
    ]
    for row in result["results"]:
        head = f"{_backend(row):<13} {row['precision']:<9}"
        if not row["valid"]:
            lines.append(f"{head} {row['problem']}")
            continue
        cell = row["cell_ms"]
        share = "-" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"  # a GPU has another peak
        lines.append(
            f"{head}{cell['p50']:9.2f}{cell['p90']:9.2f}{cell['p99']:9.2f}{share:>9}"
            f"{row['peak_memory_mb']:9.0f}{row['agreement']:9.0%}"
        )
    if valid := [row for row in result["results"] if row["valid"]]:
        best = min(valid, key=lambda row: row["cell_ms"]["p50"])
        lines += ["", f"quickest here: {_backend(best)} {best['precision']}"]
    if staged := [row for row in valid if row["stage_ms"]]:
        lines += ["", *_stages(staged)]
    if result["prediction"]:
        lines += ["", *(f"PREDICTED, not measured, {p['board']}: {p['sentence']}" for p in result["prediction"])]
    lines += ["", *result["warnings"], RESEARCH_USE]
    return "\n".join(lines)


def _stages(rows: list[dict[str, Any]]) -> list[str]:
    """Where the time of a field goes: a line for each stage, a column for each variant."""
    names = list(dict.fromkeys(name for row in rows for name in row["stage_ms"]))

    def line(title: str, values: list[str]) -> str:
        return f"{title:<16}" + "".join(f"{value:>14}" for value in values)

    return [
        line("a field, ms", [_backend(row) for row in rows]),
        line("", [row["precision"] for row in rows]),
        *(line(name, [f"{row['stage_ms'].get(name, 0.0):.1f}" for row in rows]) for name in names),
        line("all", [f"{row['field_ms']:.0f}" for row in rows]),
        line("cells a minute", [f"{row['cells_per_minute']:.0f}" for row in rows]),
    ]


def _backend(row: dict[str, Any]) -> str:
    """With ONNX Runtime's provider."""
    return f"{row['backend']} {row['provider']}" if row.get("provider") else str(row["backend"])


def chart(result: dict[str, Any], path: Path) -> None:
    """A bar for the median and p90 of each variant, as PNG; over time where it was sustained."""
    rows = result["results"]
    samples = result["sustained"]["samples"] if result.get("sustained") else []
    panels = [p for p in PANELS if any(s[p[0]] is not None for s in samples)]
    height = 3 * MARGIN + LINE * (len(rows) + 4) + (PANEL + 30) * len(panels)
    image = Image.new("RGB", (WIDTH, height), "white")
    pen, font, small = ImageDraw.Draw(image), ImageFont.load_default(17), ImageFont.load_default(13)
    pen.text((MARGIN, MARGIN), f"One cell, ms: {result['bundle']['name']} on {result['board']['cpu']}", INK, font)
    valid = [row for row in rows if row["valid"]]
    quick = [row for row in valid if row["backend"] != "numpy"] or valid  # the reference would flatten all others
    longest = max((row["cell_ms"]["p90"] for row in quick), default=1.0)
    top, left, room = MARGIN + 2 * LINE, 190, WIDTH - 190 - 6 * MARGIN
    for n, row in enumerate(rows):
        y = top + n * LINE
        pen.text((MARGIN, y + 3), f"{_backend(row)} {row['precision']}", INK, font)
        if not row["valid"]:
            pen.text((left, y + 4), _cut(row["problem"]), WRONG, font)
            continue
        cell = row["cell_ms"]
        for key, colour in (("p90", BARS[1]), ("p50", BARS[0])):
            pen.rectangle((left, y + 4, left + room * min(1.0, cell[key] / longest), y + LINE - 8), colour)
        cut = ", cut" if cell["p90"] > longest else ""
        pen.text((left + room * min(1.0, cell["p90"] / longest) + 6, y + 4), f"{cell['p50']:.1f}{cut}", INK, font)
    foot = top + len(rows) * LINE + 6
    legend = f"threads: {result['threads']}; number and dark: half of the calls are quicker; light: nine of ten"
    pen.text((MARGIN, foot), legend, FAINT, small)
    for n, panel in enumerate(panels):
        y = foot + 40 + n * (PANEL + 30)
        _over_time(pen, samples, panel, (left, y, left + room, y + PANEL), small)
    pen.text((MARGIN, height - MARGIN - 8), RESEARCH_USE, FAINT, small)
    image.save(path)


def _cut(sentence: str) -> str:
    """What fits beside a name."""
    return sentence if len(sentence) <= ROOM else sentence[: ROOM - 3] + "..."


def _over_time(
    pen: ImageDraw.ImageDraw,
    samples: list[dict[str, Any]],
    panel: tuple[str, str, tuple[int, int, int]],
    box: tuple[float, float, float, float],
    font: Any,
) -> None:
    """One quantity against minutes, from 0 upwards."""
    (key, unit, colour), (left, upper, right, lower) = panel, box
    known = [(s["minute"], s[key]) for s in samples if s[key] is not None]
    last, most = max(samples[-1]["minute"], 1e-9), 1.15 * max(value for _, value in known)
    points = [(left + (right - left) * m / last, lower - (lower - upper) * value / most) for m, value in known]
    pen.rectangle(box, outline=FAINT)
    pen.line(points if len(points) > 1 else points * 2, colour, 2)
    pen.text((MARGIN, upper), unit, colour, font)
    pen.text((right + 6, points[-1][1] - 8), f"{known[-1][1]:.1f}", colour, font)
    pen.text((left, lower + 4), f"0 to {last:.1f} minutes without a pause", FAINT, font)
