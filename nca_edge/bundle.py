"""A model bundle on disk: write, verify, load. Nothing in it is trusted before its hash was checked.

``manifest.json`` names every file with its sha256; ``weights.npz`` is the source of truth (weights and fire schedule);
``golden.npz`` holds a few real cells with their logits, which ``classifier.load`` makes each backend reproduce.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights, unpack_fire
from nca_edge.errors import BundleError, UsageError
from nca_edge.passes import TURNS
from nca_edge.records import Image8

SCHEMA = 1
DEFAULT_MODEL = "edge"


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle."""

    name: str
    """Within the bundle's folder."""
    sha256: str
    """Of its bytes, hexadecimal."""
    backend: str | None = None
    """Which backend runs it; None for data."""
    precision: str | None = None
    """``fp32`` or ``int8``; None for data."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known of a model besides its numbers."""

    name: str
    classes: tuple[str, ...]
    """In the order of the logits."""
    groups: dict[str, tuple[str, ...]]
    """Group of the five-part differential -> classes that it sums."""
    architecture: Architecture
    view_um: float
    """Side of the view of one cell, um."""
    mean: tuple[float, float, float]
    """Subtracted from corrected R, G, B (0..1)."""
    std: tuple[float, float, float]
    """Divisor after that."""
    temperature: float
    """Logits are divided by it before the softmax; fitted on validation data."""
    unsure_below: float
    """A cell of less confidence is unsure; set on validation data."""
    seed: int
    """Provenance of the fire schedule; the schedule itself is in weights.npz."""
    files: tuple[BundleFile, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    """What was measured, with n and interval."""
    data: tuple[dict[str, Any], ...] = ()
    """Data sets with licence and attribution."""
    training: dict[str, Any] = field(default_factory=dict)
    """Recipe, seed, minutes."""
    versions: dict[str, str] = field(default_factory=dict)
    mask_step: int | None = None
    """Step whose state gives the mask; None: the last."""
    passes: int = 1
    """Looks at a cell at most, turned and mirrored; see ``passes.py``."""
    more_passes_below: float = 0.0
    """Confidence of the first look below which the others follow."""
    channel_means: tuple[float, ...] | None = None
    """Mean of each pooled feature over training cells, which stands for a channel that is taken away; None: not kept."""
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle in memory."""

    folder: Path
    manifest: Manifest
    weights: Weights
    fire: Fire
    golden_views: Image8
    """(n, size, size, 3) uint8 corrected views of real cells."""
    golden_logits: NDArray[np.float32]
    """(n, classes) float32, by the NumPy reference."""
    golden_variants: dict[str, NDArray[np.float32]]
    """``format-precision`` -> (n, classes) float32, what that graph said where it was exported."""
    contents: dict[str, bytes]
    """File name -> the bytes that were verified; what runs is what was checked."""
    sha256: str
    """Of the manifest, which holds the hashes of the rest."""

    def file_of(self) -> dict[tuple[str, str], str]:
        """(backend, precision) -> file name."""
        return {(f.backend, f.precision): f.name for f in self.manifest.files if f.backend and f.precision}


def shipped_models() -> Path:
    """Folder of the bundles inside the wheel."""
    return Path(str(files("nca_edge") / "models"))


def installed_models() -> Path | None:
    """Folder of the bundles that ``models install`` put on this machine; None for a service without a home."""
    try:
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "nca-edge" / "models"
    except RuntimeError:
        return None


def known_models() -> dict[str, Path]:
    """Name -> folder; an installed bundle stands in for the shipped one of its name."""
    places = [place for place in (shipped_models(), installed_models()) if place is not None]
    found = {path.parent.name: path.parent for place in places for path in place.glob("*/manifest.json")}
    return {name: found[name] for name in sorted(found) if not name.endswith((".part", ".old"))}


def find_bundle(name_or_folder: str | None) -> Path:
    """Folder of an installed or shipped bundle by name, or the folder itself.

    Raises
    ------
    UsageError
        Nothing of that name.
    """
    name, known = name_or_folder or DEFAULT_MODEL, known_models()
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return Path(name)
    raise UsageError(f"no model {name!r}: give a bundle's folder or one of {', '.join(known) or '(none is shipped)'}.")


def load_bundle(folder: Path) -> Bundle:
    """Verify every file and read the bundle.

    Raises
    ------
    BundleError
        Naming the file that is missing, damaged or not as the schema says.
    """
    raw = _read(folder / "manifest.json")
    manifest = _parse_manifest(raw)
    contents = {entry.name: _checked(folder, entry) for entry in manifest.files}
    for needed in ("weights.npz", "golden.npz"):
        if needed not in contents:
            raise BundleError(f"{needed}: the manifest of {folder.name} does not list it; export the bundle again.")
    arrays = _arrays("weights.npz", contents)
    architecture = manifest.architecture
    fire = arrays.pop("fire", None)
    if fire is None:
        raise BundleError("weights.npz: holds no fire schedule; export the bundle again.")
    fire = unpack_fire(architecture, fire)
    architecture.check_weights(arrays)
    golden = _arrays("golden.npz", contents)
    views, logits = golden.pop("views", None), golden.pop("logits", None)
    if (
        views is None or logits is None or views.dtype != np.uint8 or not len(views)
        or views.shape[1:] != (architecture.size, architecture.size, 3) or logits.shape != (len(views), architecture.classes)
    ):  # fmt: skip
        raise BundleError("golden.npz: must hold views and logits of the model's size; export the bundle again.")
    if any(array.shape != logits.shape for array in golden.values()):
        raise BundleError("golden.npz: must hold as many logits of every variant; export the bundle again.")
    weights = {name: arrays[name] for name in architecture.shapes()}
    return Bundle(
        folder, manifest, weights, fire, views, logits.astype(np.float32), golden, contents, hashlib.sha256(raw).hexdigest()
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path.name}: cannot be read in {path.parent} ({error.strerror}); install the bundle again."
        ) from error


def _checked(folder: Path, entry: BundleFile) -> bytes:
    if Path(entry.name).name != entry.name:
        raise BundleError(f"{entry.name}: a bundle's files lie in its own folder; this bundle cannot be trusted.")
    content = _read(folder / entry.name)
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(
            f"{entry.name}: its content is not what the manifest of {folder.name} recorded; install the bundle again."
        )
    return content


def _arrays(name: str, contents: dict[str, bytes]) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(contents[name]), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{name}: cannot be read as arrays ({error}); install the bundle again.") from error


def _parse_manifest(raw: bytes) -> Manifest:
    try:
        table = json.loads(raw)
        if not isinstance(table, dict) or table.get("schema") != SCHEMA:
            found = table.get("schema") if isinstance(table, dict) else None
            raise BundleError(
                f"manifest.json: schema {found!r} is not {SCHEMA}; this program and the bundle do not belong together."
            )
        unknown = set(table) - set(Manifest.__slots__)
        if unknown:
            raise BundleError(
                f"manifest.json: unknown entries {', '.join(sorted(unknown))}; update this program or the bundle."
            )
        manifest = Manifest(
            **{
                **table,
                "classes": tuple(table["classes"]),
                "groups": {str(k): tuple(v) for k, v in table["groups"].items()},
                "architecture": Architecture(**table["architecture"]),
                "channel_means": None if table.get("channel_means") is None else tuple(table["channel_means"]),
                "mean": tuple(table["mean"]), "std": tuple(table["std"]), "data": tuple(table["data"]),
                "files": tuple(BundleFile(**entry) for entry in table["files"]),
            }
        )  # fmt: skip
    except BundleError as error:
        raise BundleError(str(error) if "manifest.json" in str(error) else f"manifest.json: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"manifest.json: not as schema {SCHEMA} says ({error}); install the bundle again.") from error
    _check_values(manifest)
    return manifest


def _check_values(m: Manifest) -> None:
    number: Callable[[Any], bool] = lambda v: isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)  # noqa: E731
    texts: Callable[[Any], bool] = lambda values: all(isinstance(v, str) and v for v in values)  # noqa: E731
    checks = {
        "name": texts((m.name,)),
        "classes": texts(m.classes) and len(set(m.classes)) == len(m.classes) == m.architecture.classes,
        "files": texts([text for f in m.files for text in (f.name, f.sha256)]),
        "data": all(isinstance(entry, dict) for entry in m.data),
        "metrics, training or versions": all(isinstance(table, dict) for table in (m.metrics, m.training, m.versions)),
        "groups": all(c in m.classes for members in m.groups.values() for c in members),
        "view_um": number(m.view_um) and m.view_um > 0,
        "mean": len(m.mean) == 3 and all(map(number, m.mean)),
        "std": len(m.std) == 3 and all(number(v) and v > 0 for v in m.std),
        "temperature": number(m.temperature) and m.temperature > 0,
        "mask_step": m.mask_step is None or (type(m.mask_step) is int and 1 <= m.mask_step <= m.architecture.steps),
        "channel_means": m.channel_means is None
        or (len(m.channel_means) == m.architecture.features and all(map(number, m.channel_means))),
        "unsure_below": number(m.unsure_below) and 0 <= m.unsure_below <= 1,
        "passes": type(m.passes) is int and 1 <= m.passes <= len(TURNS),
        "more_passes_below": number(m.more_passes_below) and 0 <= m.more_passes_below <= 1,
    }
    for name, good in checks.items():
        if not good:
            raise BundleError(f"manifest.json: {name} is not as schema {SCHEMA} says; install the bundle again.")
