"""Cameras that another program reads: MJPEG on its standard output, or in a pipe.

The Pi's and Jetson's own programs know their cameras best, and a program of its own can be ended whatever its driver does.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nca_edge.camera.jpeg import JpegStream, decode
from nca_edge.camera.protocol import NoFrame, TornFrame
from nca_edge.errors import CameraError, UsageError
from nca_edge.records import Image8

CHUNK = 1 << 18
END_S = 1.0
"""Time that a program is given to end by itself."""
METER_S = 8.0
"""Longest time in which the Pi's program finds light and white balance."""
SAID_BYTES = 4000
"""Of a program's complaints, the last that are read."""
KNOWN = {"width": "1280", "height": "960", "fps": "10"}
"""Options of both boards and what they are unless given."""
PI_LOCKS = {"shutter": "--shutter", "gain": "--gain", "awbgains": "--awbgains"}


class PipeCamera:
    """``pipe:FILE``: MJPEG from a FIFO. While no program writes to it, the camera is lost; the next one to write is read."""

    every, live = False, True

    def __init__(self, path: Path) -> None:
        self.name = f"pipe:{path}"
        self._path = path
        self._file: int | None = None
        self._frames = _Frames()

    def open(self) -> dict[str, Any]:
        if not self._path.is_fifo():
            raise CameraError(f"{self._path} is no pipe: make one with mkfifo, then let a program write MJPEG into it.")
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CameraError(f"{self._path} cannot be read ({error.strerror}): check its permissions.") from error
        self.close()
        self._file = file
        self._pour_out()
        self._frames = _Frames()
        return {"locked": []}

    def lose(self) -> None:
        """Given up until ``open``. Its end stays: the system ends a program that writes to a pipe that nobody reads, and one
        that hung and went on before the next try would never come back."""

    def _pour_out(self) -> None:
        """What was written while nobody read is no picture of now."""
        left = 1 << 20  # of a program that writes faster than we read
        while self._file is not None and left > 0:
            try:
                data = os.read(self._file, CHUNK)
            except BlockingIOError:
                return
            if not data:
                return
            left -= len(data)

    def read(self, wait_s: float) -> Image8:
        if self._file is None:
            raise CameraError(f"{self._path} is not open.")
        return self._frames.read(self._file, wait_s, f"nobody writes to {self._path}; start the program that does")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class ProgramCamera:
    """The standard output of a program that is started for it."""

    every, live = False, True

    def __init__(self, name: str, command: Sequence[str], missing: str) -> None:
        """``missing``: what to do where the program is not installed."""
        self.name = name
        self._command, self._missing = list(command), missing
        self._process: subprocess.Popen[bytes] | None = None
        self._frames = _Frames()

    def settings(self) -> dict[str, Any]:
        """What holds while it runs; may start the program once to find out."""
        return {"command": list(self._command), "locked": []}

    def open(self) -> dict[str, Any]:
        self.close()
        program = shutil.which(self._command[0])
        if program is None:
            raise CameraError(f"{self._command[0]} is not installed: {self._missing}")
        settings = self.settings()
        try:
            self._process = subprocess.Popen(
                [program, *self._command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us: we end it
            )  # fmt: skip
        except OSError as error:
            raise CameraError(f"{program} cannot be started ({error.strerror}): {self._missing}") from error
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
        self._frames = _Frames()
        return settings

    def read(self, wait_s: float) -> Image8:
        process = self._process
        if process is None or process.stdout is None:
            raise CameraError(f"{self._command[0]} is not running.")
        self._said()
        try:
            return self._frames.read(process.stdout.fileno(), wait_s, "its output ended")
        except (NoFrame, TornFrame):
            raise
        except CameraError as error:
            said = self._said()  # only now all that it had to say is there
            raise CameraError(f"{self._command[0]} ended{said and f' ({said})'}; check the camera") from error

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def _said(self) -> str:
        """The last line of the program's complaints. Read all the time: a full pipe would stop it."""
        process = self._process
        if process is None or process.stderr is None:
            return ""
        said = process.stderr.read() or b""
        lines = said[-SAID_BYTES:].decode("utf-8", "replace").strip().splitlines()
        self._last_line = lines[-1].strip() if lines else getattr(self, "_last_line", "")
        return self._last_line


class RpicamCamera(ProgramCamera):
    """``rpicam:0``. Its program cannot hold light and white balance while it runs, so it is first run to find them."""

    def __init__(self, name: str, command: Sequence[str], fixed: Mapping[str, str]) -> None:
        super().__init__(name, command, "sudo apt install rpicam-apps")
        self._base = list(command)
        self._fixed = dict(fixed)

    def settings(self) -> dict[str, Any]:
        if not self._fixed:
            self._fixed = self._metered()
        self._command = [*self._base, *(word for key, value in self._fixed.items() for word in (PI_LOCKS[key], value))]
        return {"command": list(self._command), "locked": sorted(self._fixed), **self._fixed}

    def _metered(self) -> dict[str, str]:
        """Shutter (us), gain and colour gains that the automatic settles on; empty where the program does not tell."""
        words = [*self._base, "--metadata", "-", "--metadata-format", "json"]
        words[words.index("-t") + 1], words[words.index("-o") + 1] = "1500", os.devnull
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=METER_S, check=False)
            told = json.loads(done.stdout.decode("utf-8", "replace").rstrip().rstrip(",").rstrip("]").rstrip(", \n") + "]")
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return {}
        last = told[-1] if isinstance(told, list) and told and isinstance(told[-1], dict) else {}
        out = {}
        if "ExposureTime" in last:
            out["shutter"] = str(int(last["ExposureTime"]))
        if "AnalogueGain" in last:
            out["gain"] = f"{float(last['AnalogueGain']):.3f}"
        if isinstance(last.get("ColourGains"), list) and len(last["ColourGains"]) == 2:
            out["awbgains"] = ",".join(f"{float(g):.3f}" for g in last["ColourGains"])
        return out


