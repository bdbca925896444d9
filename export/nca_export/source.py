"""What is exported: a training run, a bundle that is to get other variants, or the state dict released with the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nca_edge.bundle import Bundle, load_bundle, shipped_models
from nca_edge.classifier import from_8bit
from nca_edge.errors import UsageError
from nca_edge.labelled import read_labelled
from nca_edge.preprocess import normalise
from nca_edge.records import Image8, Image32
from nca_export.run import Run, read_run
from nca_train.store import CALIBRATION, FACTS, read_facts

RELEASED_VIEW_UM = 25.6
CELLS = 64
"""Cells that show what the steps hold, and that variants are compared on."""


Source = Run | Bundle | Path
"""A run folder, a bundle, or the file of a released state dict."""


def find_source(given: Path | None) -> tuple[Source, Path]:
    """What to export, and where it lies.

    Parameters
    ----------
    given : a run folder, a bundle's folder, a released .pt file; None: the newest finished run under ./runs, else the
        shipped bundle

    Raises
    ------
    UsageError
        It is none of these.
    """
    if given is None:
        given = newest_run(Path("runs")) or shipped_models() / "edge"
    if given.is_file():
        return given, given
    if (given / "manifest.json").is_file() and not (given / FACTS).is_file():
        return load_bundle(given), given
    return read_run(given), given


def newest_run(folder: Path) -> Path | None:
    """The finished run that was written last; teachers, which no board runs, are passed over."""
    runs = [path.parent for path in folder.glob(f"*/{FACTS}")]
    finished = [run for run in runs if (facts := read_facts(run)) and facts.get("finished") and facts.get("architecture")]
    return max(finished, key=lambda run: (run / FACTS).stat().st_mtime, default=None)


def calibration_cells(run_folder: Path) -> Image8:
    """The training cells, as the device sees them, that a run keeps.

    Raises
    ------
    UsageError
        The run keeps none.
    """
    try:
        with np.load(run_folder / CALIBRATION, allow_pickle=False) as archive:
            cells: Image8 = archive["views"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(f"{run_folder / CALIBRATION}: cannot be read; train again, or go on with --resume.") from error
    return cells


def released_cells(data: Path, size: int) -> Image8:
    """(n, size, size, 3): the images of fold 3, or all, as they are; the released weights know no pixel contract."""
    from PIL import Image

    listed = read_labelled(data)
    chosen = [image for image in listed if image.fold == 3] or listed
    return np.stack([np.asarray(Image.open(data / image.file).convert("RGB").resize((size, size))) for image in chosen])


def own_statistics(views: Image8) -> tuple[Image32, Image32]:
    """Mean and standard deviation of the colours of a set, each (3,), 0..1."""
    shown = from_8bit(views).reshape(-1, 3)
    return shown.mean(0, dtype=np.float64).astype(np.float32), shown.std(0, dtype=np.float64).astype(np.float32)


def spread(views: Image8, count: int = CELLS) -> Image8:
    """So many of the views, evenly spread."""
    chosen: Image8 = views[np.linspace(0, len(views) - 1, min(count, len(views))).astype(int)]
    return chosen


def normalised(views: Image8, mean: Image32, std: Image32) -> Image32:
    """As the network sees them."""
    return normalise(from_8bit(views), mean, std)
