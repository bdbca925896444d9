"""``test:``, a simulated microscope: a hand moves the view over a sheet of real fields, with faults where they are asked for.

``test:`` takes the sample fields, ``test:FOLDER`` the fields of a folder. Options after ``?``: ``seed=1``, ``fps=10``,
``size=640x480``, ``once=1`` (ends after the whole sheet; else it begins anew, and everything was seen before) and
``faults=freeze,torn,black,unplug``, each for two seconds in every twenty.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nca_edge.camera.mosaic import Mosaic, folder_mosaic, sample_mosaic
from nca_edge.camera.operator import Operator, Pose
from nca_edge.camera.protocol import NoFrame, SourceEnded, TornFrame
from nca_edge.errors import CameraError, UsageError
from nca_edge.records import Image8, Image32

FAULTS = ("freeze", "torn", "black", "unplug")
FAULT_EVERY_S, FAULT_S = 20.0, 2.0
NOISE = 1.5
"""Standard deviation of the sensor's noise, grey levels."""
FALL_OFF = 0.12
"""Light that is missing in the corners, share."""


@dataclass(frozen=True, slots=True)
class TestOptions:
    """What follows the ``?``."""

    __test__ = False  # it is no test, whatever pytest makes of its name

    seed: int = 1
    fps: float = 10.0
    size: tuple[int, int] = (640, 480)
    """(width, height) of the camera's frame, px."""
    once: bool = False
    faults: tuple[str, ...] = ()

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> TestOptions:
        """From the URI's query; UsageError for what it does not know."""
        try:
            width, _, height = query.get("size", "640x480").partition("x")
            faults = tuple(name for name in query.get("faults", "").split(",") if name)
            out = cls(int(query.get("seed", 1)), float(query.get("fps", 10)), (int(width), int(height)),
                      query.get("once", "0") == "1", faults)  # fmt: skip
        except ValueError as error:
            raise UsageError(f"test: {error}; write it like test:?seed=2&fps=10&size=640x480.") from error
        if unknown := set(faults) - set(FAULTS):
            raise UsageError(f"test: there is no fault {sorted(unknown)[0]!r}; choose among {', '.join(FAULTS)}.")
        if not (min(out.size) >= 64 and max(out.size) <= 4096 and 0.1 <= out.fps <= 120):
            raise UsageError("test: size must be 64 to 4096 px a side, fps 0.1 to 120.")
        return out


class Microscope:
    """The optics: what the camera sees of a sheet in one pose."""

    def __init__(self, mosaic: Mosaic, size: tuple[int, int], seed: int) -> None:
        """``size``: (width, height) of the frame; the sheet must be as large."""
        self.mosaic = mosaic
        self.size = min(size[0], mosaic.rgb.shape[1]), min(size[1], mosaic.rgb.shape[0])
        self._rng = np.random.default_rng(seed)
        y, x = np.meshgrid(np.linspace(-1, 1, self.size[1]), np.linspace(-1, 1, self.size[0]), indexing="ij")
        noise = self._rng.normal(0.5, NOISE, (self.size[1] + 64, self.size[0] + 64, 1))  # 0.5: cutting off then rounds
        self._noise: Image32 = noise.astype(np.float32)
        self._lamp: Image32 = (1.0 - FALL_OFF * (x * x + y * y) / 2).astype(np.float32)[..., None]

    def photograph(self, pose: Pose, way: tuple[float, float] = (0.0, 0.0)) -> Image8:
        """One frame.

        Parameters
        ----------
        way : (dx, dy) px that the view moves while the shutter is open

        Returns
        -------
        (height, width, 3) uint8
        """
        from scipy import ndimage

        width, height = self.size
        margin = int(3 * pose.blur_px + max(map(abs, way))) + 2
        sheet = self.mosaic.rgb
        x0, y0 = round(pose.x), round(pose.y)
        rows = np.clip(np.arange(y0 - margin, y0 + height + margin), 0, sheet.shape[0] - 1)
        cols = np.clip(np.arange(x0 - margin, x0 + width + margin), 0, sheet.shape[1] - 1)
        level = sheet[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] if rows[-1] - rows[0] == len(rows) - 1 and (
            cols[-1] - cols[0] == len(cols) - 1) else sheet[np.ix_(rows, cols)]  # fmt: skip
        level = level.astype(np.float32)
        for axis, length in ((1, abs(way[0])), (0, abs(way[1]))):
            if length >= 2:
                level = ndimage.uniform_filter1d(level, int(length), axis)
        if pose.blur_px >= 0.3:
            level = ndimage.gaussian_filter(level, (pose.blur_px, pose.blur_px, 0), truncate=3.0)
        level = level[margin : margin + height, margin : margin + width] * self._lamp
        x, y = self._rng.integers(0, 64, 2)
        level += self._noise[y : y + height, x : x + width]
        return np.asarray(np.clip(level, 0, 255, out=level), np.uint8)


