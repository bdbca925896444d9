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


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small arrays gain nothing from a second thread, and the same run must give the same bits."""
    if HAS_TORCH:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny drawn data set; not to be changed."""
    from tests.workstation.synthetic import write_data

    return write_data(tmp_path_factory.mktemp("data") / "drawn")


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on it; not to be changed."""
    from nca_train.loop import Job, train
    from tests.workstation.synthetic import quiet, tiny_recipe

    return train(Job(tiny_recipe(), data, tmp_path_factory.mktemp("runs") / "tiny-1", seed=3, device="cpu"), quiet)


@pytest.fixture(scope="session")
def bundle(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of that run; not to be changed."""
    from nca_export.bundle import Request, export
    from tests.workstation.synthetic import quiet

    return export(Request(run, data, tmp_path_factory.mktemp("bundles") / "tiny"), quiet)
