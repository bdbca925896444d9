"""A real Chromium, headless, driven through its own chromedriver."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "runtime")]  # eyes.py, and pages.py of the runtime's tests

from eyes import Eyes, chromium  # noqa: E402 (found by the line above)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eyes]:
    """Skips where there is no Chromium; pictures go to ``NCA_EDGE_PICTURES`` where that is set."""
    pytest.importorskip("selenium", reason="needs selenium")
    with ExitStack() as undo:
        try:
            found = undo.enter_context(
                chromium(Path(os.environ.get("NCA_EDGE_PICTURES") or tmp_path_factory.mktemp("pictures")))
            )
        except FileNotFoundError as error:
            pytest.skip(str(error))
        yield found


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
