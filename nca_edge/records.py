"""The records that flow through the house. They import nothing of ours and never change once made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image8 = NDArray[np.uint8]
Image32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Frame:
    """One field as it came from a source."""

    name: str
    """File name relative to the source, or ``frame-000012``."""
    rgb: Image8
    """(height, width, 3) uint8, RGB."""


@dataclass(frozen=True, slots=True)
class FrameError:
    """A field that could not be read at all."""

    name: str
    """As ``Frame.name``."""
    reason: str
    """One sentence for a person."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a pixel is, and how that is known."""

    um_per_px: float
    """Micrometres per pixel of the image it belongs to."""
    source: str
    """``given``, ``session`` (earlier fields of it), ``red_cells``, ``cell_size`` or ``view``."""


@dataclass(frozen=True, slots=True)
class RedCells:
    """What the red cells of one field tell about its stain and scale."""

    n: int
    """How many red cells were measured, of a large field in its middle only; arcs of cells in clumps count too."""
    diameter_px: float
    """Geometric mean of the diameters their outlines vote for, px of the field; 0 where none was measured."""
    absorbance: tuple[float, float, float]
    """Median absorbance of red-cell pixels in R, G, B (natural logarithm), background = 0."""
    spread: tuple[float, float, float]
    """Median absolute deviation of the same."""
    share: float = 1.0
    """Of what is stained, the share that the cells measured cover."""
    stained: float = 0.0
    """Share of the field that is stained at all."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Whether a field is worth looking at."""

    accepted: bool
    """False: nothing in it is classified."""
    reasons: tuple[str, ...]
    """Why it was rejected, one short sentence each; empty when accepted."""
    focus: float
    """Sharpness of the field, 0 (none) upwards; compare within one microscope only."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in px, (x, y) its upper left corner."""

    x: int
    """Column of the left edge."""
    y: int
    """Row of the upper edge."""
    w: int
    """Width, at least 1."""
    h: int
    """Height, at least 1."""

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the centre, px."""
        return self.x + self.w / 2, self.y + self.h / 2


@dataclass(frozen=True, slots=True)
class Detection:
    """Something in a field that looks like a white cell."""

    box: Box
    """Around the whole cell (not only its nucleus), clipped to the field."""
    border: bool
    """True when the field's edge cuts the cell."""
    score: float
    """Contrast of its nucleus against the red cells, larger is surer."""


@dataclass(frozen=True, slots=True)
class ChannelRelevance:
    """How much one state channel spoke for the class."""

    channel: int
    """Index into the state's channels."""
    relevance: float
    """Its share of the class logit (LRP, same unit as the logit)."""
    peak: tuple[int, int]
    """(x, y) px in the crop where the channel had its say."""
    map: Image32
    """(grid, grid) float32, the channel's values after the last step."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Size and shape of one cell by its mask; what cannot be told is None."""

    area_um2: float | None = None
    """Area of the whole cell, um2."""
    equivalent_diameter_um: float | None = None
    """Diameter of the disc of the same area, um."""
    circularity: float | None = None
    """4 pi area / perimeter^2, 0..1; 1 for a disc."""
    nucleus_area_um2: float | None = None
    """Area of the nucleus, um2."""
    nucleus_share: float | None = None
    """Area of the nucleus over that of the whole cell, 0..1."""
    nucleus_cytoplasm_ratio: float | None = None
    """Area of the nucleus over that of the cytoplasm, 0 upwards."""
    reason: str | None = None
    """Why some or all of them are None; None where nothing is missing."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why (LRP through the head) and where (mask) for one cell."""

    label: str
    """The class that is explained."""
    logit: float
    """Its logit, or by how much it exceeds that of ``against``; the channels' relevance, ``bias_share`` and ``epsilon_share``
    add up to it."""
    top_channels: tuple[ChannelRelevance, ...]
    """The ten strongest channels (``explain.strongest``), largest absolute relevance first."""
    bias_share: float
    """Relevance that the head's biases absorbed."""
    epsilon_share: float
    """Relevance that the stabiliser absorbed."""
    mask: Image8
    """(height, width) uint8 of the crop: 0 background, 128 cell, 255 nucleus where it is told apart."""
    outside_share: float | None = None
    """Share of the top channels' positive relevance that peaks outside the mask, 0..1; None where nothing is outlined."""
    measures: Measures = Measures()
    """By the mask."""
    against: str | None = None
    """The class that it is compared with (why ``label`` and not this one); None: ``label`` alone is explained."""
    looks: int = 1
    """Looks whose mean relevance this is; its logit is their mean too, and the answer's own where the answer had as many."""
    mask_agreement: float | None = None
    """Mean overlap (IoU) of the masks of the other passes with this one; None where no number of passes was asked for."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The view of one cell, for a picture."""

    crop: Image8
    """(n, n, 3) uint8, corrected, at the image's own resolution."""
    view: Image32
    """(size, size, 3) float32, what the model saw."""
    explanation: Explanation
    """Mask and peaks in pixels of ``crop``."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one cell."""

    label: str
    """The most probable class, also when unsure."""
    confidence: float
    """Its calibrated probability, 0..1."""
    unsure: bool
    """True below the bundle's threshold, and for an image of one cell that shows none: a person has to name it."""
    probabilities: dict[str, float]
    """Calibrated probability of every class, in the bundle's order; they sum to 1."""
    passes: int = 1
    """How often the cell was looked at; the answer is that of the mean logits."""
    spread: float = 0.0
    """Standard deviation of the label's probability over the passes; 0 where there was one."""


@dataclass(frozen=True, slots=True)
class CellReading:
    """One cell of a field, named and explained."""

    cell: int
    """Number of the cell within its field, from 1."""
    detection: Detection
    """Where it lies."""
    prediction: Prediction
    """What it is."""
    explanation: Explanation
    """Why and where."""
    counted: bool
    """True when it takes part in the differential (no artefact, not cut by the border)."""
    crop: Image8
    """(height, width, 3) uint8: the corrected view at the field's resolution."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One field and everything found in it: the unit that a session commits."""

    field: str
    """``Frame.name``."""
    accepted: bool
    """False: rejected by the quality gate or unreadable."""
    reasons: tuple[str, ...]
    """Why it was rejected."""
    failed: bool
    """True when the file could not be read at all (a failure, exit 1); a rejected field is a result."""
    focus: float
    """Sharpness of the field."""
    scale: Scale | None
    """None for a field that was not accepted."""
    cells: tuple[CellReading, ...]
    """In the order of their boxes: top to bottom, then left to right."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is fixed when a session is created and stands in every report."""

    bundle: str
    """Name of the model bundle."""
    bundle_sha256: str
    """Hash of its manifest, which holds the hashes of its files."""
    backend: str
    """``numpy`` or ``onnx``."""
    precision: str
    """``fp32`` or ``int8``."""
    threads: int
    """CPU threads of the backend."""
    um_per_px: float | None
    """Scale given by the user; None: estimated."""
    classes: tuple[str, ...]
    """The bundle's classes in order."""
    groups: dict[str, tuple[str, ...]]
    """Group of the five-part differential -> its classes."""
    model_facts: dict[str, Any]
    """What a reader should know of the model: training data, licences, attribution, metrics with n and interval."""
