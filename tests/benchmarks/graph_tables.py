"""Tables of export/README.md from what ``graphs.py`` and ``nodes.py`` measured; a test checks that the page still has them."""

from __future__ import annotations

from typing import Any

FIRST, SECOND, DEPTHWISE = "first 1x1 layer", "second 1x1 layer", "depthwise convolutions"
NODES = {
    "first 1x1 layer": FIRST, "second": SECOND, "depthwise": DEPTHWISE, "add": "ScatterND", "gather": "Gather",
    "round": "QuantizeLinear", "concatenate": "Concat",
}  # fmt: skip
"""Column -> kind of node; the rest is told together."""


def latency_table(found: dict[str, Any]) -> str:
    """Markdown: what one cell takes, and how many times as long each plain model takes."""
    times = found["latency_ms"]
    plain = [name for what in ("PyTorch", "export") for name in times if name.startswith(f"plain {what}")]
    lines = [f"| | one cell | {' | '.join(f'{name} takes' for name in plain)} |", "|---|---|---|---|---|---|"]
    for name, ms in times.items():
        took = f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}"
        lines.append(f"| {name} | {took} ms | {' | '.join(f'{times[other] / ms:.1f}x' for other in plain)} |")
    return "\n".join(lines) + "\n"


def block_table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: a row for each variant, a column for each number of steps in a graph."""
    lengths = list(dict.fromkeys(name.partition(", ")[2] for name in rows))
    titles = [title.replace("1 steps", "1 step") if title.startswith("1 ") else title for title in lengths]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for variant in dict.fromkeys(name.partition(",")[0] for name in rows):
        cells = [rows[f"{variant}, {length}"] for length in lengths]
        shown = (f"{cell['latency_ms']:.1f} ms, {cell['bytes'] / 1000:.0f} kB" for cell in cells)
        lines.append(f"| {variant} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def company_table(found: dict[str, Any]) -> str:
    """Markdown: eight calls, and what part of them one call and one batch take."""
    lines = [f"| | {found['cells']} calls | one call | one batch in the graph |", "|---|---|---|---|"]
    for name, r in found["rows"].items():
        batch = f"{r['batch']:.2f} of it" if "batch" in r else "-"
        lines.append(f"| {name} | {r['calls_ms']:.0f} ms | {r['call']:.2f} of it | {batch} |")
    return "\n".join(lines) + "\n"


def node_table(automata: dict[str, Any]) -> str:
    """Markdown: a row for each automaton, ms of each kind of node, and its GMAC/s where it multiplies."""
    titles = ["preset", "call", "of the peak, GMAC/s", *NODES, "other"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, row in automata.items():
        nodes = row["nodes"]
        cells = [name, f"{row['call_cpu_ms']['median']:.1f}", f"{row['share_of_peak']:.0%} of {row['peak_gmac_per_s']:.0f}"]
        for key in NODES.values():
            node = nodes.get(key, {"ms": 0.0})
            cells.append(f"{node['ms']:.1f}" + (f", {node['gmac_per_s']:.0f}" if "gmac" in node else ""))
        cells.append(f"{sum(node['ms'] for key, node in nodes.items() if key not in NODES.values()):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def native_table(automata: dict[str, Any]) -> str:
    """Markdown: a row for each automaton and instruction set, what a call of the compiled step takes and its share."""
    titles = ["preset", "instructions", "call", "GMAC/s", "of the peak", "both at their best"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for preset, row in automata.items():
        for name, found in row.get("native", {}).items():
            ms, share = found["call_cpu_ms"]["median"], f"{found['share_of_peak']:.0%} of {row['peak_gmac_per_s']:.0f}"
            cells = [preset, name, f"{ms:.{1 if ms >= 10 else 2}f} ms", f"{found['gmac_per_s']:.0f}", share]
            best = f"{found['share_at_best']:.0%} of {row['peak_at_best_gmac_per_s']:.0f}"
            lines.append(f"| {' | '.join([*cells, best])} |")
    return "\n".join(lines) + "\n"
