"""The workstation's tests need torch; without it they are skipped, not failed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

HAS_TORCH = find_spec("torch") is not None


class _NeedsTorch(pytest.Module):
    def collect(self) -> list[pytest.Item]:  # type: ignore[override]
        pytest.skip("needs torch: pip install 'nca-edge[train,export]'", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip a module before it is imported: its first line may well be ``import torch``."""
    return None if HAS_TORCH else _NeedsTorch.from_parent(parent, path=module_path)
