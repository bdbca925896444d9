"""The differential: named cells -> counts, percentages and how sure they are.

The denominator is all leukocytes: the five groups, immature granulocytes, blasts, atypical lymphocytes and unidentified cells.
Erythroblasts and smudge cells stand outside, per 100 leukocytes; artefacts are listed and never counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

CONFIDENCE = 0.95
"""Of every interval."""
UNIDENTIFIED = "unidentified"
"""Row of the leukocytes that a person has yet to name."""
ARTEFACT = "artefact"
"""Anything that is no white cell."""

_LEUKOCYTES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("neutrophil", ("neutrophil_band", "neutrophil_segmented")),
    ("lymphocyte", ("lymphocyte", "lymphocyte_typical")),
    ("monocyte", ("monocyte",)),
    ("eosinophil", ("eosinophil",)),
    ("basophil", ("basophil",)),
    ("immature_granulocyte", ("promyelocyte", "myelocyte", "metamyelocyte")),
    ("blast", ("blast", "myeloblast")),
    ("lymphocyte_atypical", ("lymphocyte_atypical",)),
)
"""Rows of the denominator in the order of the report, and the classes that belong there unless the bundle says otherwise."""
_PARTED = ("neutrophil", "immature_granulocyte")
"""Rows whose classes are listed below them; elsewhere several classes are only other names of one."""
_OUTSIDE = (("erythroblast", ("erythroblast",)), ("smudge_cell", ("smudge_cell",)))
"""Rows beside the denominator."""


class Countable(Protocol):
    """What of a cell decides where it is counted."""

    @property
    def label(self) -> str:
        """Its class."""

    @property
    def unsure(self) -> bool:
        """A person has to name it."""

    @property
    def counted(self) -> bool:
        """False: cut by the field's edge."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the denominator."""

    name: str
    """Group or class, snake_case."""
    count: int | None
    """Cells; None: not reported, because the model does not know the class."""
    percent: int | None
    """Whole percent of all leukocytes, by largest remainder; None: not reported, or no leukocytes at all."""
    low: float | None
    """Lower end of the 95 % Clopper-Pearson interval, percent."""
    high: float | None
    """Upper end, percent."""
    parts: tuple[Row, ...] = ()
    """Its classes where they are told apart; their counts and percentages sum to its own."""


@dataclass(frozen=True, slots=True)
class OutsideRow:
    """One line beside the denominator."""

    name: str
    """Class, snake_case."""
    count: int | None
    """Cells; None: not reported."""
    per_100: float | None
    """Cells per 100 leukocytes; None: not reported, or no leukocytes at all."""


@dataclass(frozen=True, slots=True)
class Differential:
    """The table, and what a reader must know to trust it."""

    leukocytes: int
    """The denominator: all counted leukocytes, unidentified ones included."""
    rows: tuple[Row, ...]
    """What the denominator consists of; counts sum to it, whole percentages to 100."""
    outside: tuple[OutsideRow, ...]
    """Erythroblasts and smudge cells."""
    artefacts: int
    """Things that are no white cell."""
    border: int
    """Cells cut by a field's edge: listed, not counted."""
    blasts: int | None
    """Blasts among the leukocytes; None: the model does not know them."""
    blast_limit: float | None
    """With no blast seen: the named leukocytes exclude more than so many percent, at 95 %; else None."""

    @property
    def named(self) -> int:
        """Leukocytes that have a class, unidentified ones left out."""
        return self.leukocytes - sum(row.count or 0 for row in self.rows if row.name == UNIDENTIFIED)

    @property
    def blast_statement(self) -> str:
        """The sentence on blasts that belongs on every report."""
        if self.blasts is None:
            return "Blasts are not reported by this model: none in the table does not mean none on the slide."
        if self.blasts:
            return f"{self.blasts} suspected {'blast' if self.blasts == 1 else 'blasts'} among {self.leukocytes} leukocytes."
        if self.blast_limit is None:
            return "No leukocyte was named: nothing can be said about blasts."
        limit = f"{self.blast_limit_up:.1f}"
        return f"{self.named} cells without a blast exclude more than {limit} % at 95 %, if the model misses none."

    @property
    def blast_limit_up(self) -> float:
        """``blast_limit`` with one decimal, rounded up: a limit must not promise more than was seen."""
        return math.ceil(round((self.blast_limit or 0.0) * 10, 6)) / 10


