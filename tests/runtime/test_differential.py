"""Counts, percentages and intervals, as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nca_edge.differential import (
    Differential,
    OutsideRow,
    Row,
    clopper_pearson,
    differential,
    exclusion_limit,
    largest_remainder,
)

PBC = (
    "basophil", "eosinophil", "erythroblast", "promyelocyte", "myelocyte", "metamyelocyte", "neutrophil_band",
    "neutrophil_segmented", "monocyte", "lymphocyte", "artefact",
)  # fmt: skip
GROUPS = {
    "neutrophil": ("neutrophil_band", "neutrophil_segmented"),
    "lymphocyte": ("lymphocyte",),
    "monocyte": ("monocyte",),
    "eosinophil": ("eosinophil",),
    "basophil": ("basophil",),
}


@dataclass
class Cell:
    label: str
    unsure: bool = False
    counted: bool = True


def cells(**counts: int) -> list[Cell]:
    return [Cell(label) for label, count in counts.items() for _ in range(count)]


def row(table: Differential, name: str) -> Row:
    return next(line for line in table.rows if line.name == name)


# The table in notes/clinical.md.
LIMITS = {
    (0, 100): (0.00, 3.62), (0, 200): (0.00, 1.83), (0, 400): (0.00, 0.92),
    (1, 100): (0.03, 5.45), (2, 200): (0.12, 3.57), (4, 400): (0.27, 2.54),
    (5, 100): (1.64, 11.28), (10, 200): (2.42, 9.00), (20, 400): (3.08, 7.62),
    (9, 100): (4.20, 16.40), (18, 200): (5.42, 13.85), (36, 400): (6.38, 12.24),
    (20, 100): (12.67, 29.18), (40, 200): (14.69, 26.22), (80, 400): (16.19, 24.26),
    (50, 100): (39.83, 60.17), (100, 200): (42.87, 57.13), (200, 400): (44.99, 55.01),
    (60, 100): (49.72, 69.67), (120, 200): (52.85, 66.85), (240, 400): (55.01, 64.84),
}  # fmt: skip


@pytest.mark.parametrize(("counted", "limits"), LIMITS.items())
def test_clopper_pearson_gives_the_known_table(counted: tuple[int, int], limits: tuple[float, float]) -> None:
    assert tuple(round(100 * end, 2) for end in clopper_pearson(*counted)) == limits


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_leaves_the_tails_of_the_binomial(counted: tuple[int, int]) -> None:
    k, n = counted

    def probability(of: range, p: float) -> float:
        return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in of)

    low, high = clopper_pearson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert low == 0 if k == 0 else probability(range(k, n + 1), low) == pytest.approx(0.025, rel=1e-7)
    assert high == 1 if k == n else probability(range(k + 1), high) == pytest.approx(0.025, rel=1e-7)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=14).filter(any))
def test_largest_remainder_sums_to_100_and_stays_within_1(counts: list[int]) -> None:
    whole = largest_remainder(counts, sum(counts))
    assert sum(whole) == 100
    assert all(abs(percent - 100 * count / sum(counts)) < 1 for percent, count in zip(whole, counts, strict=True))
    assert all(percent == 0 for percent, count in zip(whole, counts, strict=True) if count == 0)


@given(
    st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=4), min_size=2, max_size=6).filter(lambda g: any(map(any, g)))
)
def test_parts_sum_to_their_group_and_stay_within_1(groups: list[list[int]]) -> None:
    n = sum(map(sum, groups))
    for group, percent in zip(groups, largest_remainder([sum(group) for group in groups], n), strict=True):
        parts = largest_remainder(group, n, percent)
        assert sum(parts) == percent
        assert all(abs(part - 100 * count / n) < 1 for part, count in zip(parts, group, strict=True))


def test_largest_remainder_by_hand() -> None:
    assert largest_remainder([1, 1, 1], 3) == (34, 33, 33)
    assert largest_remainder([2, 3, 2], 7) == (29, 43, 28)
    assert largest_remainder([199, 1], 200) == (100, 0)
    assert largest_remainder([], 5, 0) == ()


def test_a_count_of_200() -> None:
    found = cells(
        neutrophil_segmented=118, neutrophil_band=3, lymphocyte=52, monocyte=13, eosinophil=4, basophil=1, myelocyte=2
    )
    found += cells(erythroblast=5, artefact=17)
    found += [Cell("monocyte", unsure=True)] * 6 + [Cell("erythroblast", unsure=True)]
    found += [Cell("lymphocyte", counted=False)] * 8 + [Cell("artefact", unsure=True, counted=False)]
    table = differential(found, PBC, GROUPS)
    assert table.leukocytes == 200
    assert [(line.name, line.count, line.percent) for line in table.rows] == [
        ("neutrophil", 121, 61),
        ("lymphocyte", 52, 26),
        ("monocyte", 13, 7),
        ("eosinophil", 4, 2),
        ("basophil", 1, 0),
        ("immature_granulocyte", 2, 1),
        ("blast", None, None),
        ("lymphocyte_atypical", None, None),
        ("unidentified", 7, 3),
    ]
    assert sum(line.percent or 0 for line in table.rows) == 100
    neutrophil = row(table, "neutrophil")
    assert [(part.name, part.count, part.percent) for part in neutrophil.parts] == [
        ("neutrophil_band", 3, 2),
        ("neutrophil_segmented", 118, 59),
    ]
    assert [(part.name, part.count) for part in row(table, "immature_granulocyte").parts] == [
        ("promyelocyte", 0),
        ("myelocyte", 2),
        ("metamyelocyte", 0),
    ]
    eosinophil = row(table, "eosinophil")
    assert (round(eosinophil.low or 0, 2), round(eosinophil.high or 0, 2)) == (0.55, 5.04)
    assert table.outside == (OutsideRow("erythroblast", 5, 2.5), OutsideRow("smudge_cell", None, None))
    assert (table.artefacts, table.border) == (18, 8)
    assert table.blasts is None
    assert table.blast_statement.startswith("Blasts are not reported by this model")


def test_a_class_the_model_knows_is_0_and_one_it_does_not_know_is_not_reported() -> None:
    table = differential(cells(lymphocyte=10), ("lymphocyte", "neutrophil_segmented", "smudge_cell"), GROUPS)
    assert row(table, "neutrophil").count == 0
    assert [(part.name, part.count, part.percent) for part in row(table, "neutrophil").parts] == [
        ("neutrophil_band", None, None),
        ("neutrophil_segmented", 0, 0),
    ]
    assert row(table, "monocyte") == Row("monocyte", None, None, None, None)
    assert table.outside == (OutsideRow("erythroblast", None, None), OutsideRow("smudge_cell", 0, 0.0))


@pytest.mark.parametrize(("n", "limit"), [(100, 2.951), (149, 1.990), (299, 0.997)])
def test_the_limit_of_none_seen(n: int, limit: float) -> None:
    assert exclusion_limit(n) == pytest.approx(limit, abs=5e-4)


def test_the_blast_statement() -> None:
    classes = (*PBC, "myeloblast", "lymphocyte_atypical")
    none = differential(cells(lymphocyte=299) + [Cell("myeloblast", unsure=True)] * 3, classes, GROUPS)
    # Unidentified cells may be blasts: they exclude nothing.
    assert (none.leukocytes, none.named, none.blasts) == (302, 299, 0)
    assert none.blast_statement == "299 cells without a blast exclude more than 1.0 % at 95 %, if the model misses none."
    one = differential(cells(lymphocyte=99, myeloblast=1), classes, GROUPS)
    assert (one.blasts, one.blast_limit) == (1, None)
    assert one.blast_statement == "1 suspected blast among 100 leukocytes."
    unsure = differential([Cell("lymphocyte", unsure=True)], classes, GROUPS)
    assert unsure.blast_statement == "No leukocyte was named: nothing can be said about blasts."


def test_no_cell_at_all() -> None:
    table = differential([], PBC, GROUPS)
    assert table.leukocytes == 0
    assert {(line.percent, line.low, line.high) for line in table.rows} == {(None, None, None)}
    assert table.outside[0] == OutsideRow("erythroblast", 0, None)


def test_a_coarse_model_reports_its_group_and_no_parts() -> None:
    groups = {"neutrophil": ("neutrophil",), "lymphocyte": ("lymphocyte",)}
    table = differential(cells(neutrophil=6, lymphocyte=4), ("neutrophil", "lymphocyte"), groups)
    neutrophil = row(table, "neutrophil")
    assert (neutrophil.count, neutrophil.percent) == (6, 60)
    assert [part.count for part in neutrophil.parts] == [None, None]


def test_a_leukocyte_of_no_group_is_not_lost() -> None:
    table = differential(cells(lymphocyte=3, hairy_cell=1), ("lymphocyte", "hairy_cell"), GROUPS)
    assert table.leukocytes == 4
    assert [line.name for line in table.rows][-2:] == ["hairy_cell", "unidentified"]
    assert row(table, "hairy_cell").percent == 25


def test_both_names_of_a_lymphocyte_are_one_row() -> None:
    table = differential(cells(lymphocyte_typical=3, lymphocyte_atypical=1), ("lymphocyte_typical", "lymphocyte_atypical"), {})
    assert (row(table, "lymphocyte").count, row(table, "lymphocyte").parts) == (3, ())
    assert row(table, "lymphocyte_atypical").count == 1


@given(st.lists(st.builds(Cell, st.sampled_from([*PBC, "myeloblast"]), st.booleans(), st.booleans()), max_size=60))
def test_every_cell_stands_in_one_place(found: list[Cell]) -> None:
    table = differential(found, (*PBC, "myeloblast"), GROUPS)
    outside = sum(line.count or 0 for line in table.outside)
    assert sum(line.count or 0 for line in table.rows) == table.leukocytes
    assert table.leukocytes + outside + table.artefacts + table.border == len(found)
    for line in table.rows:
        assert not line.parts or sum(part.count or 0 for part in line.parts) == line.count
        assert not line.parts or sum(part.percent or 0 for part in line.parts) == (line.percent or 0)
    assert table.leukocytes == 0 or sum(line.percent or 0 for line in table.rows) == 100
