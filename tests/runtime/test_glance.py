"""Where one frame lies over another, and what is known of places that were read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fields import photograph, smear
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nca_edge.camera.mosaic import Mosaic, sample_mosaic
from nca_edge.camera.operator import Operator, Pose
from nca_edge.camera.simulated import Microscope
from nca_edge.live.chart import Chart
from nca_edge.live.glance import EMPTY, glance, keep, match, recognised, rested
from nca_edge.live.place import Join, Place, Position, Spot, spot_of
from nca_edge.live.watcher import Watcher
from nca_edge.records import Box, Image8

SIZE = (640, 480)


@pytest.fixture(scope="module")
def mosaic() -> Mosaic:
    return sample_mosaic()


@pytest.fixture(scope="module")
def scope(mosaic: Mosaic) -> Microscope:
    return Microscope(mosaic, SIZE, 1)


def at(scope: Microscope, x: float, y: float, blur_px: float = 0.0) -> Image8:
    return scope.photograph(Pose(x, y, blur_px, True))


@settings(max_examples=25)
@given(st.integers(-400, 400), st.integers(-300, 300))
def test_a_shift_is_found_to_a_pixel(dx: int, dy: int) -> None:
    scope = Microscope(MOSAIC, SIZE, 1)
    found = match(glance(at(scope, 900, 700)), glance(at(scope, 900 + dx, 700 + dy)))
    share = (640 - abs(dx)) * (480 - abs(dy)) / (640 * 480)
    if share < 0.2:
        return
    assert found is not None and found.likeness > 0.85
    assert abs(found.dx - dx) <= 2 and abs(found.dy - dy) <= 2 and abs(found.overlap - share) < 0.02


MOSAIC = sample_mosaic()


def test_what_is_kept_of_a_frame_finds_its_place_as_well(scope: Microscope) -> None:
    first, second = glance(at(scope, 900, 700)), glance(at(scope, 1000, 640))
    whole, kept = match(first, second), match(keep(first).glance(), second)
    assert whole is not None and kept is not None and keep(first).small.nbytes < 20_000
    assert abs(kept.dx - whole.dx) < 0.5 and abs(kept.likeness - whole.likeness) < 0.01


def test_two_places_are_not_alike(scope: Microscope) -> None:
    likeness = [
        found.likeness
        for x, y in ((0, 0), (1280, 0), (0, 960), (1280, 960), (1900, 480))
        if (found := match(glance(at(scope, 640, 480)), glance(at(scope, x, y)))) and abs(x - 640) >= 640
    ]
    assert len(likeness) == 5 and max(likeness) < 0.8


def test_frames_of_two_sizes_cannot_be_compared() -> None:
    rgb = photograph(smear())
    assert match(glance(rgb), glance(rgb[:400])) is None


def test_sharpness_falls_with_blur(scope: Microscope) -> None:
    levels = [glance(at(scope, 700, 500, blur)).focus for blur in (0.0, 1.5, 3.0, 6.0)]
    assert levels == sorted(levels, reverse=True) and levels[0] > 1.5 * levels[2]


def test_sharpness_is_the_share_of_variance_between_two_blurs() -> None:
    rgb = photograph(smear())
    rgb[200:280, 200:280] = 255  # the largest sums that there are
    grey = rgb[..., 1].astype(np.float64)
    detail = (ndimage.uniform_filter(grey, 3) - ndimage.uniform_filter(grey, 7))[3:-3, 3:-3]
    assert glance(rgb).focus == pytest.approx(np.mean(detail**2) / (grey.var() + 1e-3), rel=1e-4)


def test_a_frame_narrower_than_the_blurs_has_no_sharpness() -> None:
    assert glance(np.full((6, 640, 3), 200, np.uint8)).focus == 0.0


def test_dark_and_empty_frames_show_no_place() -> None:
    noise = np.random.default_rng(1).normal(0, 1.5, (480, 640, 3))
    assert glance(np.clip(noise + 2, 0, 255).astype(np.uint8)).contrast == 0.0
    assert glance(np.clip(noise + 200, 0, 255).astype(np.uint8)).contrast < EMPTY
    assert glance(photograph(smear())).contrast > 5 * EMPTY


@settings(max_examples=25)
@given(st.floats(-12, 12), st.floats(-12, 12))
def test_a_stage_at_rest_is_told_as_by_every_shift(dx: float, dy: float) -> None:
    scope = Microscope(MOSAIC, SIZE, 1)
    first, second = glance(at(scope, 900, 700)), glance(at(scope, 900 + dx, 700 + dy))
    short, whole = rested(first, second), match(first, second)
    assert whole is not None
    if short is None:
        assert max(abs(whole.dx), abs(whole.dy)) > 0.45 * first.factor or whole.likeness < 0.9
    else:
        assert (short.dx, short.dy) == pytest.approx((whole.dx, whole.dy), abs=0.01)
        assert (short.likeness, short.overlap) == pytest.approx((whole.likeness, whole.overlap), abs=1e-4)


def test_frames_of_two_sizes_are_not_said_to_rest() -> None:
    rgb = photograph(smear())
    assert rested(glance(rgb), glance(rgb[:400])) is None and recognised(glance(rgb), glance(rgb[:400])) is None


@pytest.mark.parametrize("height", [1, 5, 9, 16])
def test_a_strip_is_compared_too(height: int) -> None:
    rgb = photograph(smear())[:height]
    assert recognised(glance(rgb), glance(rgb)) == match(glance(rgb), glance(rgb))
    assert (rested(glance(rgb), glance(rgb)) is None) == (height < 16)


@settings(max_examples=25)
@given(st.integers(-500, 500), st.integers(-400, 400))
def test_a_place_that_is_sure_at_full_size_is_recognised(dx: int, dy: int) -> None:
    scope = Microscope(MOSAIC, SIZE, 1)
    first, second = glance(at(scope, 900, 700)), glance(at(scope, 900 + dx, 700 + dy))
    whole = match(first, second)
    assert whole is not None
    if whole.likeness >= 0.8:
        assert recognised(first, second) == whole
        assert keep(first).glance().coarse.factor == 2 * first.factor


def followed(scope: Microscope, watcher: Watcher, poses: list[tuple[float, float, float]], start_s: float = 0.0) -> list[str]:
    """States of frames ten a second at these (x, y, blur)."""
    return [watcher.look(at(scope, x, y, blur), start_s + n / 10).state for n, (x, y, blur) in enumerate(poses)]


def test_a_field_is_read_when_the_stage_rests_and_the_focus_is_steady(scope: Microscope) -> None:
    watcher = Watcher(Chart())
    way = [(100.0 + 60 * n, 100.0, 0.0) for n in range(6)]
    hunt = [(400.0, 100.0, blur) for blur in (4.0, 3.0, 2.0, 1.0, 0.5)]
    rest = [(400.0 + n % 2, 100.0, 0.0) for n in range(8)]
    states = followed(scope, watcher, way + hunt + rest)
    assert states[:6] == ["moving"] * 6
    assert "new" not in states[6:11] and states[-1] == "new"
    assert states[11:].count("new") >= 4


def test_a_field_is_asked_for_once_in_a_rest(scope: Microscope) -> None:
    watcher = Watcher(Chart())
    looks = [watcher.look(at(scope, 300, 200), n / 10) for n in range(10)]
    assert sum(look.read for look in looks) == 1
    read = next(n for n, look in enumerate(looks) if look.read)
    assert all("focus" not in vars(look.glance) for look in looks[read + 1 :])  # while it is read nobody asks for it
    watcher.answer(looks[-1].rest, "blurred", looks[read].glance.focus)
    assert not watcher.look(at(scope, 300, 200), 1.1).read  # as sharp as before
    later = [watcher.look(at(scope, 300, 200, 1.5), 1.2 + n / 10) for n in range(8)]
    assert sum(look.read for look in later) == 1  # the sharpness changed: once more


def place(chart: Chart, scope: Microscope, name: str, x: float, y: float, spots: tuple[Spot, ...] = ()) -> Position:
    seen = glance(at(scope, x, y))
    position = chart.locate(seen, None, SIZE) or chart.new_sheet()
    chart.add(Place(name, position, SIZE, keep(seen), tuple(replace(s, x=s.x + position.x, y=s.y + position.y) for s in spots)))
    chart.connect(name)
    return position


def test_a_field_is_known_again_after_the_way_was_lost(scope: Microscope) -> None:
    chart = Chart()
    first = place(chart, scope, "a", 200, 200)
    place(chart, scope, "b", 1500, 1200)
    again = chart.locate(glance(at(scope, 350, 280)), None, SIZE)
    assert again is not None and again.sheet == first.sheet
    assert abs(again.x - first.x - 150) <= 3 and abs(again.y - first.y - 80) <= 3
    assert chart.locate(glance(at(scope, 1800, 0)), None, SIZE) is None


def test_sheets_that_a_field_connects_become_one(scope: Microscope) -> None:
    chart = Chart()
    a = place(chart, scope, "a", 200, 200)
    b = place(chart, scope, "b", 1000, 200)
    assert a.sheet != b.sheet
    place(chart, scope, "between", 600, 200)
    first, second = (chart.locate(glance(at(scope, x, 200)), None, SIZE) for x in (200, 1000))
    assert first is not None and second is not None and first.sheet == second.sheet
    assert abs(second.x - first.x - 800) <= 5


def test_a_place_that_was_left_by_a_lost_way_is_known_when_a_followed_way_leads_back(scope: Microscope) -> None:
    chart = Chart()
    followed, lost = place(chart, scope, "a", 200, 200), place(chart, scope, "b", 1000, 200)
    back, seen = followed.moved(800, 0), glance(at(scope, 1000, 200))
    assert chart.locate(seen, back, SIZE) == back and not chart.seen(back, SIZE)
    chart.meet(seen, back)
    assert chart.seen(back, SIZE)
    assert chart.seen(lost, SIZE)  # also for who still holds the position on the sheet that is no more
    again = chart.locate(glance(at(scope, 1000, 200)), None, SIZE)
    assert again is not None and again.sheet == followed.sheet and abs(again.x - back.x) <= 3


def test_a_frame_that_was_looked_at_before_its_sheet_was_joined_is_added_where_it_lies_now(scope: Microscope) -> None:
    chart = Chart()
    a, b = place(chart, scope, "a", 200, 200), place(chart, scope, "b", 1000, 200)
    between = place(chart, scope, "between", 600, 200)
    stale = a if a.sheet != between.sheet else b
    chart.add(Place("late", stale, SIZE, keep(glance(at(scope, 200 if stale is a else 1000, 200))), ()))
    assert len({p.position.sheet for p in chart.places()}) == 1
    xs = {p.name: p.position.x for p in chart.places()}
    assert abs(xs["late"] - xs["a" if stale is a else "b"]) <= 1


def test_joins_in_a_circle_end(scope: Microscope) -> None:
    chart = Chart()
    circle = (Join(1, 2, 5.0, 0.0), Join(2, 1, 5.0, 0.0), Join(1, 1, 1.0, 1.0))
    chart.restore([Place("a", Position(1, 0.0, 0.0), SIZE, keep(glance(at(scope, 200, 200))), (), circle)], {"a"})
    assert not chart.seen(Position(3, 0.0, 0.0), SIZE)
    assert len(chart) == 1 and isinstance(chart.seen(Position(1, 0.0, 0.0), SIZE), bool)


def test_seen_is_what_other_fields_cover_unless_a_cut_cell_is_whole_now(scope: Microscope) -> None:
    chart = Chart()
    position = place(chart, scope, "a", 400, 300)
    assert chart.seen(position, SIZE) and chart.seen(position.moved(5, 0), SIZE)
    assert not chart.seen(position.moved(60, 0), SIZE)
    place(chart, scope, "b", 460, 300, (Spot(0, 100, 60, 90, True),))  # cut by the left edge of b
    assert not chart.seen(position.moved(40, 0), SIZE)  # 20 px more of it to be seen
    chart.forget("b")
    assert not chart.seen(position.moved(40, 0), SIZE) and chart.seen(position, SIZE)


def test_an_undone_field_can_be_read_again(scope: Microscope) -> None:
    chart = Chart()
    position = place(chart, scope, "a", 400, 300)
    chart.forget("a")
    assert len(chart) == 0 and not chart.seen(position, SIZE)


@given(st.integers(-25, 25), st.integers(-25, 25))
def test_one_cell_in_two_fields_is_one_and_neighbours_are_two(dx: int, dy: int) -> None:
    here, box = Position(1, 0, 0), Box(100, 100, 80, 80)
    cell = spot_of(box, False, here)
    assert cell.same(spot_of(Box(100 + dx, 100 + dy, 80, 80), False, here))
    assert not cell.same(spot_of(Box(180 + abs(dx), 100 + dy, 80, 80), False, here))


def test_the_hand_does_the_same_for_the_same_seed_and_covers_the_sheet() -> None:
    one, two, other = (Operator((1920, 1440), SIZE, seed) for seed in (3, 3, 4))
    assert [one.pose(t) for t in (0.0, 1.7, 33.0)] == [two.pose(t) for t in (0.0, 1.7, 33.0)]
    assert one.pose(20.0) != other.pose(20.0)
    covered = np.zeros((1440, 1920), np.bool_)
    for rest in one.rests:
        assert 0 <= rest.x <= 1280 and 0 <= rest.y <= 960
        covered[round(rest.y) : round(rest.y) + 480, round(rest.x) : round(rest.x) + 640] = True
    assert covered[60:-60, 60:-60].all()
