"""``picamera2:0``: the Pi's camera through picamera2, which only the system's packages bring (python3-picamera2)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from nca_edge.errors import CameraError
from nca_edge.records import Image8

SETTLE_S = 1.5
HOLDS = ("ExposureTime", "AnalogueGain", "ColourGains")
SIZE = (1280, 960)


class PiCamera:
    """One camera of the board; light and white balance are held after they settled."""

    every, live = False, True

    def __init__(self, number: int) -> None:
        self.name = f"picamera2:{number}"
        self._number = number
        self._camera: Any = None
        self._held: dict[str, Any] = {}

    def open(self) -> dict[str, Any]:
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise CameraError(
                "picamera2 is not installed: sudo apt install python3-picamera2, and make the environment with "
                "python3 -m venv --system-site-packages; or use rpicam:0, which needs neither."
            ) from error
        self.close()
        try:
            self._camera = Picamera2(self._number)
            # picamera2 names formats by their order in a little-endian word: its BGR888 is R, G, B in memory.
            self._camera.configure(self._camera.create_video_configuration(main={"size": SIZE, "format": "BGR888"}))
            self._camera.start()
            self._hold()
        except (RuntimeError, IndexError, OSError) as error:
            self.close()
            raise CameraError(
                f"The camera {self._number} cannot be opened ({error}): check its cable, end other programs."
            ) from error
        return {"width": SIZE[0], "height": SIZE[1], **self._held, "locked": ["exposure", "gain", "white_balance"]}

    def read(self, wait_s: float) -> Image8:
        try:
            return np.ascontiguousarray(self._camera.capture_array("main")[..., :3])
        except (RuntimeError, OSError, AttributeError) as error:
            raise CameraError(f"the camera is gone ({error}); check its cable") from error

    def close(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()

    def _hold(self) -> None:
        if not self._held:
            time.sleep(SETTLE_S)
            told = self._camera.capture_metadata()
            self._held = {key: told[key] for key in HOLDS if key in told}
        self._camera.set_controls({"AeEnable": False, "AwbEnable": False, **self._held})
