"""The command line: exit codes, what goes to which stream, help, and a bundle that cannot be trusted."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from nca_edge import RESEARCH_USE, __version__
from nca_edge.bundle import shipped_models
from nca_edge.cli import app
from nca_edge.terminal import printable

Call = Callable[..., Any]
FAST = ("--backend", "onnx", "--threads", "1")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands() -> None:
    assert {"run", "classify", "evaluate", "report", "devices", "models list", "models verify"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str, call: Call) -> None:
    command = COMMANDS[name]
    assert command.help.strip().endswith(".")
    assert [p.name for p in command.params if not p.help] == []
    done = call(*name.split(), "--help")
    assert (done.code, done.err) == (0, "")
    for parameter in command.params:
        assert all(option in done.out for option in parameter.opts if option.startswith("--"))


def test_help_and_version(call: Call) -> None:
    shown = call("--help")
    assert shown.code == 0
    text = " ".join(shown.out.split())
    assert RESEARCH_USE in text and "3 a model that cannot be trusted" in text
    assert all(f" {name.split()[0]} " in text for name in COMMANDS)
    assert call("--version") == (0, f"nca-edge {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "nca-edge run FOLDER"),
        (["run", "."], "holds no image"),
        (["run", "missing"], "missing: no such file or folder"),
        (["run", "crops", "--out", "a", "--session", "b"], "give one of them"),
        (["run", "crops", "--session", "crops"], "is not a session"),
        (["run", "crops", "--target", "0"], "--target"),
        (["run", "crops", "--out", "text.txt"], "is a file, not a folder"),
        (["run", "crops", "--um-per-px", "nan"], "--um-per-px nan: a microscope gives 0.01 to 2"),
        (["run", "crops", "--um-per-px", "inf"], "--um-per-px inf"),
        (["run", "crops", "--um-per-px", "-0.1"], "--um-per-px -0.1"),
        (["classify"], "IMAGES"),
        (["classify", "crops", "--um-per-px", "100"], "check the unit"),
        (["classify", "crops", "--um-per-px", "wide"], "--um-per-px"),
        (["classify", "crops", "--backend", "litter"], "--backend"),
        (["classify", "crops", "--precision", "fp7"], "--precision"),
        (["classify", "crops", "--threads", "-1"], "--threads"),
        (["classify", "crops", "--threads", "100000"], "--threads"),
        (["classify", "crops", "--model", "nonesuch"], "no model 'nonesuch': give a bundle's folder or one of edge"),
        (["classify", "crops", "--masks", "crops"], "the mask of a.png would overwrite the image itself"),
        (["classify", "crops", "--masks", "text.txt"], "is a file; give a folder"),
        (["classify", "crops", "twin/A.jpg", "--masks", "m"], "is the stem of more than one image"),
        (["classify", "twin"], "holds no image"),
        (["evaluate", "--data", "missing"], "missing: no such folder"),
        (["evaluate", "--data", "crops"], "holds no labelled image"),
        (["evaluate", "--data", "crops", "--map", "missing"], "--map missing: cannot be read as JSON"),
        (["report", "missing"], "missing is not a session"),
        (["models", "verify", "missing"], "no model 'missing'"),
        (["nonesuch"], "nonesuch"),
        (["run", "crops", "--nonesuch"], "--nonesuch"),
    ],
)
def test_wrong_use(
    arguments: list[str], sentence: str, crop_files: list[Path], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = crop_files[0].parents[1]
    monkeypatch.chdir(folder)
    (folder / "text.txt").touch()
    (folder / "twin").mkdir()
    if arguments == ["run", "."]:
        shutil.rmtree(folder / "crops")
    if "twin/A.jpg" in arguments:
        shutil.copy(folder / "crops" / "b.jpg", folder / "twin" / "A.jpg")
    before = sorted(folder.rglob("*"))
    done = call(*arguments)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err and "Traceback" not in done.err
    assert sorted(folder.rglob("*")) == before


def test_numpys_own_threads_are_left_off_unless_wanted(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    call("devices")
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    call("train", "no-such-recipe", "--data", "nowhere")
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    call("devices")
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


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


def test_devices_and_models(call: Call) -> None:
    told = call("devices", "--json")
    boards = json.loads(told.out)
    assert (told.code, told.err) == (0, "")
    assert boards["detected"] in {board["name"] for board in boards["boards"]}
    plain = call("devices")
    assert (plain.code, plain.err) == (0, "") and plain.out.count("* ") == 2
    (model,) = [model for model in json.loads(call("models", "list", "--json").out) if model["name"] == "edge"]
    assert set(model) == {"name", "classes", "parameters", "metrics"}
    assert "edge\t" in call("models", "list").out
    verified = call("models", "verify")
    names = ["numpy fp32", "litert fp32", "litert int8", "onnx fp32", "onnx int8"]
    lacking: list[str] = []
    if not importlib.util.find_spec("ai_edge_litert"):  # the wheel alone
        names, lacking = [name for name in names if "litert" not in name], ["litert fp32", "litert int8"]
    needs = "not tried: the litert backend needs an optional part: install it with pip install 'nca-edge[litert]'."
    assert verified.out == "".join(f"edge: {name} reproduces the golden cells\n" for name in names)
    assert (verified.code, verified.err) == (0, "".join(f"edge: {name} {needs}\n" for name in lacking))


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


def test_a_file_name_cannot_break_a_line() -> None:
    assert printable("weiße Zelle.png") == "weiße Zelle.png"
    assert printable("a\nb\x1b[31m\u2028\u202e\udcff") == r"a\nb\x1b[31m\u2028\u202e\udcff"


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written(program: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(program), "devices"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "output: No space left on device; check the path, its permissions and the disk.\n"


def test_without_any_stream(program: Path) -> None:
    shell = f'"{program}" devices >&- 2>&-'
    assert subprocess.run(["bash", "-c", shell], timeout=60).returncode == 0


def test_a_missing_extra_is_named(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "nca_train.loop", raising=False)
    done = call("train", "edge", "--data", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == "training needs an optional part: install it with pip install 'nca-edge[train]'.\n"
