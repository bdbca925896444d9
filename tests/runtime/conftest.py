"""What the runtime tests share: the command line in this process, its program for another one, a few small images."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nca_edge.records import Image8
from nca_edge.samples import sample_fields

sys.path.insert(0, str(Path(__file__).parent))  # the drawings in fields.py, also where the wheel alone is tested

from done import Done

CELLS = (
    ("bccd-BloodImage_00209.jpg", (300, 230, 466, 393)),
    ("bccd-BloodImage_00099.jpg", (224, 230, 375, 344)),
    ("chula-N-1B_0253.jpg", (1259, 686, 1365, 794)),
)
"""Three white cells of the sample fields: file, (left, upper, right, lower) px."""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Done]]:
    """Run ``nca-edge`` with these arguments in this process."""
    from nca_edge.cli import main

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["nca-edge", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        return Done(code if isinstance(code, int) else 0 if code is None else 1, *capsys.readouterr())

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def program() -> Path:
    """The installed ``nca-edge``, for what only a process of its own shows: signals, pipes, terminals."""
    found = Path(sys.executable).with_name("nca-edge")
    if not found.is_file():
        pytest.skip("needs nca-edge beside this Python: pip install it")
    return found


@pytest.fixture(scope="session")
def cells() -> tuple[Image8, ...]:
    """Three crops of one white cell each, of different sizes."""
    crops = []
    for name, box in CELLS:
        with Image.open(sample_fields() / name) as field:
            crops.append(np.asarray(field.convert("RGB").crop(box)))
    return tuple(crops)


@pytest.fixture
def crop_files(tmp_path: Path, cells: tuple[Image8, ...]) -> list[Path]:
    """The same as files: c.png, b.jpg, a.png."""
    paths = [tmp_path / "crops" / name for name in ("c.png", "b.jpg", "a.png")]
    paths[0].parent.mkdir()
    for path, cell in zip(paths, cells, strict=True):
        Image.fromarray(cell).save(path, quality=95)
    return paths


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three real fields, of both kinds, one in a sub-folder."""
    folder = tmp_path_factory.mktemp("fields")
    (folder / "slide 2").mkdir()
    shutil.copy(sample_fields() / "bccd-BloodImage_00209.jpg", folder / "b.jpg")
    shutil.copy(sample_fields() / "bccd-BloodImage_00099.jpg", folder / "a.jpg")
    shutil.copy(sample_fields() / "chula-N-1B_0253.jpg", folder / "slide 2" / "c.jpg")
    return folder


@pytest.fixture
def dark() -> Callable[[Path], Path]:
    """Write a field that is rejected at once: too dark."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (320, 240)).save(path)
        return path

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a memory disk with these options; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount a memory disk")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server keeps between calls lies in this test's own folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of three real fields; nobody is named as the operator. A test that changes it takes a copy."""
    from pages import make_session

    return make_session(tmp_path_factory.mktemp("page") / "s")
