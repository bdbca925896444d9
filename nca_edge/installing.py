"""Put a model bundle, from a USB stick say, among this machine's own: whole or not at all, and only one that can be trusted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from nca_edge.backends import BACKENDS
from nca_edge.bundle import Bundle, installed_models
from nca_edge.bundle_writer import MANIFEST, replaced
from nca_edge.classifier import ModelChoice, load
from nca_edge.errors import BundleError, MissingExtraError, StorageError


def tried(bundle: Bundle) -> Iterator[tuple[str, str, MissingExtraError | None]]:
    """Backend and precision of each variant that reproduces the golden cells, or what is missing to try it; reference first.

    Raises
    ------
    BundleError
        A variant that answers otherwise.
    """
    known = sorted(variant for variant in bundle.file_of() if variant[0] in BACKENDS)
    for backend, precision in [("numpy", "fp32"), *known]:  # all others were compared with the reference
        try:
            load(ModelChoice(str(bundle.folder), backend, precision))
        except MissingExtraError as error:
            yield backend, precision, error
        else:
            yield backend, precision, None


def install(bundle: Bundle) -> Path:
    """Copy what was verified and return its folder; a bundle of the same name makes room.

    Raises
    ------
    BundleError
        Its name is none, or its manifest changed since it was read.
    StorageError
        There is no place to put it, or it is full.
    """
    name, home = bundle.manifest.name, installed_models()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise BundleError(f"manifest.json: {name!r} is no name of a model; use letters, digits, - and _ and export it again.")
    if home is None:
        raise StorageError("there is no home folder to install a model into: set XDG_DATA_HOME.")
    manifest = (bundle.folder / MANIFEST).read_bytes()
    if hashlib.sha256(manifest).hexdigest() != bundle.sha256:
        raise BundleError(f"{MANIFEST}: changed while it was read; install the bundle again.")

    def copy(folder: Path) -> None:
        for file, content in {**bundle.contents, MANIFEST: manifest}.items():
            (folder / file).write_bytes(content)

    replaced(home / name, copy)
    return home / name
