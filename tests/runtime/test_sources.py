"""Each kind of camera by its name; and what is said where there is none."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import cameras
import pytest
from cameras import stamp_of, stamped
from PIL import Image

from nca_edge.camera import is_live, open_uri
from nca_edge.camera.default import default_uri
from nca_edge.camera.protocol import NoFrame
from nca_edge.errors import CameraError, UsageError


@pytest.mark.parametrize(
    ("source", "live"),
    [
        ("camera", True), ("v4l2:0", True), ("rpicam:0", True), ("http://host/x", True), ("test:", True), ("watch:x", True),
        ("pan.mp4", True), ("fields", False), ("field.jpg", False), ("C:fields", False),
    ],
)  # fmt: skip
def test_a_name_says_whether_it_is_a_camera(source: str, live: bool) -> None:
    assert is_live(source) is live


def test_a_folder_that_is_called_like_a_camera_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera").mkdir()
    assert not is_live("camera")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("fields.tar", "no such file, folder or camera"),
        ("rpicam:front", "is no camera number"),
        ("rpicam:0?iso=3", "no option 'iso'"),
        ("rpicam:0?width=big", "no whole number"),
        ("http://", "names no host"),
        ("http://host:port/", "write it like"),
        ("test:?faults=fire", "no fault 'fire'"),
        ("test:?size=10x10", "64 to 4096"),
        ("test:?fps=fast", "write it like"),
    ],
)
def test_a_name_that_means_nothing_is_one_sentence(source: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        open_uri(source)


def test_without_any_camera_it_is_said_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CameraError, match="There is no camera: plug one in"):
        default_uri(tmp_path)


def test_the_default_camera_is_named_so_that_it_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "v4l" / "by-id").mkdir(parents=True)
    link = tmp_path / "v4l" / "by-id" / "usb-Microscope-video-index0"
    link.touch()
    assert default_uri(tmp_path) == f"v4l2:{link}"


def test_a_pi_has_its_own_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cameras.stub_rpicam(tmp_path, tmp_path / "state")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert default_uri(tmp_path / "dev") == "rpicam:0"


def test_a_device_is_missing_busy_forbidden_or_strange() -> None:
    v4l2 = pytest.importorskip("nca_edge.camera.v4l2")
    with pytest.raises(CameraError, match="no camera at /dev/video97: plug it in"):
        v4l2.reachable("/dev/video97")
    assert CameraError.exit_code == 1
    assert "used by another program" in v4l2.device_sentence("/dev/video0", OSError(errno.EBUSY, "busy"))
    assert "no format that can be decoded" in v4l2.device_sentence("/dev/video0", OSError(errno.EINVAL, "invalid"))
    assert "plug it in again" in v4l2.device_sentence("/dev/video0", OSError(errno.ENODEV, "no device"))


def test_a_forbidden_device_names_the_group(tmp_path: Path) -> None:
    """A real refusal: a file of group video that another user may not open."""
    v4l2 = pytest.importorskip("nca_edge.camera.v4l2")
    grp = pytest.importorskip("grp")
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    group = grp.getgrnam("video")
    device = tmp_path / "video0"
    device.touch()
    os.chown(device, 0, group.gr_gid)
    device.chmod(0o660)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            v4l2.reachable(str(device))
        except CameraError as error:
            said = str(error)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)
    assert said == f"You are not allowed to read {device}: run sudo usermod -aG video $USER, then log in again."


def test_a_file_that_is_no_device_gives_no_pictures(tmp_path: Path) -> None:
    v4l2 = pytest.importorskip("nca_edge.camera.v4l2")
    (tmp_path / "video0").touch()
    with pytest.raises(CameraError, match="gives no pictures"):
        v4l2.reachable(str(tmp_path / "video0"))


def test_a_watched_folder_gives_each_new_image_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nca_edge.camera import watch

    monkeypatch.setattr(watch, "QUIET_S", 0.05)
    Image.fromarray(stamped(1)).save(tmp_path / "old.png")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_uri(f"watch:{tmp_path}")
    source.open()
    with pytest.raises(NoFrame):
        source.read(0.2)
    data = tmp_path.parent / "whole.png"
    Image.fromarray(stamped(2)).save(data)
    (tmp_path / "new.png").write_bytes(data.read_bytes()[:2000])
    with pytest.raises(NoFrame):
        source.read(0.3)  # half of it: not yet
    shutil.copy(data, tmp_path / "new.png")
    assert stamp_of(source.read(2.0)) == 2
    with pytest.raises(NoFrame):
        source.read(0.2)
    source.close()


def test_a_watched_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="no such folder; make it"):
        open_uri(f"watch:{tmp_path / 'nowhere'}").open()
