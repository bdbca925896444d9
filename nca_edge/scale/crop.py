"""Scale of an image of one cell: from the red cells around it, else from its own size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.preprocess import otsu
from nca_edge.records import Image32, Scale
from nca_edge.scale.field import RED_CELL_UM
from nca_edge.scale.voting import VOTE_BIAS, WORK_SIDE, foreground, modal, pale, stain_planes, vote

WHITE_CELL_UM = 13.0
"""Equivalent diameter of a white cell on a dried smear, um: 10 (small lymphocyte) to 18 (monocyte)."""

WHOLE = 0.35
"""Completeness of a red cell that tells the scale of a crop: a crop has too few for errors to average out."""

MIN_WHOLE = 3
"""Fewer such cells than this say nothing about the scale of a crop."""

WHITE_PER_RED = (0.3, 3.0)
"""Diameter of what is in the centre in red-cell diameters: white cells have 1 to 3, platelets less."""

CELL_PER_NUCLEUS = 1.35
"""White cell over its nucleus, equivalent diameters: nuclei of 137 acevedo20 cells have a median of 9.7 um."""

MAX_CELL_PER_NUCLEUS = 3.2
"""A patch larger than this is a cell with neighbours (segwbc1, by its masks: up to 2.7 at the 95th percentile)."""


def crop_scale(corrected: Image32, view_um: float) -> Scale:
    """Scale of a single-cell crop: from the red cells around it, else from the cell's own size, else from what crops usually
    span.

    A crop needs a few whole discs of one size that a white cell in its centre can be compared with: 5 in 60 segwbc1 crops,
    which show no red cell, else took specks of dirt for them.

    Parameters
    ----------
    corrected : (height, width, 3) float32, background = 1.0, the cell in the centre
    view_um : float
        Width that a crop spans where nothing in it tells its scale, um.

    Returns
    -------
    Scale
        ``source`` is ``red_cells``, ``cell_size`` or ``view``.
    """
    side = max(corrected.shape[:2])
    shrink = min(1.0, WORK_SIDE / side)
    total, _ = stain_planes(corrected, shrink)
    mask = foreground(total)
    if not mask.any():
        return Scale(view_um / side, "view")
    diameter = _central_diameter(total, mask)
    discs = modal(pale(vote(total, mask), total))
    whole = discs[discs[:, 3] >= WHOLE] if len(discs) else discs
    if len(whole) >= MIN_WHOLE:
        red = 2.0 * VOTE_BIAS * float(np.exp(np.log(whole[:, 2]).mean()))
        if diameter == 0.0 or WHITE_PER_RED[0] <= diameter / red <= WHITE_PER_RED[1]:
            return Scale(RED_CELL_UM / red * shrink, "red_cells")
    if diameter > 0.0:
        return Scale(WHITE_CELL_UM / diameter * shrink, "cell_size")
    return Scale(view_um / side, "view")


def cell_diameter_um(corrected: Image32, um_per_px: float) -> float:
    """What ``crop_scale`` would take for the diameter of the cell in the centre, um; 0 where it finds none.

    Parameters
    ----------
    corrected : as of ``crop_scale``
    um_per_px : the true scale
    """
    shrink = min(1.0, WORK_SIDE / max(corrected.shape[:2]))
    total, _ = stain_planes(corrected, shrink)
    mask = foreground(total)
    return _central_diameter(total, mask) / shrink * um_per_px if mask.any() else 0.0


def _central_diameter(total: Image32, mask: NDArray[np.bool_]) -> float:
    """Equivalent diameter, px, of the cell in the centre; 0 where there is none.

    That of its stained patch, where it stands alone; where it touches its neighbours, from its nucleus. One rule for all, 1.35
    nuclei, would be off by 30 % and more for cells of much cytoplasm.
    """
    from scipy import ndimage

    nucleus = _nucleus_diameter(total, mask)
    steps = max(1, round(0.02 * max(total.shape)))
    labels, count = ndimage.label(ndimage.binary_opening(ndimage.binary_fill_holes(mask), iterations=steps))
    height, width = total.shape
    middle = labels[int(0.4 * height) : int(0.6 * height) + 1, int(0.4 * width) : int(0.6 * width) + 1]
    hits = np.bincount(middle.ravel(), minlength=count + 1)[1:]
    if count and hits.max() > 0:
        patch = labels == int(np.argmax(hits)) + 1
        alone = not (patch[0].any() or patch[-1].any() or patch[:, 0].any() or patch[:, -1].any())
        diameter = 2.0 * float(np.sqrt(patch.sum() / np.pi))
        if alone and (nucleus == 0.0 or diameter < MAX_CELL_PER_NUCLEUS * nucleus):
            return diameter
    return CELL_PER_NUCLEUS * nucleus


def _nucleus_diameter(total: Image32, mask: NDArray[np.bool_]) -> float:
    """Equivalent diameter, px, of the darkest stain near the centre, all lobes together; 0 where there is none."""
    from scipy import ndimage

    height, width = total.shape
    dark = ndimage.binary_opening(mask & (total > otsu(total[mask])), iterations=max(1, round(0.01 * max(height, width))))
    labels, count = ndimage.label(dark)
    if count == 0:
        return 0.0
    area = np.bincount(labels.ravel())[1:].astype(float)
    center = np.array(ndimage.center_of_mass(dark, labels, np.arange(1, count + 1)))
    central = np.hypot(center[:, 0] - height / 2, center[:, 1] - width / 2) < 0.3 * min(height, width)
    if not central.any():
        return 0.0
    main = int(np.argmax(area * central))
    near = np.hypot(*(center - center[main]).T) <= 2.0 * np.sqrt(area[main] / np.pi)
    return 2.0 * float(np.sqrt(area[near].sum() / np.pi))
