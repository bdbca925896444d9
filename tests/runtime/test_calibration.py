"""A microscope's light, colour and scale: found, stored, kept by a session, refused where they do not belong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fields import photograph, smear
from PIL import Image

from nca_edge.calibration import Calibration, calibration_path, of_document, read_calibration
from nca_edge.classifier import ModelChoice
from nca_edge.errors import UsageError
from nca_edge.live import LiveRequest, begin
from nca_edge.live.calibrate import CalibrateRequest, calibrate, scale_of
from nca_edge.records import Image8

UM = 8.0
"""px per um of the drawn fields."""


def field(number: int) -> Image8:
    """A drawn field with a teal lamp that falls off to the corners."""
    cells = ((120.0 + 90 * number, 150.0), (450.0, 320.0 - 20 * number))
    return photograph(smear(UM, cells), tint=(170, 220, 200), vignette=0.4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scope")
    for n in range(4):
        Image.fromarray(field(n)).save(place / f"{n}.png")
    return place


@pytest.fixture(scope="module")
def found(folder: Path) -> Calibration:
    return calibrate(CalibrateRequest(str(folder), "old-teal", fields=4), False, lambda text: None)


def test_light_colour_and_scale_are_those_of_the_drawing(found: Calibration) -> None:
    assert found.size == (640, 480) and found.scale_fields == 4 and found.red_cells > 40
    assert found.um_per_px == pytest.approx(1 / UM, rel=0.1)
    assert found.um_per_px_range is not None
    low, high = found.um_per_px_range
    assert low < 1 / UM < high and (high - low) / 2 >= 0.1 * found.um_per_px
    assert found.white == pytest.approx((170, 220, 200), abs=6)
    light = found.light.astype(float)
    middle, corner = light[len(light) // 2, light.shape[1] // 2], light[0, 0]
    assert corner == pytest.approx(0.6 * middle, rel=0.08)


def test_a_field_under_its_own_light_is_even_and_white(found: Calibration) -> None:
    from nca_edge.live.chart import Chart
    from nca_edge.live.field import Analyst

    blank = photograph(np.zeros((480, 640, 3)), tint=(170, 220, 200), vignette=0.4)
    flat = Analyst(None, Chart(), None, found).flat(blank).astype(float)  # type: ignore[arg-type]
    means = flat.reshape(8, 60, 8, 80, 3).mean(axis=(1, 3))
    assert means.max() - means.min() < 12
    assert means.mean(axis=(0, 1)) == pytest.approx([means.mean()] * 3, abs=3)


def test_what_is_written_is_read_again(found: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "a" / "scope.json"
    found.write(path)
    again = read_calibration(path)
    assert np.array_equal(again.light, found.light)
    assert replace(again, light=found.light, created="") == replace(found, created="")
    document = json.loads(path.read_text())
    assert document["light"] == "scope.light.png" and "Research use only" in document["notice"]
    kept = of_document(json.loads(json.dumps(found.document())), "the session")
    assert np.array_equal(kept.light, found.light) and kept.um_per_px == found.um_per_px


def test_a_microscope_is_found_by_its_name(found: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found.write(calibration_path("old-teal"))
    assert read_calibration(Path("old-teal")).microscope == "old-teal"
    with pytest.raises(UsageError, match="no name of a microscope"):
        calibration_path("../x")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.update(kind="else"), "is no calibration"),
        (lambda d: d.update(schema=2), "newer nca-edge"),
        (lambda d: d.pop("white"), "is damaged"),
        (lambda d: d.update(size="big"), "is damaged"),
        (lambda d: d.update(light_sha256="0" * 64), "changed or damaged"),
    ],
)
def test_a_changed_file_is_refused(
    found: Calibration, tmp_path: Path, change: Callable[[dict[str, Any]], Any], sentence: str
) -> None:
    path = tmp_path / "scope.json"
    found.write(path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=sentence):
        read_calibration(path)


def test_what_is_no_json_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("light: bright")
    with pytest.raises(UsageError, match="is no calibration"):
        read_calibration(tmp_path / "a.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_calibration(tmp_path / "b.json")


def test_a_frame_of_another_shape_is_refused(found: Calibration) -> None:
    assert found.light_of((1280, 960)).shape == (960, 1280, 3)
    with pytest.raises(UsageError, match="is for frames of 640 x 480, this camera gives 1280 x 720"):
        found.light_of((1280, 720))


def test_the_range_of_a_scale_shrinks_with_fields_but_never_below_what_the_method_knows() -> None:
    assert scale_of([0.1, 0.1]) == (None, None)
    few, many = scale_of([0.08, 0.1, 0.12]), scale_of([0.08, 0.1, 0.12] * 50)
    assert few[0] == many[0] == 0.1 and few[1] is not None and many[1] is not None
    assert few[1][0] < many[1][0] < 0.091 and many[1][1] > 0.109


def test_the_command_writes_and_a_session_keeps_it(call: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    done = call("calibrate", folder, "--name", "teal", "--out", tmp_path / "teal.json", "--fields", 4)
    assert done.code == 0 and "um per pixel" in done.out and "Research use only" in done.out
    asked = LiveRequest("test:", tmp_path / "s", None, None, None, ModelChoice(None, "onnx", "fp32", 1), tmp_path / "teal.json")
    with begin(asked, lambda text: None) as live:
        assert live.session.facts.um_per_px == pytest.approx(1 / UM, rel=0.1)
        assert of_document(live.session.slide.calibration, "it").microscope == "teal"
    Image.fromarray(np.full((480, 640, 3), 200, np.uint8)).save(tmp_path / "blank.png")
    done = call("calibrate", folder, "--out", tmp_path / "two.json", "--fields", 3, "--blank", tmp_path / "blank.png", "--json")
    assert done.code == 0 and json.loads(done.out)["white"] == [200, 200, 200]
    for other in (tmp_path / "two.json", None):
        again = replace(asked, out=None, session=tmp_path / "s", calibration=other)
        if other is None:
            with begin(again, lambda text: None) as live:
                assert live.options.calibration is not None and live.options.calibration.microscope == "teal"
        else:
            with pytest.raises(UsageError, match="began with"), begin(again, lambda text: None):
                pass


def test_too_few_fields_are_told(call: Callable[..., Any], tmp_path: Path) -> None:
    Image.fromarray(field(0)).save(tmp_path / "one.png")
    done = call("calibrate", tmp_path, "--out", tmp_path / "x.json")
    assert done.code == 1 and "Only 1 fields were good enough, 3 are needed" in done.err
    (tmp_path / "text.png").write_text("no image")
    done = call("calibrate", tmp_path / "text.png", "--out", tmp_path / "x.json")
    assert done.code == 1 and done.err.startswith("text.png: not an image that can be read; save it as JPEG or PNG.\nOnly 0 ")
    assert call("calibrate").code == 2
