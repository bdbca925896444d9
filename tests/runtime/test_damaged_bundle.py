"""A bundle that cannot be trusted is refused with the file's name and exit code 3."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from done import Call

from nca_edge.bundle import shipped_models


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_models() / "edge", tmp_path / "copy"))


def resign(bundle: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """Give the manifest the hashes of the files as they are now: damage that no hash shows."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    for entry in manifest["files"]:
        entry["sha256"] = hashlib.sha256((bundle / entry["name"]).read_bytes()).hexdigest()
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)


def refused(call: Call, bundle: Path, file: str) -> str:
    done = call("models", "verify", bundle)
    assert (done.code, done.out) == (3, "")
    assert file in done.err and done.err.count("\n") == 1
    return str(done.err)


FILES = ("manifest.json", "weights.npz", "golden.npz", "model.onnx")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_one_flipped_byte(bundle: Path, file: str, share: float, call: Call) -> None:
    data = bytearray((bundle / file).read_bytes())
    data[int(share * len(data))] ^= 0x80
    (bundle / file).write_bytes(data)
    refused(call, bundle, file)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file(bundle: Path, file: str, call: Call) -> None:
    (bundle / file).unlink()
    refused(call, bundle, file)


def unlist_golden(manifest: dict[str, Any]) -> None:
    manifest["files"] = [entry for entry in manifest["files"] if entry["name"] != "golden.npz"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(schema=2),
        lambda m: m.update(schema="1"),
        lambda m: m.update(surprise=1),
        lambda m: m.pop("classes"),
        lambda m: m["classes"].append("martian"),
        lambda m: m.update(classes=[[], {}] * 5 + [[]]),
        lambda m: m.update(groups=["neutrophil"]),
        lambda m: m["groups"].update(martian=["martian"]),
        lambda m: m.update(view_um=float("nan")),
        lambda m: m.update(view_um="wide"),
        lambda m: m.update(mean=3),
        lambda m: m.update(std=[1, 1, 0]),
        lambda m: m.update(temperature=0),
        lambda m: m.update(temperature=True),
        lambda m: m.update(unsure_below=1.5),
        lambda m: m.update(name=7),
        lambda m: m.update(data=[1]),
        lambda m: m.update(metrics=[]),
        lambda m: m["architecture"].update(grid=0),
        lambda m: m["architecture"].update(channels="many"),
        lambda m: m["architecture"].update(pool="median"),
        lambda m: m["architecture"].update(surprise=1),
        lambda m: m["files"].append({"name": "../weights.npz", "sha256": ""}),
        lambda m: m["files"].append({"name": 3, "sha256": ""}),
        lambda m: m["files"].append("weights.npz"),
    ],
)
def test_a_manifest_that_is_not_as_the_schema_says(bundle: Path, change: Callable[[dict[str, Any]], None], call: Call) -> None:
    resign(bundle, change)
    message = refused(call, bundle, "")
    assert "manifest.json" in message or "weights.npz" in message


def test_golden_cells_have_to_be_listed(bundle: Path, call: Call) -> None:
    resign(bundle, unlist_golden)
    refused(call, bundle, "golden.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(bundle: Path, value: float, call: Call) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["head2_bias"][0] = value

    rewrite(bundle / "weights.npz", change)
    resign(bundle)
    refused(call, bundle, "weights.npz")


@pytest.mark.parametrize("value", [1000.0, np.nan])
def test_a_wrong_golden_logit(bundle: Path, value: float, call: Call) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["logits"][0, 0] = value

    rewrite(bundle / "golden.npz", change)
    resign(bundle)
    assert "golden" in refused(call, bundle, "")


def test_other_weights_do_not_reproduce_the_golden_cells(bundle: Path, call: Call) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["head2_bias"] += 1

    rewrite(bundle / "weights.npz", change)
    resign(bundle)
    refused(call, bundle, "weights.npz")


def test_a_graph_that_is_none(bundle: Path, call: Call, crop_files: list[Path]) -> None:
    (bundle / "model.onnx").write_bytes(b"no graph")
    resign(bundle)
    done = call("classify", crop_files[0], "--model", bundle)
    assert (done.code, done.out) == (3, "") and done.err.startswith("model.onnx: ONNX Runtime cannot load it")
