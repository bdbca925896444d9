"""`nca-edge calibrate`: a microscope's light, colour and scale, from what its camera shows while the stage moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from nca_edge.calibration import LIGHT_PX, Calibration
from nca_edge.camera import Reader, file_frames, list_images, open_uri, read_image
from nca_edge.errors import InputError
from nca_edge.live.chart import Chart
from nca_edge.live.watcher import Watcher
from nca_edge.preprocess import correct, field_background
from nca_edge.quality import assess
from nca_edge.records import FrameError, Image8, Image32
from nca_edge.scale import field_scale, red_cells

FIELDS = 10
"""Different fields that are looked at: what is the same in all of them is the microscope's."""
LEAST_FIELDS = 3
"""Fewer cannot tell the microscope's light from the smear's own unevenness."""
WAIT_S = 120.0
"""How long the camera is waited for from one field to the next."""
METHOD = 0.10
"""Half of the range that the scale of a microscope has for reasons that more fields do not mend, at about 95 %: the outlines of
red cells, and the person's own red cells, which need not measure 7.5 um. On crops of a microscope of known scale, eight in ten
scales lie within 0.93 to 1.11 of it (tests/benchmarks/results/scale.json)."""


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """What the user asked for."""

    source: str
    """Camera URI, or a folder of fields."""
    microscope: str
    """Name to store it under."""
    blank: Path | None = None
    """A picture of an empty part of the slide, which then gives light and colour alone; None: from the fields."""
    fields: int = FIELDS


def calibrate(request: CalibrateRequest, live: bool, say: Callable[[str], None]) -> Calibration:
    """Look at some different fields and work out what is common to them.

    Raises
    ------
    CameraError, UsageError
        There is nothing to look at.
    InputError
        Too few fields were good enough.
    """
    surfaces: list[Image32] = []
    scales: list[float] = []
    cells, shape = 0, None
    settings: dict[str, object] = {}
    for rgb, settings in _live(request, say) if live else _files(request.source, say):  # noqa: B007 - the last ones are kept
        if shape is not None and rgb.shape != shape:
            raise InputError("The fields differ in size: give those of one camera.")
        surface = field_background(rgb)
        corrected = correct(rgb, surface)
        quality = assess(rgb, corrected)
        if not quality.accepted:
            say(f"passed over: {quality.reasons[0]}")
            continue
        shape = rgb.shape
        red = red_cells(corrected)
        scale = field_scale(red)
        if scale is not None:
            scales.append(scale.um_per_px)
            cells += red.n
        surfaces.append(_reduced(surface))
        told = "no red cells told its scale" if scale is None else f"{scale.um_per_px:.4f} um per pixel"
        say(f"field {len(surfaces)} of {request.fields}: {told}")
        if len(surfaces) >= request.fields:
            break
    if len(surfaces) < LEAST_FIELDS or shape is None:
        todo = "move on over the smear, rest at each field, and keep it in focus" if live else "give more of this microscope"
        raise InputError(f"Only {len(surfaces)} fields were good enough, {LEAST_FIELDS} are needed: {todo}.")
    light = _blank(request.blank, shape) if request.blank is not None else _common(surfaces)
    white = tuple(float(v) for v in np.percentile(light.reshape(-1, 3), 95, axis=0))
    um_per_px, span = scale_of(scales)
    return Calibration(
        request.microscope, request.source, (shape[1], shape[0]), um_per_px, span, len(scales), cells,
        (white[0], white[1], white[2]), light, settings,
    )  # fmt: skip


def scale_of(scales: Iterable[float]) -> tuple[float | None, tuple[float, float] | None]:
    """Median of what the fields say and the range it lies in at about 95 %: the spread of the fields' median (1.25 standard
    errors of a mean, from the median absolute deviation) and ``METHOD``, added in squares."""
    values = list(scales)
    if len(values) < LEAST_FIELDS:
        return None, None
    middle = median(values)
    spread = 1.4826 * median(abs(v / middle - 1.0) for v in values)
    half = float(np.hypot(1.96 * 1.2533 * spread / np.sqrt(len(values)), METHOD))
    return middle, (middle * (1 - half), middle * (1 + half))


def _live(request: CalibrateRequest, say: Callable[[str], None]) -> Iterator[tuple[Image8, dict[str, object]]]:
    """Different fields at rest and in focus."""
    watcher = Watcher(Chart())
    with Reader(open_uri(request.source)) as reader:
        say(f"Move over the smear and rest at {request.fields} different fields.")
        given_s = time.monotonic()
        while time.monotonic() - given_s < WAIT_S:
            shot = reader.newest()
            if shot is None:
                if reader.status().state == "ended":
                    return
                continue
            look = watcher.look(shot.rgb, shot.at_s)
            if look.read:
                yield shot.rgb, dict(reader.status().settings)
                watcher.answer(look.rest, "counted", look.glance.focus)
                given_s = time.monotonic()


def _files(source: str, say: Callable[[str], None]) -> Iterator[tuple[Image8, dict[str, object]]]:
    folder = Path(source)
    for frame in file_frames(folder, list_images(folder)):
        if isinstance(frame, FrameError):
            say(f"{frame.name}: {frame.reason}")
        else:
            yield frame.rgb, {}


def _reduced(surface: Image32) -> Image32:
    """A surface at the size that is kept, (h, w, 3) float32."""
    height, width = surface.shape[:2]
    shrink = min(1.0, LIGHT_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    return np.stack([np.asarray(Image.fromarray(np.ascontiguousarray(surface[..., c])).resize(size, Image.Resampling.BOX))
                     for c in range(3)], axis=-1)  # fmt: skip


def _common(surfaces: list[Image32]) -> Image8:
    """The light that the fields share: in each its own level taken out, then the median of each place and the level of all."""
    logs = np.log(np.maximum(np.stack(surfaces), 1.0))
    levels = np.median(logs, axis=(1, 2), keepdims=True)
    common = np.median(logs - levels, axis=0) + np.median(levels, axis=0)
    return np.asarray(np.clip(np.rint(np.exp(common)), 1, 255), np.uint8)


def _blank(path: Path, shape: tuple[int, ...]) -> Image8:
    """The light of a picture of an empty slide."""
    rgb = read_image(path)
    if rgb.shape != shape:
        raise InputError(
            f"{path.name} is {rgb.shape[1]} x {rgb.shape[0]}, the fields are {shape[1]} x {shape[0]}: use one camera."
        )
    return np.asarray(np.clip(np.rint(_reduced(field_background(rgb))), 1, 255), np.uint8)
