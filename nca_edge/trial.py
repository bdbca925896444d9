"""What this board is known to run: a backend is first tried in a process of its own, and the last benchmark is remembered.

An instruction that this CPU lacks then kills the trial, not the count. What was found is kept in the user's state folder;
without one, each start tries again. Nothing of a patient is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nca_edge
from nca_edge.backends.native.library import instructions, missing

PACKAGES = {"onnx": ("onnxruntime-gpu", "onnxruntime"), "litert": ("ai-edge-litert", "tflite-runtime"), "numpy": ("numpy",)}
"""Backend -> what brings its runtime, in order of preference; the compiled step comes with the program."""
PATIENCE_S = 120.0
"""A board that needs longer for six cells cannot count with that backend."""
PROVIDER_PATIENCE_S = 600.0
"""A GPU's libraries compile at their first start; TensorRT takes minutes."""


def installed(backend: str) -> str | None:
    """The runtime of a backend and its version; None: it is not there."""
    if backend == "native":
        return f"compiled step {nca_edge.__version__} {name}" if (name := instructions()) else None
    for package in PACKAGES[backend]:
        with contextlib.suppress(PackageNotFoundError):
            return f"{package} {version(package)}"
    return None


def lacking(backend: str) -> tuple[str, str]:
    """Of a backend that is not there: why, and what mends it."""
    if backend == "native":
        return missing() or "", "run with another --backend than native"
    return "not installed", f"pip install 'nca-edge[{backend}]'"


def problem(folder: Path, backend: str, precision: str, anew: bool = False, provider: str | None = None) -> str | None:
    """Load a bundle in a process of its own, unless this CPU and runtime are known to stand it.

    Parameters
    ----------
    folder : of the bundle
    anew : try also what is known, and take a complaint for a problem
    provider : of ONNX Runtime, of a GPU; a complaint is a problem, since the CPU can do its work

    Returns
    -------
    One sentence on how it died; None: it lived, even where it complained. Loading it here says of what.
    """
    runtime, asked = installed(backend) or "", [provider] if provider else []
    key = " ".join((backend, precision, runtime, platform.python_version(), _cpu(), *asked))
    named = f"the {backend} backend in {precision}" + (f" with {provider}" if provider else "")
    memory = _read()
    if memory["lived"].get(key) is True and not anew:
        return None
    patience_s = PROVIDER_PATIENCE_S if provider else PATIENCE_S
    command, environment = own_process("nca_edge.trial", str(folder), backend, precision, *asked)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=patience_s, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return f"{named} gave no answer within {patience_s:g} s on this board"
    except OSError:
        return None  # no process to be had: then the count itself must try
    if done.returncode < 0:
        return f"{named} was killed by signal {-done.returncode} when it was tried on this board"
    if done.returncode and (anew or provider):
        return (done.stderr.strip().splitlines() or ["it ended without a word"])[-1].partition(": ")[2]
    if done.returncode == 0:
        memory["lived"][key] = True
        _write(memory)
    return None


def own_process(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment by which a module of this very installation runs: ``-m`` would prefer a checkout that lies in the
    working folder, and its backends."""
    start = "import runpy, sys; sys.path[:1] == [''] and sys.path.pop(0); "
    start += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", start, *arguments], {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def quickest_first(model: str, precision: str, names: Sequence[str]) -> list[str]:
    """Order backends by what the last benchmark of a model found here; those it did not time keep their order, behind.

    Parameters
    ----------
    model : sha256 of its manifest
    """
    times = _read()["latency_ms"].get(f"{model} {precision} {_cpu()}", {})
    return sorted(names, key=lambda name: times.get(name, float("inf")))


def remember(model: str, precision: str, latency_ms: dict[str, float]) -> None:
    """Keep what a benchmark found of each backend, for ``--backend auto``."""
    memory = _read()
    memory["latency_ms"][f"{model} {precision} {_cpu()}"] = latency_ms
    _write(memory)


def _cpu() -> str:
    """What tells one kind of CPU from another: a card may move to another board."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(("flags", "Features")):
                return platform.machine() + "-" + hashlib.sha256(line.encode()).hexdigest()[:12]
    return platform.machine() + "-" + platform.processor()


def _place() -> Path | None:
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "nca-edge" / "backends.json"
    except RuntimeError:  # a service without a home
        return None


def _read() -> dict[str, dict[str, Any]]:
    found: Any = {}
    if (place := _place()) is not None:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(place.read_text("utf-8"))
    tables = found if isinstance(found, dict) else {}
    return {name: table if isinstance(table := tables.get(name), dict) else {} for name in ("lived", "latency_ms")}


def _write(memory: dict[str, dict[str, Any]]) -> None:
    place = _place()
    if place is None:
        return
    with contextlib.suppress(OSError):  # a convenience: without it the next start tries again
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f"{place.name}.{os.getpid()}")
        beside.write_text(json.dumps(memory, indent=1), "utf-8")
        os.replace(beside, place)


def _try(folder: str, backend: str, precision: str, provider: str | None = None) -> None:
    from nca_edge.classifier import ModelChoice, load

    load(ModelChoice(folder, backend, precision, trial=False, provider=provider))


if __name__ == "__main__":
    _try(*sys.argv[1:])
