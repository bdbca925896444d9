"""Flags: the documented limits, to the cell; and the limits of Ruemke between two readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from done import Done
from sessions import cell, counted

from nca_edge.comparison import compare, limits
from nca_edge.differential import Differential, differential
from nca_edge.errors import UsageError
from nca_edge.flags import load_rules, raised

CLASSES = (
    "neutrophil_band", "neutrophil_segmented", "lymphocyte", "lymphocyte_atypical", "monocyte", "blast", "promyelocyte",
    "myelocyte", "metamyelocyte", "erythroblast", "artefact",
)  # fmt: skip


@dataclass
class Cell:
    label: str
    unsure: bool = False
    counted: bool = True


def table(unsure: int = 0, classes: tuple[str, ...] = CLASSES, **counts: int) -> Differential:
    cells = [Cell(label) for label, count in counts.items() for _ in range(count)]
    return differential([*cells, *(Cell("lymphocyte", unsure=True) for _ in range(unsure))], classes, {})


def names(found: Differential, target: int | None = None) -> list[str]:
    return [flag.name for flag in raised(load_rules(), found, target)]


@pytest.mark.parametrize(
    ("counts", "flags"),
    [
        ({"lymphocyte": 100}, []),
        ({"lymphocyte": 99, "blast": 1}, ["blasts"]),
        ({"lymphocyte": 99, "promyelocyte": 1}, ["early_granulocytes"]),
        ({"lymphocyte": 99, "myelocyte": 1}, ["early_granulocytes"]),
        ({"lymphocyte": 98, "metamyelocyte": 2}, []),
        ({"lymphocyte": 97, "metamyelocyte": 3}, ["metamyelocytes"]),
        ({"lymphocyte": 196, "metamyelocyte": 4}, []),
        ({"lymphocyte": 195, "metamyelocyte": 5}, ["metamyelocytes"]),
        ({"lymphocyte": 95, "lymphocyte_atypical": 5}, []),
        ({"lymphocyte": 94, "lymphocyte_atypical": 6}, ["atypical_lymphocytes"]),
        ({"lymphocyte": 100, "erythroblast": 1}, ["erythroblasts"]),
        ({"lymphocyte": 90, "unsure": 10}, []),
        ({"lymphocyte": 89, "unsure": 11}, ["unidentified"]),
        ({"artefact": 9}, []),
        ({"lymphocyte": 50, "blast": 20, "myelocyte": 15, "unsure": 15}, ["blasts", "early_granulocytes", "unidentified"]),
    ],
)
def test_each_limit_is_exceeded_by_one_cell_more(counts: dict[str, int], flags: list[str]) -> None:
    assert names(table(**counts)) == flags


def test_fewer_cells_than_the_target() -> None:
    assert names(table(lymphocyte=99), 100) == ["below_target"]
    assert names(table(lymphocyte=100), 100) == names(table(lymphocyte=1), None) == []
    (flag,) = raised(load_rules(), table(lymphocyte=99), 100)
    assert (flag.text, flag.count) == ("Fewer leukocytes than the target: 99 of 100", 99)


def test_a_class_that_is_not_reported_raises_no_flag_until_a_person_names_one() -> None:
    assert names(table(lymphocyte=10, classes=("lymphocyte",))) == []
    assert names(table(lymphocyte=10, blast=1, classes=("lymphocyte",))) == ["blasts"]


def test_a_laboratory_gives_its_own_limits(tmp_path: Path) -> None:
    path = tmp_path / "flags.toml"
    path.write_text('[[flag]]\nname = "bands"\ntext = "Left shift"\nrows = ["neutrophil_band"]\nper_100_above = 10\n')
    assert [flag.text for flag in raised(load_rules(path), table(neutrophil_band=2, lymphocyte=8))] == ["Left shift: 2"]


GOOD = '[[flag]]\nname = "x"\ntext = "X"\nrows = ["blast"]\ncells_above = 1\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds something else than tables [[flag]]"),
        ("flag = 3", "holds something else than tables [[flag]]"),
        ("[[flag]", "cannot be read as TOML"),
        ("[[flag]]\ntext = 'x'", "flag 1: needs a name and a text."),
        (GOOD + "colour = 'red'", "flag 1: colour is no setting of a flag."),
        (GOOD + "per_100_above = 2", "flag 1: needs one limit"),
        (GOOD.replace("1", "-1"), "flag 1: cells_above is a number from 0."),
        (GOOD.replace("1", "true"), "flag 1: cells_above is a number from 0."),
        (GOOD.replace('["blast"]', "3"), "flag 1: rows is a list of rows of the differential."),
        (GOOD + GOOD, "two flags have one name"),
        (GOOD + "[other]", "holds something else than tables [[flag]]"),
        ("[[flag]]\nname = 'x'\ntext = 'x'\nbelow_target = false", "flag 1: below_target is true, and has no rows."),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "flags.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_rules(path)
    assert sentence in str(caught.value) and str(caught.value).startswith(f"--flags {path}: ")
    with pytest.raises(UsageError, match="cannot be read as TOML"):
        load_rules(tmp_path / "none.toml")


# Two readers


@pytest.mark.parametrize(
    ("counted_of", "known"),
    [
        ((0, 100), (0, 4)),
        ((1, 100), (0, 6)),
        ((9, 100), (4, 17)),
        ((50, 100), (39, 61)),
        ((60, 200), (23, 37)),
        ((3, 3), (29, 100)),
    ],
)
def test_the_limits_of_ruemke(counted_of: tuple[int, int], known: tuple[int, int]) -> None:
    assert limits(*counted_of) == known


def test_two_readers_are_compared_row_by_row() -> None:
    first = table(lymphocyte=91, monocyte=9)
    second = table(lymphocyte=164, monocyte=34, neutrophil_segmented=2)
    found = {row.name: row for row in compare(first, second)}
    assert (found["monocyte"].percent, found["monocyte"].low, found["monocyte"].high, found["monocyte"].agree) == (
        17.0,
        4,
        17,
        True,
    )
    assert (found["lymphocyte"].percent, found["lymphocyte"].agree) == (82.0, False)
    assert found["neutrophil_segmented"].agree and found["neutrophil_segmented"].second == 2
    assert "basophil" not in found
    assert compare(first, table()) == ()


def test_compare_on_the_command_line(tmp_path: Path, call: Callable[..., Done]) -> None:
    with (
        counted(tmp_path / "a", *(cell(n) for n in range(1, 21))),
        counted(tmp_path / "b", *(cell(n, "monocyte" if n > 12 else "lymphocyte") for n in range(1, 21))),
    ):
        pass
    done = call("session", "compare", tmp_path / "a", tmp_path / "b")
    assert done.code == 1
    assert [line.split() for line in done.out.splitlines() if line.startswith(("lymphocyte ", "monocyte"))] == [
        ["lymphocyte", "20", "12", "60.0", "83", "-", "100", "outside"],
        ["monocyte", "0", "8", "40.0", "0", "-", "17", "outside"],
    ]
    assert call("session", "compare", tmp_path / "a", tmp_path / "a").code == 0
