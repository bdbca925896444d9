"""What a field's frames have in common is found out before it is read, and changes no answer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from livecounts import PLACES, Still, all_events, counting

from nca_edge.camera import read_image
from nca_edge.camera.mosaic import sample_mosaic
from nca_edge.camera.operator import Pose
from nca_edge.camera.simulated import Microscope
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.live import field
from nca_edge.live import stage as live_stage
from nca_edge.live.chart import Chart
from nca_edge.live.field import Analyst
from nca_edge.live.watcher import Look, Watcher
from nca_edge.pipeline import Prepared, prepare, read_field
from nca_edge.records import Frame, Image8, Reading
from nca_edge.samples import sample_fields

UM_PER_PX = 0.0776
"""Of the sample field, about."""


@cache
def classifier() -> Classifier:
    return load(ModelChoice(backend="onnx", threads=2))


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    classifier.cache_clear()


@cache
def scope() -> Microscope:
    return Microscope(sample_mosaic(), (640, 480), 1)


def at(x: float, y: float, blur_px: float = 0.0) -> Image8:
    return scope().photograph(Pose(x, y, blur_px, True))


def answers(reading: Reading) -> Any:
    return reading.scale, reading.focus, [(c.detection, c.prediction.probabilities, c.crop.tobytes()) for c in reading.cells]


@pytest.mark.parametrize("um_per_px, scales", [(None, []), (None, [UM_PER_PX] * 3), (UM_PER_PX, [])])
@pytest.mark.parametrize("times", [1, 4])
def test_of_the_same_picture_it_changes_nothing(um_per_px: float | None, scales: list[float], times: int) -> None:
    """Four times as large, the field is read at a smaller size."""
    rgb = read_image(sample_fields() / "bccd-BloodImage_00209.jpg").repeat(times, axis=0).repeat(times, axis=1)
    frame, known = Frame("one", rgb), [scale / times for scale in scales]
    given = um_per_px and um_per_px / times
    made = prepare(rgb, 2, given, known)
    assert answers(read_field(frame, classifier(), given, known, prepared=made)) == answers(
        read_field(frame, classifier(), given, known)
    )


def test_a_frame_that_shows_nothing_is_refused_for_what_it_is() -> None:
    made = prepare(at(640, 480), 2, None, [])
    black = read_field(Frame("black", np.zeros((480, 640, 3), np.uint8)), classifier(), None, [], prepared=made)
    assert black.reasons == ("under-exposed: raise the lamp or the exposure time",)


def looks(watcher: Watcher, frames: list[Image8], start_s: float) -> list[Look]:
    return [watcher.look(rgb, start_s + n / 10) for n, rgb in enumerate(frames)]


def test_a_rest_is_prepared_for_once_before_it_is_read() -> None:
    watcher = Watcher(Chart())
    seen = looks(watcher, [at(300, 200)] * 8, 0.0)
    (prepared,) = (n for n, look in enumerate(seen) if look.prepare)
    (read,) = (n for n, look in enumerate(seen) if look.read)
    assert prepared < read and seen[prepared].rest == seen[read].rest


def test_nothing_is_prepared_for_a_place_that_was_counted_or_shows_nothing() -> None:
    chart = Chart()
    watcher, analyst = Watcher(chart), Analyst(classifier(), chart, None, None)
    (read,) = (look for look in looks(watcher, [at(640, 480)] * 8, 0.0) if look.read)
    reading, answer = analyst.read("frame-000001", at(640, 480), read)
    watcher.answer(read.rest, answer, read.glance.focus)
    assert reading is not None and answer == "counted"
    way = [at(640 + step, 480) for step in (0, 40, 80, 120, 80, 40, 0)]
    again = looks(watcher, [*way, *[at(640, 480)] * 8], 1.0)
    assert again[-1].state == "seen" and not any(look.prepare for look in again)
    assert not any(look.prepare for look in looks(watcher, [np.zeros((480, 640, 3), np.uint8)] * 8, 3.0))


@pytest.mark.parametrize("case", ["as it was", "another rest", "the focus was turned", "another size", "read before"])
def test_what_was_prepared_is_taken_where_it_belongs(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Prepared | None] = []

    def read(*of: Any, prepared: Prepared | None) -> Reading:
        taken.append(prepared)
        return Reading("one", False, ("out of focus: turn the fine focus",), False, 0.0, None, ())

    monkeypatch.setattr(field, "read_field", read)
    analyst, watcher = Analyst(classifier(), Chart(), None, None), Watcher(Chart())
    seen = looks(watcher, [at(640, 480)] * 8, 0.0)
    (before,), (now,) = [look for look in seen if look.prepare], [look for look in seen if look.read]
    rgb = at(640, 480)
    analyst.prepare(rgb, before)
    if case == "another rest":
        (now,) = (look for look in looks(watcher, [at(1280, 480)] * 8, 1.0) if look.read)
    elif case == "the focus was turned":
        (now,) = (look for look in looks(Watcher(Chart()), [at(640, 480, 2.0)] * 8, 0.0) if look.read)
    elif case == "another size":
        rgb = rgb[:-1]
    elif case == "read before":
        analyst.read("frame-000001", rgb, now)
    analyst.read("frame-000002", rgb, now)
    assert (taken[-1] is not None) == (case == "as it was")
    assert len(taken) == 1 or taken[0] is not None


@pytest.mark.parametrize("crashes", [False, True])
def test_a_live_count_prepares_for_each_field_and_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: bool
) -> None:
    monkeypatch.setattr(live_stage, "RESTART_S", 0.01)
    prepared: list[int] = []
    with counting(tmp_path / "s", Still(frames=16)) as live:
        made = live._analyst.prepare

        def counted(rgb: Image8, look: Look) -> None:
            prepared.append(look.rest)
            if crashes:
                raise ZeroDivisionError("planted")
            made(rgb, look)

        monkeypatch.setattr(live._analyst, "prepare", counted)
        events = all_events(live)
    assert len(prepared) == len(set(prepared)) == len(PLACES)
    assert sum(e.kind == "field" for e in events) == len(PLACES)
    assert bool(live.failures) == crashes
