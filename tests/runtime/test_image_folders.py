"""Folders of images: what is a field, and in which order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from nca_edge.camera import file_frames, list_images
from nca_edge.errors import UsageError
from nca_edge.records import Frame, FrameError


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