def differential(cells: Iterable[Countable], classes: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Differential:
    """Count cells into the table.

    Parameters
    ----------
    cells : all cells of a session, also those that are not counted
    classes : the bundle's classes
    groups : group of the five-part differential -> its classes, from the bundle

    Returns
    -------
    Differential
        A leukocyte class that belongs to no row gets a row of its own before the unidentified: nothing is lost.
    """
    counts: Counter[str] = Counter()
    artefacts = border = 0
    for cell in cells:
        if cell.label == ARTEFACT:
            artefacts += 1
        elif not cell.counted:
            border += 1
        else:
            counts[UNIDENTIFIED if cell.unsure else cell.label] += 1
    known = set(classes) | set(counts)
    outside = [(name, [label for label in members if label in known]) for name, members in _OUTSIDE]
    aside = {label for _, members in outside for label in members} | {ARTEFACT}
    rows = _members(known - aside - {UNIDENTIFIED}, groups)
    n = sum(count for label, count in counts.items() if label not in aside)
    table = _table(rows, counts, n)
    blasts = next(row.count for row in table if row.name == "blast")
    named = n - counts[UNIDENTIFIED]
    return Differential(
        leukocytes=n,
        rows=table,
        outside=tuple(_outside(name, members, counts, n) for name, members in outside),
        artefacts=artefacts,
        border=border,
        blasts=blasts,
        blast_limit=exclusion_limit(named) if blasts == 0 and named else None,
    )


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson 1934, Biometrika 26:404).

    Parameters
    ----------
    k : how many of them, 0..n
    n : how many were looked at, at least 1

    Returns
    -------
    (low, high), 0..1
    """
    from scipy.special import betaincinv

    tail = (1.0 - confidence) / 2.0
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1.0 - tail)) if k < n else 1.0
    return low, high


def exclusion_limit(n: int, confidence: float = CONFIDENCE) -> float:
    """The share, percent, at and above which a kind of cell would have shown up among ``n`` cells (about 300 / n)."""
    return 100.0 * (1.0 - math.pow(1.0 - confidence, 1.0 / n))


def largest_remainder(counts: Sequence[int], n: int, total: int = 100) -> tuple[int, ...]:
    """Whole percentages of ``n`` that sum to ``total``, each less than 1 from the exact ``100 * count / n``.

    Parameters
    ----------
    counts : cells of each row
    n : the denominator of all percentages, at least 1
    total : 100 where the counts sum to ``n``; the whole percentage of a group where they are its parts
    """
    whole = [100 * count // n for count in counts]
    # Stable: where remainders are equal, the row that stands first is rounded up.
    order = sorted(range(len(counts)), key=lambda index: -(100 * counts[index] % n))
    for index in order[: total - sum(whole)]:
        whole[index] += 1
    return tuple(whole)


def _members(known: set[str], groups: Mapping[str, Sequence[str]]) -> list[tuple[str, list[str]]]:
    """(row, its classes) for every row; a class belongs to one row only, the bundle's word before ours."""
    left = set(known)
    found: dict[str, list[str]] = {}
    for source in (groups, dict(_LEUKOCYTES)):
        for name, members in source.items():
            mine = [label for label in members if label in left]
            found.setdefault(name, []).extend(mine)
            left.difference_update(mine)
    own = [(label, [label]) for label in sorted(left)]
    named = [name for name, _ in _LEUKOCYTES]
    return [(name, found[name]) for name in (*named, *(name for name in found if found[name] and name not in named))] + own


def _table(rows: Sequence[tuple[str, Sequence[str]]], counts: Counter[str], n: int) -> tuple[Row, ...]:
    """Rows of the denominator with ``unidentified`` last."""
    lines = [(name, _sum(members, counts)) for name, members in rows] + [(UNIDENTIFIED, counts[UNIDENTIFIED])]
    percents = _percents([count for _, count in lines], n, 100)
    members_of = dict(rows)
    return tuple(
        _row(name, count, percent, n, _parts(name, members_of.get(name, ()), counts, (n, percent)))
        for (name, count), percent in zip(lines, percents, strict=True)
    )


def _parts(name: str, members: Sequence[str], counts: Counter[str], whole: tuple[int, int | None]) -> tuple[Row, ...]:
    """Sub-rows; ``whole`` is (denominator, whole percentage of the group)."""
    if name not in _PARTED or not members:
        return ()
    usual = dict(_LEUKOCYTES)[name]
    labels = [*usual, *(label for label in members if label not in usual and label != name)]
    lines = [_sum([label] if label in members else [], counts) for label in labels]
    # A class named like its group (a coarse model) has no sub-row of its own, so there is nothing to share out.
    percents = _percents(lines, whole[0], whole[1] or 0) if name not in members else [None] * len(lines)
    return tuple(_row(*line, whole[0]) for line in zip(labels, lines, percents, strict=True))


def _percents(counts: Sequence[int | None], n: int, total: int) -> list[int | None]:
    if n == 0:
        return [None] * len(counts)
    whole = largest_remainder([count or 0 for count in counts], n, total)
    return [None if count is None else percent for count, percent in zip(counts, whole, strict=True)]


def _row(name: str, count: int | None, percent: int | None, n: int, parts: tuple[Row, ...] = ()) -> Row:
    if count is None or n == 0:
        return Row(name, count, percent, None, None, parts)
    low, high = clopper_pearson(count, n)
    return Row(name, count, percent, 100.0 * low, 100.0 * high, parts)


def _outside(name: str, members: Sequence[str], counts: Counter[str], n: int) -> OutsideRow:
    count = _sum(members, counts)
    return OutsideRow(name, count, None if count is None or n == 0 else 100.0 * count / n)


def _sum(members: Sequence[str], counts: Counter[str]) -> int | None:
    """Cells of several classes; None where the model knows none of them."""
    return sum(counts[label] for label in members) if members else None
