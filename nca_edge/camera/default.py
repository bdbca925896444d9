"""Which camera ``--camera`` alone means on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from nca_edge.errors import CameraError

DEVICES = Path("/dev")


def default_uri(devices: Path = DEVICES) -> str:
    """A USB microscope by its lasting name, else the board's own camera, else the first device that there is.

    Raises
    ------
    CameraError
        There is none.
    """
    named = sorted((devices / "v4l" / "by-id").glob("*-index0")) if (devices / "v4l" / "by-id").is_dir() else []
    if named:
        return f"v4l2:{named[0]}"
    if shutil.which("rpicam-vid"):
        return "rpicam:0"
    videos = sorted(devices.glob("video*"))
    if shutil.which("gst-launch-1.0") and videos and Path("/etc/nv_tegra_release").exists():
        return "csi:0"
    if videos:
        return f"v4l2:{videos[0]}"
    raise CameraError(
        "There is no camera: plug one in, or name one (nca-edge run v4l2:0, rpicam:0, csi:0, http://HOST/..., watch:FOLDER); "
        "nca-edge run test: tries everything without one."
    )
