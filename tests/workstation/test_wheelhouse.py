"""A folder of wheels is checked as the board's Python sees it, before anybody carries it there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def wheel(folder: Path, name: str, tag: str = "py3-none-any", *requires: str) -> None:
    """One whose metadata are all that it holds."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.2", *(f"Requires-Dist: {one}" for one in requires)]
    if name == "nca-edge":
        lines.append("Provides-Extra: web")
    plain = name.replace("-", "_")
    with zipfile.ZipFile(folder / f"{plain}-1.2-{tag}.whl", "w") as archive:
        archive.writestr(f"{plain}-1.2.dist-info/METADATA", "\n".join(lines) + "\n")


def check(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECKOUT / "devices/check_wheelhouse.py"), str(folder), python, "web"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    wheel(tmp_path, "nca-edge", "py3-none-any", "numbers>=1", "page>=1; extra == 'web'", "never; sys_platform == 'win32'")
    wheel(tmp_path, "page", "py3-none-any", "groups>=1; python_version < '3.11'")
    wheel(tmp_path, "numbers", "cp311-cp311-manylinux_2_28_aarch64")
    return tmp_path


def test_a_whole_folder_passes(folder: Path) -> None:
    done = check(folder, "311")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_only_the_boards_python_needs_is_missed(folder: Path) -> None:
    wheel(folder, "numbers", "cp310-cp310-manylinux2014_aarch64")
    done = check(folder, "310")
    assert done.returncode == 1
    assert done.stderr == f"{folder}: for Python 3.10, groups>=1 is missing; page asks for it.\n"
    wheel(folder, "groups")
    assert check(folder, "310").returncode == 0


def test_wheels_of_another_python_or_processor_do_not_count(folder: Path) -> None:
    wheel(folder, "numbers", "cp313-cp313-manylinux_2_28_x86_64")
    done = check(folder, "313")
    assert done.returncode == 1
    assert done.stderr == f"{folder}: for Python 3.13, numbers>=1 is missing; nca-edge asks for it.\n"


def test_an_old_version_does_not_count(folder: Path) -> None:
    wheel(folder, "nca-edge", "py3-none-any", "numbers>=2")
    done = check(folder, "311")
    assert done.returncode == 1 and "numbers>=2 is missing; nca-edge asks for it" in done.stderr
