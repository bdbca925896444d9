"""What is known about each board, and which board this is.

The facts are data: one TOML file a board in the package ``nca_devices``. A new board is a new file, not a new branch in code.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from nca_edge.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """The processor of a board. Peaks are upper bounds for a prediction, never a measurement."""

    model: str
    """Core, such as ``Cortex-A76``."""
    cores: int
    """Number of cores."""
    clock_ghz: float
    """Highest usual clock, GHz."""
    int8_dot_product: bool
    """Whether the cores have 8-bit dot-product instructions (ARMv8.2 SDOT); without them int8 gains little."""
    threads: int
    """Threads a backend uses on this board unless told otherwise."""
    fp32_mac_per_cycle: int | None = None
    """Peak single-precision multiply-accumulates per cycle and core; None where no figure is known."""
    int8_mac_per_cycle: int | None = None
    """Peak 8-bit multiply-accumulates per cycle and core; None where no figure is known."""


@dataclass(frozen=True, slots=True)
class BoardProfile:
    """One board."""

    name: str
    """Name on the command line: the file's stem, such as ``raspberry-pi-5``."""
    title: str
    """Name for a person."""
    machine: str
    """Architecture, ``aarch64`` or ``x86_64``."""
    device_tree: tuple[str, ...]
    """The board is meant when one of these is part of its device-tree model; empty for the generic profiles."""
    supported: bool
    """False: known, and out of scope; ``notes`` say why."""
    os: str
    """The system it is meant to run, with the Python that comes with it."""
    memory_gb: tuple[int, ...]
    """Memory sizes it is sold with, GB; empty where that says nothing."""
    notes: tuple[str, ...]
    """Sentences for the person who sets it up."""
    cpu: CpuFacts | None
    """None for the generic profiles, which stand for many processors."""

    def default_threads(self) -> int:
        """Threads to use here: the profile's figure, never more than this process may use."""
        usable = _usable_cpus()
        return usable if self.cpu is None else min(self.cpu.threads, usable)


@dataclass(frozen=True, slots=True)
class _Kind:
    phrase: str
    fits: Callable[[Any], bool]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int to Python, not to a reader


_TEXT = _Kind("a text", lambda value: isinstance(value, str) and bool(value))
_TEXTS = _Kind("a list of texts", lambda value: isinstance(value, list) and all(map(_TEXT.fits, value)))
_BOOL = _Kind("true or false", lambda value: isinstance(value, bool))
_COUNT = _Kind("a whole number above 0", lambda value: _whole(value) and value > 0)
_COUNTS = _Kind("a list of whole numbers above 0", lambda value: isinstance(value, list) and all(map(_COUNT.fits, value)))
_NUMBER = _Kind("a number above 0", lambda value: (_whole(value) or isinstance(value, float)) and 0 < value < float("inf"))
_TABLE = _Kind("a table", lambda value: isinstance(value, dict))

_BOARD_KEYS = {
    "title": _TEXT,
    "machine": _TEXT,
    "device_tree": _TEXTS,
    "supported": _BOOL,
    "os": _TEXT,
    "memory_gb": _COUNTS,
    "notes": _TEXTS,
    "cpu": _TABLE,
}
_BOARD_OPTIONAL = frozenset({"memory_gb", "cpu"})
_CPU_KEYS = {
    "model": _TEXT,
    "cores": _COUNT,
    "clock_ghz": _NUMBER,
    "int8_dot_product": _BOOL,
    "threads": _COUNT,
    "fp32_mac_per_cycle": _COUNT,
    "int8_mac_per_cycle": _COUNT,
}
_CPU_OPTIONAL = frozenset({"fp32_mac_per_cycle", "int8_mac_per_cycle"})


def load_profiles(folder: Path | None = None) -> tuple[BoardProfile, ...]:
    """Read every board profile.

    Parameters
    ----------
    folder : Path, optional
        Where the TOML files lie; the installed ``nca_devices`` unless given.

    Returns
    -------
    tuple of BoardProfile
        Sorted by name.

    Raises
    ------
    UsageError
        A file is no TOML, or a key is unknown, missing or of the wrong type. The message names file and key.
    """
    entries = (folder or files("nca_devices")).iterdir()
    return tuple(
        _parse(entry.name, entry.read_text(encoding="utf-8"))
        for entry in sorted(entries, key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    )


def find_profile(name: str, profiles: tuple[BoardProfile, ...] | None = None) -> BoardProfile:
    """Return the profile of that name; an unknown name is a ``UsageError`` that lists the known ones."""
    known = load_profiles() if profiles is None else profiles
    for profile in known:
        if profile.name == name:
            return profile
    raise UsageError(f"There is no board named {name!r}; choose one of: {', '.join(p.name for p in known)}.")


def detect_board(
    profiles: tuple[BoardProfile, ...] | None = None, *, root: Path = Path("/"), machine: str | None = None
) -> BoardProfile:
    """Say which board this is: by its device-tree model, else by its architecture.

    Parameters
    ----------
    profiles : tuple of BoardProfile, optional
        The boards to choose from; all that are installed unless given.
    root : Path
        The file system's root, another folder in tests.
    machine : str, optional
        Architecture as ``platform.machine()`` gives it, which is the default.

    Raises
    ------
    UsageError
        The architecture is none that the program runs on, such as a 32-bit system.
    """
    known = load_profiles() if profiles is None else profiles
    model = device_tree_model(root)
    for profile in known:
        if any(part in model for part in profile.device_tree):
            return profile
    found = platform.machine() if machine is None else machine
    wanted = _MACHINES.get(found.lower())
    for profile in known:
        if profile.machine == wanted and not profile.device_tree:
            return profile
    raise UsageError(f"A processor of type {found!r} is not supported: install a 64-bit system for x86-64 or ARM (aarch64).")


def device_tree_model(root: Path = Path("/")) -> str:
    """Return the board's own name, such as ``Raspberry Pi 5 Model B Rev 1.0``; empty where there is none (most PCs)."""
    try:
        raw = (root / "proc/device-tree/model").read_bytes()
    except OSError:
        return ""
    return raw.rstrip(b"\0").decode("utf-8", errors="replace").strip()


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # fewer than cpu_count() in a container or under taskset
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parse(file: str, text: str) -> BoardProfile:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"Board profile {file} is no valid TOML: {error}.") from error
    board = _checked(file, table, _BOARD_KEYS, _BOARD_OPTIONAL)
    if board["machine"] not in _MACHINES.values():
        raise UsageError(f"Board profile {file}: 'machine' must be aarch64 or x86_64, not {board['machine']!r}.")
    cpu = board.pop("cpu", None)
    return BoardProfile(
        name=file.removesuffix(".toml"),
        cpu=None if cpu is None else CpuFacts(**_checked(file, cpu, _CPU_KEYS, _CPU_OPTIONAL, inside="cpu.")),
        **{"memory_gb": (), **board},
    )


def _checked(
    file: str, table: Mapping[str, Any], kinds: Mapping[str, _Kind], optional: frozenset[str], inside: str = ""
) -> dict[str, Any]:
    for key in table:
        if key not in kinds:
            raise UsageError(f"Board profile {file}: unknown key '{inside}{key}'; the known ones are {', '.join(kinds)}.")
    for key, kind in kinds.items():
        if key not in table and key not in optional:
            raise UsageError(f"Board profile {file}: the key '{inside}{key}' is missing; it is {kind.phrase}.")
    for key, value in table.items():
        if not kinds[key].fits(value):
            raise UsageError(f"Board profile {file}: '{inside}{key}' must be {kinds[key].phrase}, not {value!r}.")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
