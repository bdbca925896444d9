"""What all tests share. Imports nothing of ours: the bare wheel is tested from here too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

try:
    from hypothesis import settings
except ImportError:  # on a board the hardware tests may run without it
    pass
else:
    # A busy machine must not fail a test by its clock, and the same commit must give the same result.
    settings.register_profile("house", deadline=None, derandomize=True)
    settings.load_profile("house")

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with development data and released weights: ``NCA_EDGE_SHARED``, else ``../shared`` beside the checkout."""
    folder = Path(os.environ.get("NCA_EDGE_SHARED") or CHECKOUT.parent / "shared")
    if not folder.is_dir():
        pytest.skip("needs the development data: set NCA_EDGE_SHARED to its folder")
    return folder
