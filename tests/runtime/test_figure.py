"""What stands in a figure adds up; and whatever an image is called, it is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.crop_files import FLAG, REACHES_EDGE, warnings
from nca_edge.explain import Question
from nca_edge.figure import Case, animation, figure, save, save_animation
from nca_edge.figure.layout import WIDTH, measure_lines, relevance_rows
from nca_edge.measure import CUT
from nca_edge.records import Image8, Measures
from nca_edge.single_cell import read_crop

Call = Callable[..., Any]
FAST = ("--backend", "onnx", "--threads", "1")


@cache
def classifier() -> Classifier:
    return load(ModelChoice(backend="onnx", threads=1))


def case(rgb: Image8, asked: Question | None = None, title: str = "a.png", flag: str | None = None) -> Case:
    reading = read_crop(rgb, classifier(), 0.1, asked=asked or Question())
    assert reading.shown is not None
    return Case(title, "edge (onnx fp32)", reading.shown, reading.prediction, reading.scale, flag)


@pytest.mark.parametrize("asked", [Question(), Question("basophil"), Question("basophil", "monocyte")])
def test_the_bars_add_up_to_the_logit(cells: tuple[Image8, ...], asked: Question) -> None:
    rows = relevance_rows(case(cells[0], asked).shown.explanation)
    assert [name for name, _ in rows[-3:]] == ["all other channels", "biases and stabiliser", "sum"]
    assert sum(value for _, value in rows[:-1]) == pytest.approx(rows[-1][1], abs=1e-9)


def test_a_contrast_is_the_difference_of_two_logits(cells: tuple[Image8, ...]) -> None:
    """What speaks for one class and not for the other: channel by channel the difference of two explanations."""
    one, other, both = (
        case(cells[0], asked).shown.explanation
        for asked in (Question("basophil"), Question("monocyte"), Question("basophil", "monocyte"))
    )
    assert both.logit == pytest.approx(one.logit - other.logit, abs=1e-9)
    assert both.bias_share == pytest.approx(one.bias_share - other.bias_share, abs=1e-4)  # apart from the stabilisers
    assert (both.label, both.against) == ("basophil", "monocyte")


def test_a_flag_is_seen(cells: tuple[Image8, ...]) -> None:
    plain, flagged = (np.asarray(figure(case(cells[0], flag=flag))) for flag in (None, FLAG))
    differing = np.argwhere((plain != flagged).any(2))
    assert len(differing) and differing[:, 0].max() < 110 and differing[:, 1].min() > WIDTH // 2


def test_an_outline_that_reaches_the_edge_is_seen(cells: tuple[Image8, ...]) -> None:
    """A cell of which the picture shows three quarters."""
    w = cells[0].shape[1]
    cut = read_crop(np.ascontiguousarray(cells[0][:, w // 2 - w // 10 :]), classifier(), 0.1)
    assert cut.explanation is not None and cut.explanation.measures.reason == CUT
    assert (warnings(cut) or "").endswith(REACHES_EDGE)
    assert warnings(read_crop(cells[0], classifier(), 0.1)) is None


def test_a_figure_is_the_mean_of_all_looks_and_the_answer_stays(crop_files: list[Path], tmp_path: Path, call: Call) -> None:
    plain, explained = (
        [json.loads(line) for line in call("classify", *crop_files, "--json", *options, *FAST).out.splitlines()]
        for options in ((), ("--explain", tmp_path / "e"))
    )
    for one, other in zip(plain, explained, strict=True):
        assert (one["explained_looks"], other["explained_looks"]) == (one["passes"], 8)
        answer = ("label", "confidence", "passes", "spread", "probabilities", "measures", "mask_agreement")
        assert {name: one[name] for name in answer} == {name: other[name] for name in answer}
    asked = call("classify", crop_files[0], "--explain", tmp_path / "one", "--passes", 1, "--json", *FAST)
    assert json.loads(asked.out)["explained_looks"] == 1


def test_a_turned_cell_has_the_same_top_channels_in_its_figure(cells: tuple[Image8, ...]) -> None:
    """And they add up to the mean logit of all looks."""
    view = case(cells[0]).shown.view
    told = []
    for turned in (view, np.ascontiguousarray(np.rot90(view)), np.ascontiguousarray(view[:, ::-1])):
        (seen,) = classifier().look(turned[None])
        seen = classifier().look_again(seen, turned, 8)
        why = classifier().explain(seen, np.ones((64, 64, 3), np.float32), Question("basophil"))
        told.append({c.channel: round(c.relevance, 9) for c in why.top_channels})
        target = classifier().bundle.manifest.classes.index("basophil")
        assert why.looks == len(seen.each) == 8 and why.logit == pytest.approx(seen.logits[target], abs=1e-5)
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("title", ["", "a" * 3000, "weiße Zelle \u202e.png", "\udcff\ud800.png", "line\nbreak.png", "<b>&amp;"])
def test_whatever_it_is_called_it_is_drawn(cells: tuple[Image8, ...], title: str) -> None:
    assert figure(case(cells[1], title=title)).size[0] == WIDTH


@pytest.mark.parametrize("shade", [0, 255])
def test_an_image_of_nothing_has_a_figure_too(shade: int) -> None:
    assert figure(case(np.full((64, 64, 3), shade, np.uint8))).size[0] == WIDTH


def test_what_is_not_known_is_said() -> None:
    lines = dict(measure_lines(Measures(area_um2=123.4, nucleus_share=0.456, reason="because")))
    assert lines["area"] == "123 um2" and lines["nucleus, share of the cell"] == "46 %"
    assert lines["circularity"] == lines["equivalent diameter"] == "not known"


def test_the_same_cell_is_the_same_file(cells: tuple[Image8, ...], tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        save(figure(case(cells[2])), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_the_animation_has_a_frame_for_each_step(cells: tuple[Image8, ...], tmp_path: Path) -> None:
    shown = case(cells[0]).shown
    states = classifier().history(shown.view)
    architecture = classifier().bundle.manifest.architecture
    assert states.shape == (architecture.steps + 1, architecture.grid, architecture.grid, architecture.channels)
    last = classifier().answer(shown.view[None]).state[0]
    assert np.abs(states[-1] - last).max() <= 1e-3 * np.abs(last).max()
    assert not states[0, ..., architecture.image_channels :].any()
    frames = animation(states, shown.explanation, "a.png")
    save_animation(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (architecture.steps + 1, 0)  # type: ignore[attr-defined]


def test_a_model_of_few_channels_has_a_figure(cells: tuple[Image8, ...]) -> None:
    full = case(cells[0])
    few = replace(full.shown.explanation, top_channels=full.shown.explanation.top_channels[:3])
    assert figure(replace(full, shown=replace(full.shown, explanation=few))).size[0] == WIDTH


def test_explain_writes_one_figure_an_image(crop_files: list[Path], tmp_path: Path, call: Call) -> None:
    (tmp_path / "crops" / "broken.png").write_text("no image")
    done = call("classify", tmp_path / "crops", "--explain", tmp_path / "e", "--animate", "--masks", tmp_path / "m", *FAST)
    assert done.code == 1
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["a.gif", "a.png", "b.gif", "b.png", "c.gif", "c.png"]
    assert len(list((tmp_path / "m").iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--class", "martian"], "--class martian: this model does not know that class; it knows basophil,"),
        (["--against", "martian"], "--against martian: this model does not know that class"),
        (["--class", "basophil", "--against", "basophil"], "is the class itself"),
        (["--animate"], "--animate needs --explain DIR"),
        (["--explain", "crops"], "the figure of a.png would overwrite the image itself"),
        (["--explain", "x", "--masks", "./x"], "give two folders"),
        (["--explain", "crops/a.png"], "is a file; give a folder"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    crop_files: list[Path], call: Call, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    monkeypatch.chdir(crop_files[0].parents[1])
    before = sorted(Path(".").rglob("*"))
    done = call("classify", "crops", *options, *FAST)
    assert (done.code, done.out) == (2, "") and sentence in done.err
    assert sorted(Path(".").rglob("*")) == before


def test_an_image_beside_its_animation_is_not_overwritten(cells: tuple[Image8, ...], tmp_path: Path, call: Call) -> None:
    Image.fromarray(cells[0]).save(tmp_path / "a.gif")
    done = call("classify", tmp_path / "a.gif", "--explain", tmp_path, "--animate", *FAST)
    assert done.code == 2 and "overwrite" in done.err


def test_figures_on_a_full_disk(crop_files: list[Path], small_disk: Callable[[str], Path], call: Call) -> None:
    disk = small_disk("size=4k,nr_inodes=3")
    (disk / "fill").write_bytes(b"x" * 4096)
    done = call("classify", crop_files[0], "--explain", disk, *FAST)
    assert done.code == 1 and "choose another --explain folder" in done.err and "Traceback" not in done.err
