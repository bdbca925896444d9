"""One model with known mistakes for all tests of its card."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn data with some wrong labels among the cells that are reported on; not to be changed."""
    from tests.workstation.card.results import write_mislabelled

    return write_mislabelled(tmp_path_factory.mktemp("mislabelled") / "drawn")


@pytest.fixture(scope="session")
def bundle(run: Path, mislabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that was trained on the right labels and measured on these; not to be changed."""
    from nca_export.bundle import Request, export
    from tests.workstation.synthetic import quiet

    return export(Request(run, mislabelled, tmp_path_factory.mktemp("bundles") / "tiny"), quiet)


@pytest.fixture
def results(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the benchmarks write about that bundle."""
    from tests.workstation.card.results import write_results
    from tests.workstation.synthetic import ROOT

    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    return write_results(tmp_path / "results", bundle)
