"""Image files of every kind a clinic may hand in, and those that no one can read."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from nca_edge.camera import MAX_PIXELS, file_frames, list_images, read_image
from nca_edge.errors import InputError, UsageError
from nca_edge.records import Frame, FrameError, Image8

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]], [[200, 150, 100], [255, 255, 255]]], np.uint8)
"""(3, 2, 3): taller than wide, no two pixels alike."""


def png(path: Path, width: int, height: int, bits: int, colour: int, rows: bytes) -> Path:
    """A PNG written by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path.name}: ") and text.endswith(".") and "\n" not in text
    return text


def test_rgb_as_it_is(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "tif"):
        Image.fromarray(COLOURS).save(tmp_path / f"a.{suffix}")
        assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), COLOURS)


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = np.array([[0, 7], [128, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png").tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_by_its_full_range(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 65535, 32768], [257, 128, 255]], np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    assert read_image(tmp_path / f"deep.{suffix}")[..., 1].tolist() == [[0, 255, 128], [1, 0, 1]]


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 200, np.uint16)).save(tmp_path / "dark.png")
    assert read_image(tmp_path / "dark.png").max() == 1


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    pixels = struct.pack(">6H", 65535, 0, 32768, 0, 65535, 257)
    path = png(tmp_path / "deep.png", 2, 1, 16, 2, b"\0" + pixels)
    assert read_image(path).tolist() == [[[255, 0, 128], [0, 255, 1]]]


def test_float_tiff(tmp_path: Path) -> None:
    unit = np.array([[0.0, 1.0, 0.5, np.nan, -3.0]], np.float32)
    Image.fromarray(unit).save(tmp_path / "unit.tif")
    assert read_image(tmp_path / "unit.tif")[0, :, 0].tolist() == [0, 255, 128, 0, 0]
    Image.fromarray(np.array([[0, 255, 77]], np.float32)).save(tmp_path / "bytes.tif")
    assert read_image(tmp_path / "bytes.tif")[0, :, 2].tolist() == [0, 255, 77]
    Image.fromarray(np.array([[0, 65535, np.inf]], np.float32)).save(tmp_path / "wide.tif")
    assert read_image(tmp_path / "wide.tif")[0, :, 0].tolist() == [0, 255, 255]


def test_wide_integers(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535, -5]], np.int32)).save(tmp_path / "wide.tif")
    assert read_image(tmp_path / "wide.tif")[0, :, 0].tolist() == [0, 255, 0]


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "rgba.png").tolist() == [[[10, 20, 30], [255, 255, 255]]]
    Image.fromarray(np.ascontiguousarray(rgba[..., [0, 3]])).save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").tolist() == [[[10, 10, 10], [255, 255, 255]]]
    half = np.array([[[0, 0, 0, 51]]], np.uint8)
    Image.fromarray(half).save(tmp_path / "half.png")
    assert read_image(tmp_path / "half.png").tolist() == [[[204, 204, 204]]]


def test_palettes(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([1, 2, 3, 40, 50, 60, 200, 100, 0])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "plain.png")
    assert read_image(tmp_path / "plain.png").tolist() == [[[1, 2, 3], [40, 50, 60], [200, 100, 0]]]
    for name, transparency in (("index.png", 1), ("table.png", b"\xff\x00\xff")):
        image.save(tmp_path / name, transparency=transparency)
        assert read_image(tmp_path / name).tolist() == [[[1, 2, 3], [255, 255, 255], [200, 100, 0]]]


def test_cmyk(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    for suffix, tolerance in (("tif", 0), ("jpg", 3)):
        ink.save(tmp_path / f"ink.{suffix}", quality=100)
        assert np.abs(read_image(tmp_path / f"ink.{suffix}")[0, 0].astype(int) - (255, 0, 0)).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_is_obeyed(tmp_path: Path, orientation: int) -> None:
    upright: dict[int, Callable[[Image8], Image8]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, 1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), upright[orientation](COLOURS))


