"""Crops that show no whole cell: each has a stated result, and nothing that is written is a NaN."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nca_edge.measure import CUT, NOTHING
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
