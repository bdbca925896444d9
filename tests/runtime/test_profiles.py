"""Board profiles: what ships, what is refused, which board is recognised."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from nca_edge.errors import UsageError
from nca_edge.profiles import BoardProfile, detect_board, device_tree_model, find_profile, load_profiles

GOOD = """
title = "A board"
machine = "aarch64"
device_tree = ["A Board"]
supported = true
os = "Linux"
memory_gb = [4]
notes = []

[cpu]
model = "Cortex-A76"
cores = 4
clock_ghz = 2
int8_dot_product = true
threads = 3
"""


def profile(folder: Path, text: str) -> BoardProfile:
    (folder / "a-board.toml").write_text(text, encoding="utf-8")
    (found,) = load_profiles(folder)
    return found


def board_root(folder: Path, model: bytes) -> Path:
    (folder / "proc/device-tree").mkdir(parents=True)
    (folder / "proc/device-tree/model").write_bytes(model)
    return folder


def test_the_shipped_boards() -> None:
    assert [board.name for board in load_profiles()] == [
        "generic-aarch64",
        "generic-x86-64",
        "jetson-nano",
        "jetson-orin-nano",
        "jetson-xavier-nx",
        "raspberry-pi-4",
        "raspberry-pi-5",
    ]
    assert [board.name for board in load_profiles() if not board.supported] == ["jetson-nano", "jetson-xavier-nx"]


@pytest.mark.parametrize(
    ("name", "model", "cores", "clock_ghz", "int8", "fp32_mac", "int8_mac"),
    [
        ("raspberry-pi-4", "Cortex-A72", 4, 1.8, False, 4, None),
        ("raspberry-pi-5", "Cortex-A76", 4, 2.4, True, 8, 32),
        ("jetson-orin-nano", "Cortex-A78AE", 6, 1.5, True, 8, 32),
        ("jetson-nano", "Cortex-A57", 4, 1.43, False, None, None),
        ("jetson-xavier-nx", "Carmel", 6, 1.4, False, None, None),
    ],
)
def test_the_processors(
    name: str, model: str, cores: int, clock_ghz: float, int8: bool, fp32_mac: int | None, int8_mac: int | None
) -> None:
    cpu = find_profile(name).cpu
    assert cpu is not None
    assert (cpu.model, cpu.cores, cpu.clock_ghz, cpu.int8_dot_product) == (model, cores, clock_ghz, int8)
    assert (cpu.fp32_mac_per_cycle, cpu.int8_mac_per_cycle) == (fp32_mac, int8_mac)


def test_a_profile_is_read_whole(tmp_path: Path) -> None:
    board = profile(tmp_path, GOOD)
    assert (board.name, board.title, board.machine) == ("a-board", "A board", "aarch64")
    assert (board.device_tree, board.memory_gb, board.notes) == (("A Board",), (4,), ())
    assert board.cpu is not None
    assert (board.cpu.threads, board.cpu.clock_ghz, board.cpu.fp32_mac_per_cycle) == (3, 2, None)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no board", encoding="utf-8")
    assert profile(tmp_path, GOOD).name == "a-board"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("notes = []", "notes = []\ncolour = 'red'", "unknown key 'colour'"),
        ("cores = 4", "cores = 4\nsockets = 1", "unknown key 'cpu.sockets'"),
        ('title = "A board"\n', "", "the key 'title' is missing"),
        ("threads = 3\n", "", "the key 'cpu.threads' is missing"),
        ('title = "A board"', "title = 7", "'title' must be a text, not 7"),
        ("supported = true", "supported = 1", "'supported' must be true or false, not 1"),
        ("memory_gb = [4]", "memory_gb = [0.5]", "'memory_gb' must be a list of whole numbers above 0"),
        ("notes = []", 'notes = ["a", 1]', "'notes' must be a list of texts"),
        ("cores = 4", "cores = true", "'cpu.cores' must be a whole number above 0, not True"),
        ("clock_ghz = 2", "clock_ghz = -1.5", "'cpu.clock_ghz' must be a number above 0, not -1.5"),
        ("clock_ghz = 2", "clock_ghz = nan", "'cpu.clock_ghz' must be a number above 0, not nan"),
        ('machine = "aarch64"', 'machine = "armv7l"', "'machine' must be aarch64 or x86_64, not 'armv7l'"),
        ("notes = []", "notes = [", "is no valid TOML"),
    ],
)
def test_a_bad_profile_names_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        profile(tmp_path, GOOD.replace(old, new))
    assert str(caught.value).startswith("Board profile a-board.toml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (b"Raspberry Pi 5 Model B Rev 1.0\0", "raspberry-pi-5"),
        (b"Raspberry Pi 500 Rev 1.0\0", "raspberry-pi-5"),
        (b"Raspberry Pi Compute Module 5 Rev 1.0\0", "raspberry-pi-5"),
        (b"Raspberry Pi 4 Model B Rev 1.4\0", "raspberry-pi-4"),
        (b"Raspberry Pi 400 Rev 1.0\0", "raspberry-pi-4"),
        (b"NVIDIA Jetson Orin Nano Developer Kit\0", "jetson-orin-nano"),
        (b"NVIDIA Orin Nano Developer Kit\0", "jetson-orin-nano"),
        (b"NVIDIA Jetson Nano Developer Kit\0", "jetson-nano"),
        (b"NVIDIA Jetson Xavier NX Developer Kit\0", "jetson-xavier-nx"),
        (b"NVIDIA Jetson AGX Orin Developer Kit\0", "generic-aarch64"),
        (b"Raspberry Pi 3 Model B Plus Rev 1.3\0", "generic-aarch64"),
        (b"\xff\xfe\0", "generic-aarch64"),
        (b"", "generic-aarch64"),
    ],
)
def test_a_board_is_recognised_by_its_device_tree(tmp_path: Path, model: bytes, name: str) -> None:
    assert detect_board(root=board_root(tmp_path, model), machine="aarch64").name == name


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "generic-x86-64"), ("AMD64", "generic-x86-64"), ("aarch64", "generic-aarch64"), ("arm64", "generic-aarch64")],
)
def test_without_a_device_tree_the_architecture_decides(tmp_path: Path, machine: str, name: str) -> None:
    assert device_tree_model(tmp_path) == ""
    assert detect_board(root=tmp_path, machine=machine).name == name


@pytest.mark.parametrize("machine", ["armv7l", "i686", "riscv64", ""])
def test_an_unsupported_architecture_is_said(tmp_path: Path, machine: str) -> None:
    with pytest.raises(UsageError, match="install a 64-bit system"):
        detect_board(root=tmp_path, machine=machine)


def test_this_machine_is_some_board() -> None:
    assert detect_board() in load_profiles()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'pi'.* generic-aarch64, .* raspberry-pi-5"):
        find_profile("pi")


def test_threads_are_never_more_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    board = find_profile("raspberry-pi-5")
    assert board.cpu is not None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert board.default_threads() == 2
    assert find_profile("generic-x86-64").default_threads() == 2
    assert replace(board, cpu=replace(board.cpu, threads=1)).default_threads() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert find_profile("generic-x86-64").default_threads() == 1
