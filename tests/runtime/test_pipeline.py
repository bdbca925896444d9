"""One image in, one answer out: the same in any company and order, and a clear no to what shows no cell."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nca_edge import pipeline
from nca_edge.camera import read_image
from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.errors import InputError
from nca_edge.measure import seen_part
from nca_edge.pipeline import observe, read_field
from nca_edge.records import Box, Frame, Image8, Reading
from nca_edge.samples import sample_fields
from nca_edge.single_cell import MAX_CROP_PX, read_crop

VARIANTS = [("onnx", 1), ("onnx", 2), ("numpy", 1)]
"""Two threads of numpy: see ``test_the_number_of_threads_changes_no_bit``."""


@cache
def classifier(backend: str = "onnx", threads: int = 1) -> Classifier:
    return load(ModelChoice(backend=backend, threads=threads))


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    classifier.cache_clear()


def views(cells: tuple[Image8, ...], size: int) -> Image8:
    """(6, size, size, 3): the crops and their mirror images, scaled by picking pixels."""
    picked = []
    for cell in cells:
        rows, columns = (np.linspace(0, n - 1, size).astype(int) for n in cell.shape[:2])
        picked += [cell[rows][:, columns], cell[rows][:, columns[::-1]]]
    return np.stack(picked)


def test_a_nucleus_found_in_two_pieces_is_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each cell of a sample field, both halves are given for finds."""
    frame = Frame("one", read_image(sample_fields() / "bccd-BloodImage_00209.jpg"))
    (whole,) = read_field(frame, classifier(), None, []).cells
    x, y, w, h = (getattr(whole.detection.box, side) for side in "xywh")
    halves = [replace(whole.detection, box=Box(x + part, y, 2 * w // 3, h)) for part in (0, w // 3)]
    monkeypatch.setattr(pipeline, "white_cells", lambda *of: halves)
    (one,) = read_field(frame, classifier(), None, []).cells
    assert one.counted and one.cell == 1
    assert one.detection.box == Box(x, y, w // 3 + 2 * w // 3, h)


@pytest.mark.parametrize(("backend", "threads"), VARIANTS)
def test_the_same_alone_in_company_and_in_any_order(backend: str, threads: int, cells: tuple[Image8, ...]) -> None:
    model = classifier(backend, threads)
    batch = views(cells, model.size).astype(np.float32) / 255
    n = len(batch) if backend == "onnx" else 2
    alone = [model.answer(batch[i : i + 1]) for i in range(n)]
    examples = 8 if backend == "onnx" else 1

    @settings(max_examples=examples, database=None)
    @given(order=st.permutations(range(n)))
    def check(order: list[int]) -> None:
        together = model.answer(batch[order])
        for place, i in enumerate(order):
            assert np.array_equal(together.logits[place], alone[i].logits[0])
            assert np.array_equal(together.state[place], alone[i].state[0])

    check()


@pytest.mark.parametrize(("backend", "threads"), VARIANTS)
def test_a_crop_gets_the_same_answer_again(backend: str, threads: int, cells: tuple[Image8, ...]) -> None:
    model = classifier(backend, threads)
    first = read_crop(cells[0], model)
    read_crop(cells[1], model)
    again = read_crop(cells[0].copy(), model)
    assert first.prediction == again.prediction and first.scale == again.scale
    assert first.explanation is not None and again.explanation is not None
    assert np.array_equal(first.explanation.mask, again.explanation.mask)
    tops = [
        [(top.channel, top.relevance, top.peak) for top in reading.explanation.top_channels]
        for reading in (first, again)
        if reading.explanation is not None
    ]
    assert tops[0] == tops[1]


def test_the_backends_agree(cells: tuple[Image8, ...]) -> None:
    batch = views(cells, classifier().size)[::2].astype(np.float32) / 255
    reference = classifier("numpy").answer(batch).logits
    assert np.abs(classifier().answer(batch).logits - reference).max() <= 1e-3 * np.abs(reference).max()


def test_two_cells_that_touch_have_no_pixel_in_common() -> None:
    rgb = read_image(sample_fields() / "bccd-BloodImage_00176.jpg")
    reading = read_field(Frame("two.jpg", rgb), classifier(), None, [])
    assert len(reading.cells) == 2
    taken = np.zeros(rgb.shape[:2], np.int32)
    for cell in reading.cells:
        mask, (x, y) = cell.explanation.mask > 0, cell.detection.box.center
        left, upper, right, lower = seen_part((x, y), len(mask), taken.shape)
        x0, y0 = round(x - len(mask) / 2), round(y - len(mask) / 2)
        taken[y0 + upper : y0 + lower, x0 + left : x0 + right] += mask[upper:lower, left:right]
    assert taken.max() == 1 and (taken == 1).sum() > 10_000


def test_an_answer_does_not_hang_on_the_batch(fields_in_memory: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = list(observe(fields_in_memory[:1], classifier()))
    monkeypatch.setattr(pipeline, "BATCH", 1)
    (single,) = list(observe(fields_in_memory[:1], classifier()))
    assert len(whole.cells) >= 2
    assert [c.cell for c in whole.cells] == list(range(1, len(whole.cells) + 1))
    assert [(c.cell, c.detection, c.prediction) for c in whole.cells] == [
        (c.cell, c.detection, c.prediction) for c in single.cells
    ]


@pytest.fixture(scope="module")
def fields_in_memory() -> list[Frame]:
    """A drawn field: 48 red cells of 7.5 um and three dark nuclei, at 0.125 um a pixel."""
    y, x = np.mgrid[:480, :640]
    light = np.full((480, 640, 3), (225.0, 220.0, 212.0))
    for row in range(40, 480, 80):
        for column in range(40, 640, 80):
            light[np.hypot(x - column, y - row) < 30] = (205, 165, 160)
    for column, row in ((160, 120), (400, 240), (320, 400)):
        light[np.hypot(x - column, y - row) < 46] = (180, 165, 200)
        light[np.hypot(x - column, y - row) < 33] = (90, 50, 130)
    noise = np.random.default_rng(3).normal(0, 1.5, light.shape)
    return [Frame("drawn.png", np.clip(light + noise, 0, 255).astype(np.uint8))]


def test_the_number_of_threads_changes_no_bit(fields_in_memory: list[Frame]) -> None:
    for frame in fields_in_memory:
        one, two = (read_field(frame, classifier("numpy", threads), None, []) for threads in (1, 2))
        assert (one.accepted, one.reasons, one.focus, one.scale) == (two.accepted, two.reasons, two.focus, two.scale)
        for a, b in zip(one.cells, two.cells, strict=True):
            assert (a.detection, a.prediction, a.explanation.logit) == (b.detection, b.prediction, b.explanation.logit)
            assert np.array_equal(a.crop, b.crop) and np.array_equal(a.explanation.mask, b.explanation.mask)


@pytest.mark.parametrize("shape", [(1, 1), (15, 200), (200, 15)])
def test_too_few_pixels(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="too few to show a cell; at least 16 a side"):
        read_crop(np.full((*shape, 3), 200, np.uint8), classifier())


@pytest.mark.parametrize("shape", [(16, 1020), (1020, 16), (16, 16), (17, 31), (60, 2500)])
def test_strange_shapes(shape: tuple[int, int], cells: tuple[Image8, ...]) -> None:
    repeated = np.tile(cells[0], (20, 20, 1))[: shape[0], : shape[1]]
    reading = read_crop(np.ascontiguousarray(repeated), classifier())
    assert reading.explanation is not None and reading.explanation.mask.shape == shape
    height, width = shape
    assert all(0 <= x < width and 0 <= y < height for x, y in (top.peak for top in reading.explanation.top_channels))
    assert reading.scale.um_per_px > 0


def test_a_strip_is_refused() -> None:
    with pytest.raises(InputError, match="too narrow a strip"):
        read_crop(np.full((16, 60_000, 3), 200, np.uint8), classifier())


def test_a_large_crop_is_read_smaller(cells: tuple[Image8, ...]) -> None:
    """Eight times the size is the same cell: the same answer, told in its own pixels; and memory stays small."""
    small, factor = cells[0], 8
    large = small.repeat(factor, axis=0).repeat(factor, axis=1)
    assert max(large.shape) > MAX_CROP_PX
    a, b = read_crop(small, classifier()), read_crop(large, classifier())
    given_a, given_b = read_crop(small, classifier(), 0.1), read_crop(large, classifier(), 0.1 / factor)
    assert b.explanation is not None and b.explanation.mask.shape == large.shape[:2]
    assert set(np.unique(b.explanation.mask).tolist()) <= {0, 128, 255}
    assert b.scale.um_per_px == pytest.approx(a.scale.um_per_px / factor, rel=0.2)
    assert (given_b.scale.um_per_px, given_b.scale.source) == (0.1 / factor, "given")
    names = list(given_a.prediction.probabilities)
    assert [given_b.prediction.probabilities[n] for n in names] == pytest.approx(
        [given_a.prediction.probabilities[n] for n in names], abs=0.1
    )


@pytest.mark.parametrize(("um_per_px", "sentence"), [(0.01, "um wide, less than a white cell"), (2.0, "pixels wide, too few")])
def test_a_scale_that_cannot_be(um_per_px: float, sentence: str, cells: tuple[Image8, ...]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=sentence):
        read_crop(cells[0], classifier(), um_per_px)
    tall = np.full((300, 300, 3), 200, np.uint8)
    tall[::2] = (120, 90, 160)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_a_large_field_is_read_smaller(fields_in_memory: list[Frame]) -> None:
    """Five times the size holds the same cells: boxes and scale are told in its own pixels, and lie within it."""
    small = fields_in_memory[0]
    large = Frame("large", small.rgb.repeat(5, axis=0).repeat(5, axis=1)[:-3, :-2])
    a, b = (read_field(frame, classifier(), None, []) for frame in (small, large))
    assert b.accepted and len(a.cells) == len(b.cells) >= 2
    assert a.scale is not None and b.scale is not None
    assert b.scale.um_per_px == pytest.approx(a.scale.um_per_px / 5, rel=0.1)
    for one, other in zip(a.cells, b.cells, strict=True):
        box = other.detection.box
        assert box.center == pytest.approx([5 * v for v in one.detection.box.center], abs=40)
        assert box.x + box.w <= 3198 and box.y + box.h <= 2397
        assert max(other.crop.shape) <= 1000
    given = read_field(large, classifier(), 0.025, [])
    assert given.scale is not None and (given.scale.um_per_px, given.scale.source) == (0.025, "given")


def test_a_field_whose_given_scale_cannot_be(fields_in_memory: list[Frame]) -> None:
    for um_per_px, said in ((0.005, "less than a white cell"), (5.0, "too few to name it")):
        reading = read_field(fields_in_memory[0], classifier(), um_per_px, [])
        assert (reading.accepted, reading.failed, reading.scale, reading.cells) == (False, False, None, ())
        assert said in reading.reasons[0] and reading.reasons[0].endswith("check the scale.")


def test_a_field_that_does_not_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> Reading:
        raise MemoryError

    monkeypatch.setattr(pipeline, "read_field", run_out)
    (reading,) = observe([Frame("large.png", np.zeros((9, 9, 3), np.uint8))], classifier())
    assert reading.failed and reading.reasons == ("does not fit this machine's memory; export it smaller.",)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["flat", "noise", "half", "dot"]),
)
def test_no_field_is_too_odd(height: int, width: int, seed: int, kind: str) -> None:
    """A result, never an exception of the mathematics."""
    random = np.random.default_rng(seed)
    rgb = np.full((height, width, 3), random.integers(0, 256), np.uint8)
    if kind == "noise":
        rgb = random.integers(0, 256, rgb.shape, np.uint8)
    elif kind == "half":
        rgb[: height // 2] = random.integers(0, 256, 3)
    elif kind == "dot":
        rgb[height // 2, width // 2] = 0
    reading = read_field(Frame("odd", rgb), classifier(), None, [])
    assert reading.accepted or reading.reasons
    if min(rgb.shape[:2]) >= pipeline.MIN_CROP_PX:
        assert 0 < read_crop(rgb, classifier()).prediction.confidence <= 1
