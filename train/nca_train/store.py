"""What a run folder holds, and how it gets there whole."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.errors import StorageError, UsageError

CHECKPOINT = "last.pt"
"""All that a resumed run needs; the other files are derived from it."""
WEIGHTS = "weights.npz"
METRICS = "metrics.jsonl"
FACTS = "run.json"
CALIBRATION = "calibration.npz"
"""Training cells as the device sees them, for int8 export."""
_HELD = {
    "model", "averaged", "optimizer", "update", "seconds", "losses", "history", "recipe", "best", "best_row", "best_answers",
    "identity",
}  # fmt: skip


def make_folder(folder: Path) -> None:
    """Make a run folder.

    Raises
    ------
    StorageError
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error.strerror}); choose another --out.") from error


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside, sync, then rename: a power cut leaves the old file or the new one.

    Raises
    ------
    StorageError
        The disk is full or cannot be written; the old file is still there.
    """
    beside = path.with_name(path.name + ".part")
    try:
        write(beside)
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise StorageError(f"{path}: cannot be written ({reason}); make room, then go on with --resume.") from error


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write an .npz under exactly this name."""
    with path.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint, tensors and plain values only.

    Raises
    ------
    UsageError
        It is damaged or something else.
    """
    import torch  # here alone: the exporter reads runs without it

    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        missing = _HELD - set(state)
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, LookupError, pickle.UnpicklingError) as error:
        raise UsageError(f"{path}: cannot be read as a checkpoint; start again with another --out.") from error
    if missing:
        raise UsageError(f"{path}: is no checkpoint of this program; start again with another --out.")
    return state


def read_facts(folder: Path) -> dict[str, Any] | None:
    """``run.json`` of a run folder; None where there is none.

    Raises
    ------
    UsageError
        It is no JSON object.
    """
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); train again.") from error
    if not isinstance(facts, dict):
        raise UsageError(f"{path}: is not the record of a training run; train again.")
    return facts
