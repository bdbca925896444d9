"""What in a differential asks for a second look; the limits stand in flags.toml, which says how it is written."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from nca_edge.differential import Differential
from nca_edge.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[flag]]`` of the file."""

    name: str
    """snake_case."""
    text: str
    """For people."""
    rows: tuple[str, ...] = ()
    """Rows and classes whose cells are added up."""
    cells_above: float | None = None
    """Flagged with more cells than this."""
    per_100_above: float | None = None
    """Flagged with more cells per 100 leukocytes than this."""
    below_target: bool = False
    """Flagged with fewer leukocytes than the session's target."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A limit that was exceeded."""

    name: str
    """As ``Rule.name``."""
    text: str
    """For people."""
    count: int
    """Cells that raised it; the leukocytes counted, where they are below the target."""


def load_rules(path: Path | None = None) -> tuple[Rule, ...]:
    """The rules of a file; without one, those of nca-edge.

    Raises
    ------
    UsageError
        The file cannot be read, or a rule in it cannot be applied: says which and why.
    """
    place = files("nca_edge") / "flags.toml" if path is None else path
    try:
        table = tomllib.loads(place.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--flags {path}: cannot be read as TOML ({error}); mend the file.") from error
    listed = table.get("flag")
    if set(table) != {"flag"} or not isinstance(listed, list) or not listed:
        raise UsageError(f"--flags {path}: holds something else than tables [[flag]]; compare it with the one of nca-edge.")
    rules = tuple(_rule(one, f"--flags {path}: flag {number}") for number, one in enumerate(listed, start=1))
    if len({rule.name for rule in rules}) < len(rules):
        raise UsageError(f"--flags {path}: two flags have one name; give each its own.")
    return rules


def raised(rules: Iterable[Rule], table: Differential, target: int | None = None) -> tuple[Flag, ...]:
    """Flags of a differential, in the order of the rules.

    Parameters
    ----------
    target : leukocytes that were to be counted; None: as many as there were
    """
    counts = {part.name: part.count or 0 for row in table.rows for part in (row, *row.parts)}
    counts |= {row.name: row.count or 0 for row in table.outside}
    found = []
    for rule in rules:
        if rule.below_target:
            if target is not None and table.leukocytes < target:
                found.append(Flag(rule.name, f"{rule.text}: {table.leukocytes} of {target}", table.leukocytes))
            continue
        n = sum(counts.get(name, 0) for name in rule.rows)
        # Whole numbers are compared: 5 of 100 are not more than 5 per 100, whatever a division makes of them.
        over = n > rule.cells_above if rule.cells_above is not None else 100 * n > (rule.per_100_above or 0) * table.leukocytes
        if over:
            found.append(Flag(rule.name, f"{rule.text}: {n}", n))
    return tuple(found)


def _rule(table: Any, where: str) -> Rule:
    if not isinstance(table, dict) or not all(isinstance(table.get(name), str) and table[name] for name in ("name", "text")):
        raise UsageError(f"{where}: needs a name and a text.")
    unknown = sorted(set(table) - {"name", "text", "rows", "cells_above", "per_100_above", "below_target"})
    if unknown:
        raise UsageError(f"{where}: {unknown[0]} is no setting of a flag.")
    limits = [name for name in ("cells_above", "per_100_above", "below_target") if name in table]
    if len(limits) != 1:
        raise UsageError(f"{where}: needs one limit, cells_above, per_100_above or below_target.")
    if limits == ["below_target"]:
        if table["below_target"] is not True or "rows" in table:
            raise UsageError(f"{where}: below_target is true, and has no rows.")
        return Rule(table["name"], table["text"], below_target=True)
    rows, limit = table.get("rows"), table[limits[0]]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, str) for row in rows):
        raise UsageError(f"{where}: rows is a list of rows of the differential.")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < 1e6:
        raise UsageError(f"{where}: {limits[0]} is a number from 0.")
    cells = limit if limits == ["cells_above"] else None
    return Rule(table["name"], table["text"], tuple(rows), cells, None if cells is not None else limit)
