"""Files that no one can read, and files that are too large: one sentence, and no harm."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from handmade import png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nca_edge.camera import MAX_PIXELS, read_image
from nca_edge.errors import InputError


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path.name}: ") and text.endswith(".") and "\n" not in text
    return text


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "empty.jpg").touch()
    assert "not an image" in refusal(tmp_path / "text.png")
    assert "not an image" in refusal(tmp_path / "empty.jpg")
    assert "no such file" in refusal(tmp_path / "missing.png")
    assert "no file" in refusal(tmp_path)
    assert "File name too long" in refusal(tmp_path / ("x" * 5000))


def test_a_pipe_does_not_keep_us_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "no file" in refusal(tmp_path / "pipe.png")


def test_a_postscript_program_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert "not an image" in refusal(tmp_path / "program.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "locked.png")
    (tmp_path / "locked.png").chmod(0)
    assert "Permission denied" in refusal(tmp_path / "locked.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp"])
def test_cut_short(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for share in (0.9, 0.5, 0.1):
        cut.write_bytes(whole[: int(len(whole) * share)])
        assert "cut short" in refusal(cut) or "not an image" in refusal(cut)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["jpg", "png", "tif", "bmp", "webp", "gif"]),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_is_one_sentence_or_an_image(tmp_path: Path, suffix: str, changes: list[tuple[int, int]]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 20, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"damaged.{suffix}"
    image.save(path, exif=exif)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        rgb = read_image(path)
    except InputError:
        return
    assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8


def bits(path: Path, side: int) -> Path:
    """A small file of side x side black and white pixels."""
    return png(path, side, side, 1, 0, (b"\0" * (1 + -(-side // 8))) * side)


PROBE = """
import resource, sys, time
from pathlib import Path
from nca_edge.camera import read_image
from nca_edge.errors import InputError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
try:
    read_image(Path(sys.argv[1]))
except InputError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, time.process_time() - began)
"""


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = bits(tmp_path / "huge.png", 30_000)
    assert path.stat().st_size < 1_000_000
    package = Path(sys.modules["nca_edge"].__path__[0]).parent
    env = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-c", PROBE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    sentence, figures = done.stdout.splitlines()
    grown_mb, seconds = map(float, figures.split())
    assert "too many pixels" in sentence and done.stderr == ""
    assert grown_mb < 20 and seconds < 1


@pytest.mark.parametrize("side", [9_000, 12_000])
def test_a_large_image_is_refused_without_a_warning(tmp_path: Path, side: int) -> None:
    """9,000 a side is below the size at which Pillow warns, 12,000 above."""
    assert side**2 > MAX_PIXELS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert "64 megapixels" in refusal(bits(tmp_path / "large.png", side))
    assert seen == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
