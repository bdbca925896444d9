"""Reading one field of a live count: its cells, without those that were counted before."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from nca_edge.calibration import Calibration
from nca_edge.classifier import Classifier
from nca_edge.live.chart import Chart
from nca_edge.live.glance import keep
from nca_edge.live.place import Place, spot_of
from nca_edge.live.watcher import CHANGED, Answer, Look
from nca_edge.pipeline import Prepared, prepare, read_field
from nca_edge.records import Frame, Image8, Image32, Reading

SCALES = 200
"""Scales of earlier fields that are kept for one that has none of its own."""


class Analyst:
    """Reads fields one after the other."""

    def __init__(self, classifier: Classifier, chart: Chart, um_per_px: float | None, calibration: Calibration | None) -> None:
        self._classifier, self._chart = classifier, chart
        self._um_per_px = um_per_px
        self._calibration = calibration
        self._gain: Image32 | None = None
        self._refused = -1
        self._scales: deque[float] = deque(maxlen=SCALES)
        self._prepared: tuple[Look, tuple[int, ...], Prepared] | None = None

    def known(self, scales: list[float]) -> None:
        """Scales that the red cells of the session's earlier fields gave."""
        self._scales.extend(scales)

    def prepare(self, rgb: Image8, look: Look) -> None:
        """Find out of a frame what those after it in the same rest share with it."""
        made = prepare(self.flat(rgb), self._classifier.threads, self._um_per_px, list(self._scales))
        self._prepared = look, rgb.shape, made

    def read(self, name: str, rgb: Image8, look: Look) -> tuple[Reading | None, Answer]:
        """Read one frame that rests at ``look.position``.

        Returns
        -------
        (reading, answer)
            The field with its fresh cells, to be stored. None for one that is out of focus: the operator stands before it and
            mends it. Otherwise refused, it is a result, once in a rest.
        """
        prepared = self._made_for(look, rgb.shape)
        reading = read_field(
            Frame(name, self.flat(rgb)), self._classifier, self._um_per_px, list(self._scales), prepared=prepared
        )
        if not reading.accepted:
            blurred = any(reason.startswith("out of focus") for reason in reading.reasons)
            if blurred:
                return None, "blurred"
            again, self._refused = look.rest == self._refused, look.rest
            return None if again else reading, "rejected"
        if reading.scale is not None and reading.scale.source == "red_cells":
            self._scales.append(reading.scale.um_per_px)
        if look.position is None:
            return reading, "counted"
        self._chart.meet(look.glance, look.position)
        cells = self._chart.fresh(reading.cells, look.position)
        spots = tuple(spot_of(c.detection.box, c.detection.border, look.position) for c in reading.cells)
        self._chart.add(Place(name, look.position, (rgb.shape[1], rgb.shape[0]), keep(look.glance), spots))
        return replace(reading, cells=cells), "counted"

    def _made_for(self, look: Look, shape: tuple[int, ...]) -> Prepared | None:
        """What was prepared for this rest, unless somebody turned the focus since, or the pictures have another size."""
        if self._prepared is None:
            return None
        (before, size, made), self._prepared = self._prepared, None
        turned = abs(look.glance.focus - before.glance.focus) > CHANGED * before.glance.focus
        return None if turned or before.rest != look.rest or size != shape else made

    def flat(self, rgb: Image8) -> Image8:
        """The frame as it would be under even, white light, by the calibration; without one, as it is."""
        if self._calibration is None:
            return rgb
        if self._gain is None or self._gain.shape != rgb.shape:
            light = np.maximum(self._calibration.light_of((rgb.shape[1], rgb.shape[0])).astype(np.float32), 1.0)
            # Every channel is brought to one level: that is the white balance.
            self._gain = np.asarray(np.percentile(light, 99) / light, np.float32)
        return np.asarray(np.clip(np.rint(rgb * self._gain), 0, 255), np.uint8)
