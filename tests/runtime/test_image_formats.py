"""Image files of every kind that a clinic may hand in."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from handmade import png
from PIL import Image, TiffImagePlugin

from nca_edge.camera import read_image
from nca_edge.records import Image8

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]], [[200, 150, 100], [255, 255, 255]]], np.uint8)
"""(3, 2, 3): taller than wide, no two pixels alike."""


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
