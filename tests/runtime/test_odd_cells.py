"""Crops that show no whole cell: each has a stated result, and nothing that is written is a NaN."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from nca_edge.measure import CUT, NOTHING
from nca_edge.preprocess import correct, crop_background
from nca_edge.quality import nothing_in
from nca_edge.records import Image8

Call = Callable[..., Any]
FAST = ("--backend", "onnx", "--threads", "1")


def parsed(text: str) -> Any:
    """JSON without NaN and Infinity, which no other program could read."""

    def refuse(constant: str) -> None:
        pytest.fail(f"the output holds {constant}")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def odd(tmp_path: Path, cells: tuple[Image8, ...]) -> Path:
    """Images by what is odd about them."""
    h, w = cells[0].shape[:2]
    noise = np.clip(np.random.default_rng(0).normal(240, 2, (120, 120, 3)), 0, 255).astype(np.uint8)
    nucleus = np.ascontiguousarray(cells[0][h * 2 // 5 : h * 3 // 5, w * 2 // 5 : w * 3 // 5]).repeat(5, 0).repeat(5, 1)
    images = {
        "black": np.zeros((120, 120, 3), np.uint8), "cut": cells[0][:, w // 2 - w // 10 :], "empty": noise,
        "filled": nucleus, "grey": np.full((120, 120, 3), 128, np.uint8),
    }  # fmt: skip
    (tmp_path / "odd" / "basophil").mkdir(parents=True)
    for name, image in images.items():
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / "odd" / "basophil" / f"{name}.png")
    return tmp_path / "odd"


def test_each_odd_crop_has_a_stated_result(odd: Path, tmp_path: Path, call: Call) -> None:
    options = ("--um-per-px", 0.1, "--explain", tmp_path / "figures", "--masks", tmp_path / "masks", "--json", *FAST)
    done = call("classify", odd / "basophil", *options)
    rows = {Path(row["file"]).stem: row for row in map(parsed, done.out.splitlines())}
    assert done.code == 0 and len(rows) == 5
    for name in ("black", "empty", "grey"):
        assert rows[name]["measures"]["reason"] == NOTHING.reason and rows[name]["outside_share"] is None
        assert not np.asarray(Image.open(tmp_path / "masks" / f"{name}.png")).any()
        assert rows[name]["rests_on_background"] is False
    assert rows["cut"]["measures"]["reason"] == CUT and rows["filled"]["measures"]["reason"] in (CUT, NOTHING.reason)
    for row in rows.values():
        assert all(value is None for key, value in row["measures"].items() if key != "reason")
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert len(list((tmp_path / "figures").iterdir())) == 5


def test_explanations_of_odd_crops_alone_can_be_judged(odd: Path, call: Call) -> None:
    for name in ("cut", "filled", "empty"):
        (odd / "basophil" / f"{name}.png").unlink()
    done = call("evaluate", "--data", odd, "--explanations", "--json", *FAST)
    told = parsed(done.out)["explanations"]
    assert done.code == 0, done.err
    assert told["n"] == 2 and told["peaks"]["no_mask"] == 2 and told["peaks"]["inside"] == 0


def nothing(kind: str, side: int = 120) -> Image8:
    """A picture that shows no cell."""
    rng = np.random.default_rng(0)
    if kind == "print":
        page = Image.new("RGB", (side, side), "white")
        for y in range(4, side, 12):
            ImageDraw.Draw(page).text((3, y), "no cell, but a page of words", fill=(20, 20, 20))
        return np.asarray(page)
    if kind == "grey ramp":
        return np.linspace(60, 220, side)[None, :, None].repeat(side, 0).repeat(3, 2).astype(np.uint8)
    if kind == "any colours":
        return rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    level, spread = NOISE[kind]
    return np.clip(rng.normal(level, spread, (side, side, 3)), 0, 255).astype(np.uint8)


NOISE = {"black": (0, 0), "dark": (3, 3), "dim": (15, 20), "grey": (128, 0), "grainy": (128, 20), "white": (245, 4)}
SAYS = {
    "black": "the image is black", "dark": "the image is black", "dim": "only noise", "grey": "of one colour",
    "grainy": "only noise", "white": "only noise", "print": "only noise or print", "any colours": "only noise",
    "grey ramp": "all colours are absorbed alike",
}  # fmt: skip


@pytest.mark.parametrize("side", [60, 120, 400, 1500])
@pytest.mark.parametrize("kind", SAYS)
def test_a_picture_without_a_cell_is_told_from_one(kind: str, side: int) -> None:
    rgb = nothing(kind, side)
    said = nothing_in(rgb, correct(rgb, crop_background(rgb)))
    assert said is not None
    if side == 120:
        assert SAYS[kind] in said


def test_a_picture_without_a_cell_is_unsure_and_not_outlined(tmp_path: Path, call: Call) -> None:
    for kind in SAYS:
        Image.fromarray(nothing(kind)).save(tmp_path / f"{kind}.png")
    figures = ("--explain", tmp_path / "figures", "--masks", tmp_path / "masks")
    done = call("classify", *(tmp_path / f"{kind}.png" for kind in SAYS), *figures, "--json", *FAST)
    assert done.code == 0, done.err
    for kind, row in zip(SAYS, map(parsed, done.out.splitlines()), strict=True):
        assert row["unsure"] is True and SAYS[kind] in row["no_cell"]
        assert row["outside_share"] is None and row["measures"]["reason"] == NOTHING.reason
        assert not np.asarray(Image.open(tmp_path / "masks" / f"{kind}.png")).any()
    plain = call("classify", tmp_path / "dark.png", *FAST)
    assert plain.out.rstrip().endswith("unsure  the image is black: check the lamp, the exposure time and the file")


def test_real_cells_are_cells_in_any_light(cells: tuple[Image8, ...]) -> None:
    """Also four times darker, paler, with noise, blurred and as a poor JPEG."""
    rng = np.random.default_rng(0)
    for cell in cells:
        poor = io.BytesIO()
        Image.fromarray(cell).save(poor, "JPEG", quality=20)
        noisy = np.clip(cell + rng.normal(0, 12, cell.shape), 0, 255).astype(np.uint8)
        pale = (255 - (255.0 - cell) * 0.6).astype(np.uint8)
        blurred = np.asarray(Image.fromarray(cell).filter(ImageFilter.GaussianBlur(2)))
        for image in (cell, cell // 4, noisy, pale, blurred, np.asarray(Image.open(poor))):
            assert nothing_in(image, correct(image, crop_background(image))) is None
