"""Scale of an image of one cell: from the red cells around it, else from its own size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.preprocess import otsu
from nca_edge.records import Image32, Scale
from nca_edge.scale.field import RED_CELL_UM
from nca_edge.scale.voting import MIN_STAIN, VOTE_BIAS, WORK_SIDE, foreground, pale_discs, split, stain_planes

WHITE_CELL_UM = 13.0
"""Equivalent diameter of a white cell on a dried smear, um: 10 (small lymphocyte) to 18 (monocyte)."""

WHOLE = 0.35
"""Completeness of a red cell that tells the scale of a crop: a crop has too few for errors to average out."""

MIN_WHOLE = 3
"""Fewer such cells than this say nothing about the scale of a crop."""

MANY_WHOLE = 6
"""So many are believed where their size goes with the nucleus in the centre, if not with the patch around it."""

WHITE_PER_RED = (0.28, 2.8)
"""Diameter of what is in the centre in red-cell diameters: white cells have 0.9 to 2.8, platelets less."""

FAINT_APART = 4.0
"""Separation, in standard deviations of the background, of red cells from it where the threshold took only what is darker: a
dark cell fills much of a crop. With this second look, and with many red cells believed against a patch, the scale of 1,489
acevedo20 crops is off by more than a quarter in 50 instead of 183."""

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
    looks = _looks(total)
    if not looks:
        return Scale(view_um / side, "view")
    for mask in looks:
        red = _red_diameter(total, mask)
        if red > 0.0:
            return Scale(RED_CELL_UM / red * shrink, "red_cells")
    diameter = _central_diameter(total, looks[-1])
    if diameter > 0.0:
        return Scale(WHITE_CELL_UM / diameter * shrink, "cell_size")
    return Scale(view_um / side, "view")


def _looks(total: Image32) -> list[NDArray[np.bool_]]:
    """What is stained, and where that is only what is dark, what is stained at all."""
    mask = foreground(total)
    if not mask.any():
        return []
    rest = total[~mask]
    fainter, apart = split(rest)
    if apart < FAINT_APART or fainter < MIN_STAIN:
        return [mask]
    return [mask, total > fainter]


def _red_diameter(total: Image32, mask: NDArray[np.bool_]) -> float:
    """Diameter of the red cells, px; 0 where there are too few, or none that the cell in the centre can be compared with."""
    discs = pale_discs(total, mask)
    whole = discs[discs[:, 3] >= WHOLE] if len(discs) else discs
    if len(whole) < MIN_WHOLE:
        return 0.0
    red = 2.0 * VOTE_BIAS * float(np.exp(np.log(whole[:, 2]).mean()))
    sizes = [_central_diameter(total, mask)]
    if len(whole) >= MANY_WHOLE:  # the patch in the centre may have grown together with its neighbours
        sizes.append(CELL_PER_NUCLEUS * _nucleus_diameter(total, mask))
    fits = not any(sizes) or any(WHITE_PER_RED[0] <= size / red <= WHITE_PER_RED[1] for size in sizes)
    return red if fits else 0.0


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
