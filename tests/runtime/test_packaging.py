"""What an installation brings: the data files, the samples with their licence, one version."""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import entry_points, metadata, version
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

import nca_edge
from nca_edge.backends.native import library
from nca_edge.samples import sample_fields

ON_WHEEL = os.environ.get("NCA_EDGE_TEST_WHEEL") == "1"
PACKAGE = Path(nca_edge.__path__[0])


@pytest.mark.skipif(not ON_WHEEL, reason="make test-bare runs this on the wheel")
def test_the_wheel_is_tested_and_not_the_checkout() -> None:
    for name in ("nca_edge", "nca_devices"):
        assert "site-packages" in Path(str(files(name))).parts


@pytest.mark.skipif(not ON_WHEEL, reason="make test-bare runs this on the wheel")
def test_the_bare_installation_has_no_torch() -> None:
    with pytest.raises(ModuleNotFoundError):
        __import__("torch")


def test_one_version() -> None:
    assert version("nca-edge") == nca_edge.__version__


def test_the_command_is_installed() -> None:
    (script,) = (point for point in entry_points(group="console_scripts") if point.name == "nca-edge")
    assert script.value == "nca_edge.cli:main"


def test_the_licence_is_named() -> None:
    assert metadata("nca-edge")["License-Expression"] == "Apache-2.0"


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_every_data_file_of_the_checkout_is_in_the_package() -> None:
    checkout = Path(__file__).resolve().parents[2] / "nca_edge"
    ignored = {".py", ".pyc"}
    expected = {path.relative_to(checkout) for path in checkout.rglob("*") if path.is_file() and path.suffix not in ignored}
    assert Path("py.typed") in expected
    assert {path for path in expected if not (PACKAGE / path).is_file()} == set()


def test_eight_sample_fields_of_two_kinds() -> None:
    fields = sorted(path for path in sample_fields().iterdir() if path.suffix == ".jpg")
    sizes = {}
    for path in fields:
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB"
            sizes[path.name] = image.size
    assert [size for name, size in sizes.items() if name.startswith("bccd-")] == [(640, 480)] * 4
    assert [size for name, size in sizes.items() if name.startswith("chula-")] == [(1440, 900)] * 4
    assert len(sizes) == 8
    assert sum(path.stat().st_size for path in fields) <= 1_500_000


def test_every_sample_field_is_attributed() -> None:
    text = (sample_fields() / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "MIT License" in text
    for path in sample_fields().glob("*.jpg"):
        assert f"| {path.name} |" in text
        assert f"`{path.name.partition('-')[2]}`" in text


def test_no_page_and_no_report_asks_another_machine() -> None:
    """It would be waited for where there is no network, and tell elsewhere that somebody looks."""
    asked = re.compile(r"""(?:src|href|action|srcset)\s*=\s*["']?\s*//|url\(\s*["']?\s*//|@import|https?://""")
    texts = [path for path in PACKAGE.rglob("*") if path.suffix in (".j2", ".js", ".css", ".html", ".svg")]
    assert {path.suffix for path in texts} >= {".j2", ".js", ".css"}
    for path in texts:
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")  # a name of SVG, which nobody asks for
        assert not asked.search(text), path


@pytest.mark.skipif(not ON_WHEEL or not shutil.which("cc"), reason="make test-bare runs this on the wheel, with a C compiler")
def test_the_wheel_brings_the_compiled_step() -> None:
    assert library.FILE.is_file()
