"""A bundle from a USB stick becomes one of this machine's own models, or nothing changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from done import Call

from nca_edge.bundle import find_bundle, load_bundle, shipped_models
from nca_edge.bundle_writer import replaced
from nca_edge.errors import StorageError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where installed models lie."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "nca-edge" / "models"


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_models() / "edge", tmp_path / "stick" / "some folder"))


def renamed(bundle: Path, name: str) -> Path:
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "name": name}), "utf-8")
    return bundle


def test_it_is_found_by_its_name(stick: Path, home: Path, call: Call) -> None:
    done = call("models", "install", renamed(stick, "clinic-7"))
    assert done.code == 0 and done.out.endswith(f"installed in {home / 'clinic-7'}: --model clinic-7\n")
    shutil.rmtree(stick)  # the stick is pulled
    assert find_bundle("clinic-7") == home / "clinic-7"
    assert load_bundle(find_bundle("clinic-7")).manifest.name == "clinic-7"
    shipped, own = sorted(json.loads(call("models", "list", "--json").out), key=lambda row: row["name"] == "clinic-7")
    assert (shipped["installed"], own["installed"]) == (None, str(home / "clinic-7"))
    assert f"installed in {home / 'clinic-7'}" in call("models", "list").out
    assert call("models", "verify", "clinic-7").code == 0


def test_one_of_a_shipped_name_stands_in_for_it_until_its_folder_is_deleted(stick: Path, home: Path, call: Call) -> None:
    (stick / "a note.txt").write_text("not in the manifest", "utf-8")
    assert call("models", "install", stick).code == 0
    assert find_bundle(None) == home / "edge" and not (home / "edge" / "a note.txt").exists()
    assert call("models", "install", stick).code == 0  # again: the newer makes the older go
    assert [path.name for path in home.iterdir()] == ["edge"]
    shutil.rmtree(home / "edge")
    assert find_bundle(None) == shipped_models() / "edge"


def test_a_damaged_bundle_leaves_what_was_installed(stick: Path, home: Path, call: Call) -> None:
    assert call("models", "install", stick).code == 0
    before = {path.name: path.read_bytes() for path in (home / "edge").iterdir()}
    (stick / "model.onnx").write_bytes((stick / "model.onnx").read_bytes()[:-1])
    done = call("models", "install", stick)
    assert (done.code, done.out) == (3, "") and "model.onnx: its content is not what the manifest" in done.err
    assert {path.name: path.read_bytes() for path in (home / "edge").iterdir()} == before


@pytest.mark.parametrize("name", ["..", "a/b", "a name", ".hidden", "x" * 65])
def test_a_name_that_is_no_folder_of_ours(stick: Path, home: Path, name: str, call: Call) -> None:
    done = call("models", "install", renamed(stick, name))
    assert done.code == 3 and "is no name of a model" in done.err and not home.exists()


def test_what_is_no_bundle(tmp_path: Path, home: Path, call: Call) -> None:
    done = call("models", "install", tmp_path / "missing")
    assert (done.code, done.out) == (2, "") and "is no folder; give the folder of a bundle" in done.err
    (tmp_path / "empty").mkdir()
    done = call("models", "install", tmp_path / "empty")
    assert (done.code, done.out) == (3, "") and "manifest.json: cannot be read" in done.err and not home.exists()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "manifest.json").write_text("old", "utf-8")

    def fill(folder: Path) -> None:
        (folder / "manifest.json").write_text("half", "utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"edge: cannot be written \(No space left on device\); make room"):
        replaced(tmp_path / "edge", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["edge"]
    assert (tmp_path / "edge" / "manifest.json").read_text("utf-8") == "old"