class SimulatedCamera:
    """``test:`` as a source."""

    every, live = False, True

    def __init__(self, folder: Path | None, options: TestOptions) -> None:
        self.name = f"test:{folder or ''}"
        self._folder, self._options = folder, options
        self._scope: Microscope | None = None
        self._operator: Operator | None = None
        self._began_s: float | None = None
        self._taken = -1
        self._last: Image8 | None = None
        self._open = False

    def open(self) -> dict[str, Any]:
        """Lay the sheet, the first time; while the fault ``unplug`` lasts, CameraError."""
        options = self._options
        if self._scope is None:
            mosaic = sample_mosaic() if self._folder is None else folder_mosaic(self._folder)
            self._scope = Microscope(mosaic, options.size, options.seed)
            sheet = mosaic.rgb.shape[1], mosaic.rgb.shape[0]
            self._operator = Operator(sheet, self._scope.size, options.seed)
            self._began_s = time.monotonic()
        if self._fault() == "unplug":
            raise CameraError("The simulated camera is unplugged: it comes back by itself.")
        self._open = True
        return {"width": self._scope.size[0], "height": self._scope.size[1], "fps": options.fps, "locked": ["exposure", "gain"]}

    def read(self, wait_s: float) -> Image8:
        """The frame of now, at the camera's rate."""
        if self._scope is None or self._operator is None or not self._open:
            raise CameraError("The simulated camera is not open.")
        due_s = (self._taken + 1) / self._options.fps - self._elapsed_s()
        if due_s > wait_s:
            time.sleep(wait_s)
            raise NoFrame("not yet")
        time.sleep(max(0.0, due_s))
        self._taken = max(self._taken + 1, int(self._elapsed_s() * self._options.fps))
        at_s = self._taken / self._options.fps
        if self._options.once and at_s > self._operator.duration_s:
            raise SourceEnded("the sheet was seen")
        return self._spoilt(self._picture(at_s % self._operator.duration_s))

    def close(self) -> None:
        self._open = False

    def _picture(self, at_s: float) -> Image8:
        scope, operator = self._scope, self._operator
        if scope is None or operator is None:
            raise CameraError("The simulated camera is not open.")
        pose, before = operator.pose(at_s), operator.pose(max(0.0, at_s - 0.01))
        return scope.photograph(pose, (pose.x - before.x, pose.y - before.y))

    def _spoilt(self, rgb: Image8) -> Image8:
        fault = self._fault()
        if fault == "unplug":
            raise CameraError("The simulated camera was unplugged.")
        if fault == "torn":
            raise TornFrame("half a frame")
        if fault == "black":
            return np.asarray(self._noise(rgb.shape), np.uint8)
        if fault == "freeze" and self._last is not None:
            return self._last
        self._last = rgb
        return rgb

    def _noise(self, shape: tuple[int, ...]) -> Image8:
        return np.random.default_rng(self._taken).integers(0, 4, shape, np.uint8)

    def _fault(self) -> str | None:
        """The fault of this moment."""
        faults = self._options.faults
        turn, into_s = divmod(self._elapsed_s(), FAULT_EVERY_S)
        return faults[int(turn) % len(faults)] if faults and into_s > FAULT_EVERY_S - FAULT_S else None

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s if self._began_s is not None else 0.0
