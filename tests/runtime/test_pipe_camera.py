"""A camera behind a pipe that is given up and tried again, while the program that writes to it lives on."""

from __future__ import annotations

import os
from pathlib import Path

import cameras
import pytest

from nca_edge.camera.process import PipeCamera
from nca_edge.camera.protocol import NoFrame


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_a_program_that_goes_on_while_the_camera_is_given_up_lives_and_is_read_again(pipe: Path) -> None:
    camera = PipeCamera(pipe)
    camera.open()
    with pipe.open("wb", buffering=0) as program:
        program.write(cameras.jpeg(cameras.stamped(1000)))
        assert cameras.stamp_of(camera.read(2.0)) == 1000
        camera.lose()
        program.write(
            cameras.jpeg(cameras.stamped(2000))
        )  # nobody at the other end: BrokenPipeError here, the end of most programs
        camera.open()
        with pytest.raises(NoFrame):  # what was written meanwhile is no picture of now
            camera.read(0.05)
        program.write(cameras.jpeg(cameras.stamped(3000)))
        assert cameras.stamp_of(camera.read(2.0)) == 3000
        camera.close()
        with pytest.raises(BrokenPipeError):
            program.write(cameras.jpeg(cameras.stamped(4000)))


def test_trying_again_leaks_no_descriptor(pipe: Path) -> None:
    camera = PipeCamera(pipe)
    camera.open()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        camera.lose()
        camera.open()
    assert len(os.listdir("/proc/self/fd")) == before
    camera.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
