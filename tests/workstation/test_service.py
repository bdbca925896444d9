"""The service and the scripts that set a board up, as far as they go without a board."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEVICES = Path(__file__).parents[2] / "devices"
UNIT = "etc/systemd/system/nca-edge.service"


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}")
    return found


def image(tmp_path: Path, home: str = "opt/nca-edge") -> Path:
    """A system in a folder, with nca-edge in it."""
    program = tmp_path / "system" / home / "bin" / "nca-edge"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", "utf-8")
    program.chmod(0o755)
    return tmp_path / "system"


def set_up(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(DEVICES / "setup-service.sh"), *arguments]
    return subprocess.run(command, env={**os.environ, "NCA_EDGE_ROOT": str(root)}, capture_output=True, text=True, check=False)


def test_scripts_are_clean() -> None:
    scripts = sorted(map(str, DEVICES.glob("*.sh")))
    assert len(scripts) == 4
    done = subprocess.run([needs("shellcheck"), *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze, root = needs("systemd-analyze"), image(tmp_path)
    assert set_up(root).returncode == 0
    command = [analyze, "verify", "--man=no", "--recursive-errors=no", f"--root={root}", "nca-edge.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "nca-edge" not in done.stderr, done.stderr


def test_systemd_calls_it_hardened(tmp_path: Path) -> None:
    analyze, root = needs("systemd-analyze"), image(tmp_path)
    set_up(root)
    command = [analyze, "security", "--offline=true", "--no-pager", f"--root={root}", "nca-edge.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    level = re.search(r"exposure level for nca-edge\.service: ([\d.]+)", done.stdout)
    if level is None:
        pytest.skip("this systemd judges running services only")
    assert float(level[1]) <= 2.0  # 0 to 10; a service without any of it has 9.6


def test_the_unit_says_what_the_program_does() -> None:
    unit = (DEVICES / "nca-edge.service").read_text("utf-8")
    for line in (
        "Type=notify", "WatchdogSec=60", "Restart=on-failure", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes",
        "IPAddressDeny=any", "CapabilityBoundingSet=", "Environment=HOME=/var/lib/nca-edge XDG_STATE_HOME=/var/lib/nca-edge",
    ):  # fmt: skip
        assert f"\n{line}\n" in unit
    assert "not a medical device" in unit


def test_again_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    root = image(tmp_path)
    assert set_up(root).returncode == 0
    (root / "etc/default/nca-edge").write_text("NCA_EDGE_OPTIONS=--target 100\n", "utf-8")
    (root / UNIT).write_text("an older version", "utf-8")
    assert set_up(root).returncode == 0
    assert (root / "etc/default/nca-edge").read_text("utf-8") == "NCA_EDGE_OPTIONS=--target 100\n"
    assert (root / UNIT).read_text("utf-8") == (DEVICES / "nca-edge.service").read_text("utf-8")


def test_another_place(tmp_path: Path) -> None:
    root = image(tmp_path, "srv/count")
    assert set_up(root, "/srv/count").returncode == 0
    assert "\nExecStart=/srv/count/bin/nca-edge serve --camera $NCA_EDGE_OPTIONS\n" in (root / UNIT).read_text("utf-8")


@pytest.mark.parametrize(
    "home, said",
    [
        ("relative", "give the whole path"),
        ("/with space", "choose another folder"),
        ("/srv/nothing", "first run NCA_EDGE_HOME=/srv/nothing"),
        ("/home/anna/nca-edge", "may not read homes"),
    ],
)
def test_what_cannot_work_is_said_first(tmp_path: Path, home: str, said: str) -> None:
    root = image(tmp_path, "home/anna/nca-edge")
    done = set_up(root, home)
    assert done.returncode == 2 and said in done.stderr and not (root / UNIT).exists()


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "Which wheel?"),
        (["--service"], "Which wheel?"),
        (["nothing.whl"], "There is no file nothing.whl."),
        (["{wheel}", "no-folder"], "There is no folder no-folder."),
    ],
)
def test_setup_says_what_is_missing(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "a.whl").touch()
    command = [str(DEVICES / "setup-raspberry-pi.sh"), *(word.format(wheel=tmp_path / "a.whl") for word in arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr
