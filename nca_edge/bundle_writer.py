"""Write a model bundle: whole, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Fire, Weights, pack_fire
from nca_edge.bundle import BundleFile, Manifest
from nca_edge.errors import StorageError, UsageError
from nca_edge.formats import format_of

MANIFEST = "manifest.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle holds."""

    manifest: Manifest
    """Its ``files`` are filled in when it is written."""
    weights: Weights
    fire: Fire
    golden: dict[str, NDArray[Any]]
    """``views`` (n, size, size, 3) uint8, ``logits`` (n, classes) of the reference, and those of each graph by its
    ``format-precision``."""
    files: dict[str, bytes]
    """Graphs, such as ``model.int8.onnx``, and other data."""


def write_bundle(folder: Path, contents: Contents) -> Manifest:
    """Write beside, then rename: a full disk or a power cut leaves the bundle that was there, or none.

    Raises
    ------
    UsageError
        The folder holds something else.
    StorageError
        It cannot be written.
    """
    refuse_other(folder)
    return replaced(folder, lambda beside: _write(beside, contents))


def replaced(folder: Path, fill: Callable[[Path], T]) -> T:
    """What ``fill`` returns, which writes the folder anew under another name.

    Raises
    ------
    StorageError
        It cannot be written; what was there is there.
    """
    beside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        beside.mkdir(parents=True)
        filled = fill(beside)
        if folder.exists():
            old = beside.with_suffix(".old")
            os.replace(folder, old)
            os.replace(beside, folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(beside, folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); make room or choose another place.") from error
    return filled


def refuse_other(folder: Path) -> None:
    """UsageError where the folder holds what is no bundle."""
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; give a folder to --out.")
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise UsageError(f"{folder}: holds something that is no bundle; choose another --out.")


def _write(folder: Path, contents: Contents) -> Manifest:
    architecture = contents.manifest.architecture
    files = {
        "weights.npz": packed({**contents.weights, "fire": pack_fire(architecture, contents.fire)}),
        "golden.npz": packed(contents.golden),
        **dict(sorted(contents.files.items())),
    }
    entries = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        backend, precision = format_of(name) or (None, None)
        entries.append(BundleFile(name, hashlib.sha256(content).hexdigest(), backend, precision))
    complete = replace(contents.manifest, files=tuple(entries))
    (folder / MANIFEST).write_text(json.dumps(asdict(complete), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return complete


def packed(arrays: dict[str, Any]) -> bytes:
    """An .npz whose bytes depend on its content alone (``numpy.savez`` writes the time of day)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