def test_of_several_frames_or_pages_the_first(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    pages[0].save(tmp_path / "moving.gif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "moving.webp", save_all=True, append_images=pages[1:], lossless=True)
    for name in ("moving.gif", "pages.tif", "moving.webp"):
        assert np.array_equal(read_image(tmp_path / name), np.full((3, 4, 3), (255, 0, 0)))


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "dot.png")
    assert read_image(tmp_path / "dot.png").tolist() == [[[1, 2, 3]]]


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


def test_odd_metadata_gives_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "odd.tif"
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "a description"
    Image.fromarray(COLOURS).save(path, tiffinfo=tags)
    data = path.read_bytes()
    path.write_bytes(data + b"\0" * 3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        read_image(path)
    assert seen == []


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path)
    return path


def names(source: Path) -> list[str]:
    return [path.relative_to(source).as_posix() for path in list_images(source)]


def test_images_of_a_folder_in_order(tmp_path: Path) -> None:
    given = ["b.png", "a/z.PNG", "a/b/c.jpeg", "B.tif", "a.bmp", "ü\n.webp"]
    for name in given:
        write(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    assert names(tmp_path) == sorted(
        ["B.tif", "a/b/c.jpeg", "a/z.PNG", "a.bmp", "b.png", "ü\n.webp"], key=lambda n: n.split("/")
    )
    assert names(tmp_path) == names(tmp_path)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".thumbs/a.png", "b/.hidden/c/d.png"):
        write(tmp_path / name)
    assert names(tmp_path) == ["a.png"]


def test_the_pictures_of_a_session_are_no_fields(tmp_path: Path) -> None:
    for name in ("a.png", "cells/own.png", "session/cells/000001-001.crop.png", "session/field.png"):
        write(tmp_path / name)
    (tmp_path / "session" / "session.db").touch()
    assert names(tmp_path) == ["a.png", "cells/own.png", "session/field.png"]
    (tmp_path / "session.db").touch()
    assert names(tmp_path) == ["a.png", "session/field.png"]


def test_links(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "self.png").symlink_to(tmp_path / "in" / "self.png")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "in" / "b.png").symlink_to(write(tmp_path / "out" / "b.png"))
    assert names(tmp_path / "in") == ["a.png", "b.png"]


def test_a_folder_named_like_an_image(tmp_path: Path) -> None:
    write(tmp_path / "folder.png" / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert names(tmp_path) == ["folder.png/a.png"]


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(place: str) -> object:
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    paths = list_images(tmp_path)
    assert paths == [tmp_path / "a.png", tmp_path / "locked"]
    frames = list(file_frames(tmp_path, paths))
    assert [type(frame) for frame in frames] == [Frame, FrameError]
    with pytest.raises(UsageError, match="cannot be listed"):
        list_images(tmp_path / "locked")


@pytest.mark.parametrize("name", ["missing", "x" * 5000, "a.png/b"])
def test_no_such_source(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.png")
    with pytest.raises(UsageError, match="no such file or folder"):
        list_images(tmp_path / name)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no image"):
        list_images(tmp_path)


def test_frames_are_named_after_the_source(tmp_path: Path) -> None:
    write(tmp_path / "s" / "a.png")
    (tmp_path / "s" / "b.png").write_text("text")
    frames = list(file_frames(tmp_path, list_images(tmp_path)))
    assert [frame.name for frame in frames] == ["s/a.png", "s/b.png"]
    assert frames[1] == FrameError("s/b.png", "not an image that can be read; save it as JPEG or PNG.")
    single = tmp_path / "s" / "a.png"
    assert [frame.name for frame in file_frames(single, list_images(single))] == ["a.png"]


def test_a_file_that_vanished_is_a_failure(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.png"), write(tmp_path / "b.png")]
    frames = file_frames(tmp_path, paths)
    assert isinstance(next(frames), Frame)
    paths[1].unlink()
    assert next(frames) == FrameError("b.png", "no such file; check the path.")
