"""Tables and shares as a model card writes them."""

from __future__ import annotations

from collections.abc import Sequence

from nca_edge.terminal import printable


def percent(share: float | None) -> str:
    """0.8374 -> ``83.7 %``."""
    return "-" if share is None else f"{100 * share:.1f} %"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; names of classes and data sets cannot break it."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(printable(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
