"""Eight real smear fields, so that an installation can be tried where there is no microscope and no network.

Two kinds on purpose: evenly lit fields (``bccd-*``) and a cheap camera's vignetting and colour cast (``chula-*``).
ATTRIBUTION.md beside them says whose they are.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def sample_fields() -> Path:
    """Return the folder with the shipped fields, ready for ``nca-edge run``.

    Returns
    -------
    Path
        A folder on disk holding eight JPEG files, and a few files that are no images.
    """
    return Path(str(files(__name__)))