def board_camera(scheme: str, place: str, options: Mapping[str, str]) -> ProgramCamera:
    """The Pi's or Jetson's own camera.

    Parameters
    ----------
    scheme : ``rpicam`` or ``csi``
    place : the camera's number
    options : ``width``, ``height``, ``fps``; for rpicam also ``shutter``, ``gain`` and ``awbgains``, which are metered else
    """
    if not place.isdigit():
        raise UsageError(f"{place!r} is no camera number; write it like {scheme}:0.")
    locks = PI_LOCKS if scheme == "rpicam" else {}
    if unknown := set(options) - {*KNOWN, *locks}:
        raise UsageError(f"{scheme}: there is no option {sorted(unknown)[0]!r}; choose among {', '.join([*KNOWN, *locks])}.")
    values = {**KNOWN, **options}
    for key in KNOWN:
        if not values[key].isdigit() or int(values[key]) < 1:
            raise UsageError(f"{scheme}: {key}={values[key]} is no whole number above 0.")
    width, height, fps = (values[key] for key in KNOWN)
    name = f"{scheme}:{place}"
    if scheme == "rpicam":
        command = ["rpicam-vid", "-n", "-t", "0", "--camera", place, "--width", width, "--height", height, "--framerate", fps,
                   "--codec", "mjpeg", "--quality", "93", "--flush", "-o", "-"]  # fmt: skip
        return RpicamCamera(name, command, {key: options[key] for key in PI_LOCKS if key in options})
    command = ["gst-launch-1.0", "-q", "nvarguscamerasrc", f"sensor-id={place}", "aelock=true", "awblock=true", "!",
               f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1", "!", "nvvidconv", "!",
               "video/x-raw,format=I420", "!", "jpegenc", "quality=93", "!", "fdsink", "fd=1"]  # fmt: skip
    return ProgramCamera(name, command, "sudo apt install gstreamer1.0-tools")


class _Frames:
    """Pictures out of a descriptor that does not block; of several that wait, the newest."""

    def __init__(self) -> None:
        self._stream = JpegStream()
        self._torn = 0

    def read(self, file: int, wait_s: float, ended: str) -> Image8:
        until = time.monotonic() + wait_s
        newest: bytes | None = None
        while True:
            left = until - time.monotonic()
            ready, _, _ = select.select([file], [], [], max(0.0, left) if newest is None else 0.0)
            data = _taken(file) if ready else None
            if data == b"":
                if newest is None:
                    raise CameraError(ended)
                return decode(newest)
            if data:
                newest = next(reversed(self._stream.feed(data)), newest)
            if self._stream.torn > self._torn and newest is None:
                self._torn = self._stream.torn
                raise TornFrame("a picture came damaged")
            if newest is not None and not data:
                return decode(newest)
            if newest is None and time.monotonic() >= until:
                raise NoFrame("no picture came in time")


def _taken(file: int) -> bytes | None:
    """Bytes that wait, empty at the end, None where there are none yet."""
    try:
        return os.read(file, CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
