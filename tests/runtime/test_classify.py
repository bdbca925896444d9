"""`nca-edge classify`: rows, masks, file names and failures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from done import Call
from PIL import Image

from nca_edge import RESEARCH_USE
from nca_edge.bundle import shipped_models

FAST = ("--backend", "onnx", "--threads", "1")


def test_classify_in_order_with_failures(crop_files: list[Path], call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = crop_files[0].parent
    monkeypatch.chdir(folder)
    Path("dot.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save("one.png")
    given = ["c.png", "missing.png", "b.jpg", "dot.png", "./a.png", "one.png", "c.png"]
    done = call("classify", *given, *FAST, "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 1 and done.err == f"{RESEARCH_USE}\n"
    assert [row["file"] for row in rows] == [str(Path(name)) for name in given]
    assert [row.get("error") for row in rows] == [
        None,
        "no such file; check the path.",
        None,
        "not an image that can be read; save it as JPEG or PNG.",
        None,
        "1 x 1 pixels are too few to show a cell; at least 16 a side are needed.",
        None,
    ]
    assert all(set(row) == {"file", "error"} for row in rows if "error" in row)
    assert rows[0] == rows[6]
    plain = call("classify", *given[:3], *FAST)
    assert plain.code == 1
    assert [line.split("\t")[0] for line in plain.out.splitlines()] == ["c.png", "b.jpg"]
    assert plain.err.splitlines()[0] == "missing.png: no such file; check the path."


def test_classify_row_key_by_key(crop_files: list[Path], call: Call) -> None:
    done = call("classify", crop_files[0], "--um-per-px", "0.1", *FAST, "--json")
    assert done.code == 0
    row = json.loads(done.out)
    classes = json.loads((shipped_models() / "edge" / "manifest.json").read_text("utf-8"))["classes"]
    assert list(row) == [
        "file", "label", "confidence", "unsure", "passes", "spread", "mask_agreement", "probabilities", "top_channels",
        "explained", "against", "explained_looks", "logit", "bias_share", "epsilon_share", "outside_share",
        "rests_on_background", "measures", "um_per_px", "scale_source",
    ]  # fmt: skip
    assert (row["explained"], row["against"]) == (row["label"], None)
    assert list(row["measures"]) == [
        "area_um2", "equivalent_diameter_um", "circularity", "nucleus_area_um2", "nucleus_share", "nucleus_cytoplasm_ratio",
        "reason",
    ]  # fmt: skip
    assert 50 < row["measures"]["area_um2"] < 500 and 0 < row["measures"]["circularity"] <= 1
    assert row["file"] == str(crop_files[0])
    assert (row["um_per_px"], row["scale_source"]) == (0.1, "given")
    assert list(row["probabilities"]) == classes
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
    assert row["confidence"] == row["probabilities"][row["label"]]
    assert isinstance(row["unsure"], bool)
    assert len(row["top_channels"]) == 10
    assert all(set(top) == {"channel", "relevance", "peak"} for top in row["top_channels"])
    with Image.open(crop_files[0]) as image:
        width, height = image.size
    assert all(0 <= x < width and 0 <= y < height for x, y in (top["peak"] for top in row["top_channels"]))
    sizes = [abs(top["relevance"]) for top in row["top_channels"]]
    assert sizes == sorted(sizes, reverse=True)


def test_masks(crop_files: list[Path], tmp_path: Path, call: Call) -> None:
    (tmp_path / "crops" / "broken.png").write_text("no image")
    assert call("classify", tmp_path / "crops", tmp_path / "crops" / "a.png", "--masks", tmp_path / "m", *FAST).code == 1
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["a.png", "b.png", "c.png"]
    for path in crop_files:
        with Image.open(tmp_path / "m" / f"{path.stem}.png") as mask, Image.open(path) as image:
            assert (mask.mode, mask.size) == ("L", image.size)
            assert set(np.unique(np.asarray(mask)).tolist()) <= {0, 128, 255}
    assert call("classify", tmp_path / "crops" / "a.png", "--masks", tmp_path / "m", *FAST).code == 0  # once more


def test_masks_on_a_full_disk(crop_files: list[Path], small_disk: Callable[[str], Path], call: Call) -> None:
    disk = small_disk("size=4k,nr_inodes=3")
    (disk / "fill").write_bytes(b"x" * 4096)
    done = call("classify", crop_files[0], "--masks", disk, *FAST)
    assert done.code == 1 and "choose another --masks folder" in done.err and "Traceback" not in done.err
    read_only = small_disk("ro")
    done = call("classify", crop_files[0], "--masks", read_only / "m", *FAST)
    assert done.code == 1 and "Read-only file system" in done.err


# --- what only a process of its own shows


def test_odd_file_names(crop_files: list[Path], program: Path) -> None:
    names = [b"line\nbreak.png", "weiße Zelle.png".encode(), b"latin-\xfc.png", b"-dash.png"]
    folder = os.fsencode(crop_files[0].parent)
    for name in names:
        shutil.copy(crop_files[0], os.path.join(folder, name))
    command = [str(program), "classify", *FAST, "--", *names, b"gone-\xff\n.png"]
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, env=env)
    assert done.returncode == 1
    told = [line.split("\t")[0] for line in done.stdout.decode("utf-8").splitlines()]
    assert told == [r"line\nbreak.png", "weiße Zelle.png", r"latin-\udcfc.png", "-dash.png"]
    assert done.stderr.decode("utf-8").splitlines()[0] == r"gone-\udcff\n.png: no such file; check the path."


def test_a_reader_that_leaves_early(crop_files: list[Path], program: Path) -> None:
    shell = f'"{program}" classify {" ".join(FAST)} --json {"a.png " * 8} 2>err | head -n 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell], cwd=crop_files[0].parent, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["file"] == "a.png"
    assert done.returncode == 1
    assert (crop_files[0].parent / "err").read_text() in ("", f"{RESEARCH_USE}\n")
