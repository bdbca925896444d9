"""Facts of the board that a latency belongs to, and what its sensors say while it is measured."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nca_edge.backends import BACKENDS
from nca_edge.errors import UsageError
from nca_edge.profiles import detect_board, device_tree_model
from nca_edge.trial import installed

FEATURES = ("asimddp", "i8mm", "sve", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
"""Instructions that decide how quick 8 bits are."""
_THROTTLED = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of a Raspberry Pi's firmware that are set now."""


@dataclass(frozen=True, slots=True)
class Board:
    """What stands beside every latency."""

    profile: str
    """Name of the board's profile, ``unknown`` where the processor has none."""
    model: str
    """As the machine calls itself."""
    cpu: str
    features: tuple[str, ...]
    """Of ``FEATURES``, those it has."""
    cpus: int
    """That this process may use."""
    governor: str | None
    memory_mb: int | None
    os: str
    python: str
    runtimes: tuple[str, ...]
    """Name and version of each runtime that is installed."""
    tree: str = ""
    """The model in its device tree; empty where there is none, as on most PCs."""


@dataclass(frozen=True, slots=True)
class Sensors:
    """What a board feels; None: it does not say."""

    temperature_c: float | None
    """The hottest zone."""
    frequency_mhz: float | None
    throttled: tuple[str, ...] | None
    on_battery: bool | None
    load: float | None = None
    """Programs that ran or waited for a CPU, mean of the last minute."""


def facts(root: Path = Path("/")) -> Board:
    """Of this board."""
    lines = _lines(root / "proc/cpuinfo")
    flags = set(next((value for key, value in lines if key in ("flags", "Features")), "").split())
    cpu = next((value for key, value in lines if key in ("model name", "Model")), "") or platform.processor()
    total = next((value for key, value in _lines(root / "proc/meminfo") if key == "MemTotal"), "")
    try:
        profile = detect_board(root=root).name
    except UsageError:  # a 32-bit system, say: whoever needs a profile says so
        profile = "unknown"
    release = dict(line.split("=", 1) for line in _text(root / "etc/os-release").splitlines() if "=" in line)
    return Board(
        profile=profile,
        model=device_tree_model(root) or platform.node(),
        cpu=cpu or platform.machine(),
        features=tuple(name for name in FEATURES if name in flags),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        memory_mb=int(total.split()[0]) * 1024 // 10**6 if total else None,
        os=release.get("PRETTY_NAME", platform.system()).strip('"'),
        python=platform.python_version(),
        runtimes=tuple(name for backend in BACKENDS if (name := installed(backend))),
        tree=device_tree_model(root),
    )


def sense(root: Path = Path("/")) -> Sensors:
    """Now. What may not be read, or is not there, is None."""
    zones = [_number(zone / "temp") for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))]
    celsius = [value / 1000 for value in zones if value is not None and value > 0]
    clock = _number(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    states = [_text(place).strip() for place in sorted((root / "sys/class/power_supply").glob("*/status"))]
    return Sensors(
        max(celsius, default=None),
        None if clock is None else clock / 1000,
        _throttled(),
        "Discharging" in states if any(states) else None,
        _first_number(root / "proc/loadavg"),
    )


def _throttled() -> tuple[str, ...] | None:
    """What a Raspberry Pi's firmware holds back now."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, ValueError):
        said = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=5, check=False).stdout
        bits = int(said.strip().partition("=")[2], 16)
        return tuple(name for bit, name in _THROTTLED.items() if bits >> bit & 1)
    return None


def _lines(path: Path) -> list[tuple[str, str]]:
    """``key : value`` of each line."""
    split = (line.partition(":") for line in _text(path).splitlines())
    return [(key.strip(), value.strip()) for key, _, value in split]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _first_number(path: Path) -> float | None:
    """Of a file that holds several."""
    try:
        return float(_text(path).split()[0])
    except (IndexError, ValueError):
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
