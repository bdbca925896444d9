"""What is wrong with this installation or board, and the exact command that mends it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from nca_edge import trial
from nca_edge.backends import KEEP_CPU, gpu_providers, short
from nca_edge.bench import board
from nca_edge.bundle import Bundle, find_bundle, load_bundle
from nca_edge.camera.default import default_uri
from nca_edge.errors import CameraError, NcaEdgeError, UsageError
from nca_edge.profiles import BoardProfile, detect_board

GOOD, CARE, BAD = "good", "care", "bad"
OLDEST_PYTHON = (3, 10)
BUILT = 1_790_000_000
"""Autumn 2026, s since 1970: a clock before this was never set."""
LEAST_DISK_GB, LEAST_MEMORY_MB = 1.0, 700
HOT_C = 80.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str
    """``good``, ``care`` (it works, but) or ``bad``."""
    says: str
    mend: str | None = None
    """A command, or what to do where there is none."""


def examine(folder: Path, model: str | None = None, root: Path = Path("/")) -> list[Finding]:
    """Look at everything.

    Parameters
    ----------
    folder : where sessions are to be written
    model : bundle by name or folder
    """
    profile: BoardProfile | None = None
    try:
        profile = detect_board(root=root)
        machine = Finding("board", GOOD, f"{profile.title} ({profile.name})")
        if not profile.supported:
            machine = Finding("board", BAD, f"{profile.title}: {profile.notes[0]}", "use a board of nca-edge devices")
    except UsageError as error:
        machine = Finding("board", BAD, str(error), "install the 64-bit system for this board")
    return [
        machine, _bits(), _python(), *_backends(model), _camera(root, profile), _clock(time.time()), _disk(folder),
        _memory(root), *_sensors(root),
    ]  # fmt: skip


def _bits() -> Finding:
    if sys.maxsize > 2**32:
        return Finding("64 bit", GOOD, "Python is a 64-bit program")
    return Finding("64 bit", BAD, "Python is a 32-bit program: no runtime exists for it", "install the 64-bit system")


def _python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    named = ".".join(map(str, version))
    if version[:2] >= OLDEST_PYTHON:
        return Finding("Python", GOOD, named)
    return Finding("Python", BAD, f"{named} is too old", "sudo apt install python3.11 python3.11-venv")


def _backends(model: str | None) -> Iterator[Finding]:
    """Each variant of the bundle, loaded in a process of its own."""
    try:
        bundle = load_bundle(find_bundle(model))
    except NcaEdgeError as error:
        yield Finding("model", BAD, str(error), "pip install --force-reinstall nca-edge")
        return
    yield Finding("model", GOOD, f"{bundle.manifest.name}: every hash is right")
    for backend, precision in sorted(bundle.file_of()):
        what, runtime = f"backend {backend} {precision}", trial.installed(backend)
        if runtime is None:
            yield Finding(what, CARE, *trial.lacking(backend))
        elif problem := trial.problem(bundle.folder.resolve(), backend, precision, anew=True):
            yield Finding(what, BAD, problem, f"run with another --backend than {backend}")
        else:
            yield Finding(what, GOOD, f"{runtime} reproduces the golden cells")
            if (backend, precision) == ("onnx", "fp32"):
                yield from _providers(bundle)


def _providers(bundle: Bundle) -> Iterator[Finding]:
    """GPUs that ONNX Runtime, which is known to live, could use."""
    for provider in gpu_providers():
        problem = trial.problem(bundle.folder.resolve(), "onnx", "fp32", anew=True, provider=provider)
        mend = f"export {KEEP_CPU}=CPU stops trying it" if problem else None
        yield Finding(f"GPU, {short(provider)}", CARE if problem else GOOD, problem or "it reproduces the golden cells", mend)


def _camera(root: Path, profile: BoardProfile | None) -> Finding:
    """The camera that ``--camera`` means here, and whether this user and this installation can read it."""
    try:
        uri = default_uri(root / "dev")
    except CameraError:
        if profile is not None and profile.name.startswith("raspberry-pi"):
            return Finding("camera", CARE, "no camera program", "sudo apt install rpicam-apps")
        mend = "plug one in; nca-edge run FOLDER needs none, nca-edge run test: shows a simulated one"
        return Finding("camera", CARE, "none is plugged in", mend)
    scheme, _, place = uri.partition(":")
    if scheme != "v4l2":
        return Finding("camera", GOOD, f"--camera means {uri}")
    named = f"v4l2:/{Path(place).relative_to(root)}"
    if not os.access(place, os.R_OK | os.W_OK):
        says = f"{named} is there, and this user may not read it"
        return Finding("camera", CARE, says, f"sudo usermod -aG {_group(place)} $USER, then log in again")
    if not find_spec("av"):
        return Finding("camera", CARE, f"{named} is there, and what reads it is missing", "pip install 'nca-edge[camera]'")
    return Finding("camera", GOOD, f"--camera means {named}")


def _group(path: str) -> str:
    try:
        return Path(path).group()
    except (KeyError, OSError):
        return "video"


def _clock(now_s: float) -> Finding:
    if now_s >= BUILT:
        return Finding("clock", GOOD, time.strftime("%Y-%m-%d %H:%M", time.localtime(now_s)))
    said = time.strftime("%Y-%m-%d", time.localtime(now_s))
    return Finding(
        "clock", BAD, f"it says {said}: sessions would carry a wrong date", "sudo timedatectl set-time '2026-12-31 09:00'"
    )


def _disk(folder: Path) -> Finding:
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not os.access(there, os.W_OK):
        return Finding("disk", BAD, f"{there} cannot be written", f"sudo chown $USER {there}")
    free_gb = shutil.disk_usage(there).free / 1e9
    if free_gb >= LEAST_DISK_GB:
        return Finding("disk", GOOD, f"{free_gb:.1f} GB free at {there}")
    return Finding("disk", BAD, f"only {free_gb:.2f} GB free at {there}", "delete old sessions, or give --out on another disk")


def _memory(root: Path) -> Finding:
    known = board.facts(root).memory_mb
    if known is None:
        return Finding("memory", CARE, "this system does not tell how much it has", "free -m")
    if known >= LEAST_MEMORY_MB:
        return Finding("memory", GOOD, f"{known} MB")
    return Finding("memory", BAD, f"{known} MB are too few for a large field", "add swap: sudo dphys-swapfile swapon")


def _sensors(root: Path) -> Iterator[Finding]:
    felt, facts = board.sense(root), board.facts(root)
    if felt.throttled:
        said = f"the board holds back: {', '.join(felt.throttled)}"
        yield Finding("power", BAD, said, "use the board's own power supply and a cooler, then: vcgencmd get_throttled")
    if felt.temperature_c is not None:
        hot = felt.temperature_c >= HOT_C
        mend = "give it a cooler, or air" if hot else None
        yield Finding("temperature", CARE if hot else GOOD, f"{felt.temperature_c:.0f} degrees C", mend)
    if facts.governor not in (None, "performance"):
        mend = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding("clock speed", CARE, f"the CPU governor is {facts.governor}: the first cells are slower", mend)
