"""Two readers of one slide: do their differentials agree within what the chance of counting explains?"""

from __future__ import annotations

from dataclasses import dataclass

from nca_edge.differential import Differential, Row, clopper_pearson


@dataclass(frozen=True, slots=True)
class Compared:
    """One row of the differential, counted by two readers."""

    name: str
    """Row or class, snake_case."""
    first: int
    """Cells of the first reader."""
    second: int
    """Cells of the second reader."""
    percent: float
    """The second reader's share, percent."""
    low: int
    """Lower limit of the first reader's share, whole percent."""
    high: int
    """Upper limit, whole percent."""

    @property
    def agree(self) -> bool:
        """The second reader's share lies within the limits of the first's."""
        return self.low <= self.percent <= self.high


def compare(first: Differential, second: Differential) -> tuple[Compared, ...]:
    """Compare two differentials by the limits of Ruemke (1985, *Blood Cells* 11:303).

    The limits are the exact 95 % interval of the first reader's share, rounded outward to whole percent: of 9 in 100 cells they
    are 4 and 17. They hold for the first reader's chance alone, so that with as many cells of his own a second reader who sees
    the same slide lies outside more often than 1 time in 20: what they set apart is worth a look, not a proof.

    Returns
    -------
    tuple of Compared
        Rows and classes that both reported; empty where one of them counted no leukocyte.
    """
    if not first.leukocytes or not second.leukocytes:
        return ()
    theirs = {row.name: row for row in _all_rows(second)}
    found = []
    for row in _all_rows(first):
        other = theirs.get(row.name)
        if row.count is None or other is None or other.count is None:
            continue
        low, high = limits(row.count, first.leukocytes)
        found.append(Compared(row.name, row.count, other.count, 100 * other.count / second.leukocytes, low, high))
    return tuple(found)


def limits(k: int, n: int) -> tuple[int, int]:
    """Ruemke's limits of ``k`` among ``n`` cells, whole percent."""
    low, high = clopper_pearson(k, n)
    # A whisker against the last bit of a float: 100 % must not become 101.
    return int(100 * low + 1e-9), -int(-(100 * high - 1e-9) // 1)


def _all_rows(table: Differential) -> list[Row]:
    return [part for row in table.rows for part in (row, *row.parts)]
