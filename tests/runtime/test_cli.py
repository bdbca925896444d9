"""The command line: help, wrong use, exit codes, and what goes to which stream."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from done import Call

from nca_edge import RESEARCH_USE, __version__
from nca_edge.backends.native import library
from nca_edge.cli import app
from nca_edge.terminal import printable


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands() -> None:
    assert {"run", "classify", "evaluate", "report", "devices", "models list", "models verify", "models install"} <= set(
        COMMANDS
    )


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
        (
            ["evaluate", "--data", "crops", "--map", "crops"],
            "--map crops: cannot be read as JSON (Is a directory)",
        ),
        (["bench", "--data", "missing"], "missing: no such folder; give --data a folder"),
        (["bench", "--out", "crops"], "--out crops: is a folder; give a file."),
        (["bench", "--chart", "crops"], "--chart crops: is a folder; give a file."),
        (["report", "missing"], "missing is not a session"),
        (["session", "list", "missing"], "missing: no such folder; give the one that holds the sessions."),
        (["session", "list", "text.txt"], "text.txt: no such folder"),
        (["session", "prune", "missing", "--older-than", "30"], "missing: no such folder"),
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


def test_devices_and_models(call: Call) -> None:
    told = call("devices", "--json")
    boards = json.loads(told.out)
    assert (told.code, told.err) == (0, "")
    assert boards["detected"] in {board["name"] for board in boards["boards"]}
    plain = call("devices")
    assert (plain.code, plain.err) == (0, "") and plain.out.count("* ") == 2
    (model,) = [model for model in json.loads(call("models", "list", "--json").out) if model["name"] == "edge"]
    assert set(model) == {"name", "classes", "parameters", "metrics", "installed"}
    assert "edge\t" in call("models", "list").out
    verified = call("models", "verify")
    names = ["numpy fp32", "litert fp32", "litert int8", "native int8", "onnx fp32", "onnx int8"]
    lacking: list[str] = []
    if library.missing() is not None:
        pytest.skip("no compiled step here: test_native.py asks for its sentence")
    if not importlib.util.find_spec("ai_edge_litert"):  # the wheel alone
        names, lacking = [name for name in names if "litert" not in name], ["litert fp32", "litert int8"]
    needs = "not tried: the litert backend needs an optional part: install it with pip install 'nca-edge[litert]'."
    assert verified.out == "".join(f"edge: {name} reproduces the golden cells\n" for name in names)
    assert (verified.code, verified.err) == (0, "".join(f"edge: {name} {needs}\n" for name in lacking))


def test_a_file_name_cannot_break_a_line() -> None:
    assert printable("weiße Zelle.png") == "weiße Zelle.png"
    assert printable("a\nb\x1b[31m\u2028\u202e\udcff") == r"a\nb\x1b[31m\u2028\u202e\udcff"


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
