"""A count that goes on knows where it was: places on the disk, whole or passed over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nca_edge.camera.mosaic import sample_mosaic
from nca_edge.camera.operator import Pose
from nca_edge.camera.simulated import Microscope
from nca_edge.errors import StorageError
from nca_edge.live import chart as live_chart
from nca_edge.live.chart import Chart
from nca_edge.live.glance import Glance, glance, keep
from nca_edge.live.place import Join, Place, Position, Spot
from nca_edge.live.places import PLACES, PlaceBook

SIZE = (640, 480)
SCOPE = Microscope(sample_mosaic(), SIZE, 1)


def seen(x: float, y: float) -> Glance:
    return glance(SCOPE.photograph(Pose(x, y, 0.0, True)))


def place(name: str, x: float, y: float, sheet: int = 1) -> Place:
    return Place(name, Position(sheet, x, y), SIZE, keep(seen(x, y)), (Spot(x + 10, y + 20, 90, 80, False),))


def same(one: Place, two: Place) -> bool:
    assert one.glance is not None and two.glance is not None
    return (
        replace(one, glance=None) == replace(two, glance=None)
        and np.array_equal(one.glance.small, two.glance.small)
        and (one.glance.step, one.glance.factor) == (two.glance.step, two.glance.factor)
    )


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    book = PlaceBook(tmp_path)
    assert book.read() == []
    one = place("frame-000001", 200, 200)
    two = replace(place("frame-000002", 900, 300, 2), joins=(Join(1, 2, 3.5, -4.25),))
    book.write(one)
    book.write(two)
    first, second = PlaceBook(tmp_path).read()
    assert same(first, one) and same(second, two)
    assert (tmp_path / PLACES).stat().st_size < 40_000


@settings(max_examples=25)
@given(st.integers(0, 20_000))
def test_a_line_that_a_power_cut_left_half_written_is_passed_over(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("s")
    book = PlaceBook(folder)
    book.write(ONE)
    whole = (folder / PLACES).stat().st_size
    book.write(TWO)
    os.truncate(folder / PLACES, min(whole + cut, (folder / PLACES).stat().st_size))
    names = [p.name for p in book.read()]
    # The last byte is the end of the line alone.
    assert names == (["frame-000001", "frame-000002"] if whole + cut >= 2 * whole - 1 else ["frame-000001"])


ONE = place("frame-000001", 200, 200)
TWO = replace(ONE, name="frame-000002")


@pytest.mark.parametrize(
    "change",
    [
        {"field": "../a"}, {"x": "left"}, {"x": 1e999}, {"spots": [[1, 2]]}, {"size": [640]}, {"joins": [[1]]},
        {"small": {"shape": [9999, 9999], "step": 1, "factor": 4, "zlib": ""}},
        {"small": {"shape": [2, 2], "step": 1, "factor": 4, "zlib": "eJw="}},
        {"small": {"shape": [2, 2], "step": 0, "factor": 4, "zlib": "AAAA"}},
    ],
)  # fmt: skip
def test_a_line_that_is_no_place_is_passed_over(tmp_path: Path, change: dict[str, object]) -> None:
    book = PlaceBook(tmp_path)
    book.write(ONE)
    row = json.loads((tmp_path / PLACES).read_bytes()) | change
    (tmp_path / PLACES).write_text(json.dumps(row) + "\nnull\n[1]\n\x00\x00\n" + (tmp_path / PLACES).read_text())
    assert [p.name for p in book.read()] == ["frame-000001"]


def test_a_full_disk_leaves_no_half_line(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=20m")
    book = PlaceBook(disk)
    book.write(ONE)
    before = (disk / PLACES).read_bytes()
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    with pytest.raises(StorageError, match="no space left"):
        book.write(TWO)
    assert (disk / PLACES).read_bytes() == before
    (disk / "filler").unlink()
    book.write(TWO)
    assert [p.name for p in book.read()] == ["frame-000001", "frame-000002"]


def test_a_chart_that_is_restored_knows_places_and_what_connected_them(tmp_path: Path) -> None:
    chart, book = Chart(), PlaceBook(tmp_path)
    for name, x in (("frame-000001", 200.0), ("frame-000002", 1000.0), ("frame-000003", 600.0), ("frame-000004", 620.0)):
        now = seen(x, 200)
        position = chart.locate(now, None, SIZE) or chart.new_sheet()
        chart.add(Place(name, position, SIZE, keep(now), ()))
        chart.connect(name)
        added = chart.unwritten(name)
        assert added is not None
        book.write(added)
        chart.written(name)
        assert chart.unwritten(name) is None
    for again in (Chart(), Chart()):  # from the lines as written, and from those of the first restored chart
        again.restore(book.read(), {"frame-000001", "frame-000002"})  # the others were taken back
        assert len(again) == 2
        first, second = (again.locate(seen(x, 200), None, SIZE) for x in (200, 1000))
        assert first is not None and second is not None and first.sheet == second.sheet
        assert abs(second.x - first.x - 800) <= 5
        assert again.seen(first, SIZE) and again.new_sheet().sheet > first.sheet
        book.rewrite(again.places())
    assert [p.name for p in book.read()] == ["frame-000001", "frame-000002"]


def test_only_the_newest_places_keep_their_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_chart, "LOOKED_BACK", 2)
    chart = Chart()
    for n, x in enumerate((0.0, 640.0, 1280.0)):
        chart.add(place(f"frame-{n:06d}", x, 480))
    old, *new = chart.places()
    assert old.glance is None and all(p.glance is not None for p in new)
    assert chart.locate(seen(0, 480), None, SIZE) is None  # not found by its looks
    assert chart.seen(Position(1, 0, 480), SIZE)  # known where it lies
