"""Where the white cells of a field are: dark nuclei of a colour that its red cells do not have, and the cell around each.

Nothing is learned and no colour is named: absorbance is compared with the field's own red cells, sizes are in micrometres.
"""

from __future__ import annotations

import numpy as np

from nca_edge.detect.cells import cell_bodies, is_nucleus, is_stained, joined_lobes, nucleus_lobes
from nca_edge.detect.contrast import contrast_maps, estimated_um_per_px, red_reference
from nca_edge.detect.joining import joined_pieces
from nca_edge.preprocess import resize
from nca_edge.records import Box, Detection, Image32, RedCells

PX_PER_UM = 4.25
"""Working resolution: finer costs time and adds noise, coarser merges lobes with their neighbours."""

CUT_UM = 6.5
"""Of a cell that the field's edge cuts, half of one is in view at least: less has no name, and may be anything. People box few
of them: of 124 finds at the edges of bccd and chula eight are smaller, two of them boxed."""


def white_cells(corrected: Image32, red: RedCells, um_per_px: float | None) -> list[Detection]:
    """Find the white cells of a field.

    Parameters
    ----------
    corrected : (height, width, 3) float32, background = 1.0
    red : RedCells
        Of the same field: the reference of colour, and of size where ``um_per_px`` is None.
    um_per_px : float or None
        Scale of the field, if known.

    Returns
    -------
    list of Detection
        Top to bottom, then left to right.
    """
    from scipy import ndimage

    height, width = corrected.shape[:2]
    reference = red_reference(corrected, red)
    scale = estimated_um_per_px(corrected, red, reference) if um_per_px is None else um_per_px
    shrink = min(1.0, PX_PER_UM * scale)
    px_per_um = shrink / scale
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    maps = contrast_maps(corrected if shrink == 1.0 else resize(corrected, *size), reference, 0.38 * px_per_um)
    lobes, count = nucleus_lobes(maps.contrast, px_per_um)
    bodies = cell_bodies(maps, lobes, px_per_um)
    owner = joined_pieces(joined_lobes(lobes, bodies, count, px_per_um), lobes, bodies, maps, px_per_um)
    cells, nuclei = owner[bodies], owner[lobes]
    found = []
    for index, slices in enumerate(ndimage.find_objects(cells, count), start=1):
        if slices is None:
            continue
        part = nuclei[slices] == index
        red_part, green_part, blue_part = (plane[slices] for plane in maps.planes)
        if not (is_nucleus(part, px_per_um) and is_stained(part, (red_part, green_part, blue_part))):
            continue
        rows, cols = slices
        cut = [part.stop - part.start for part, side in zip(slices, size, strict=True) if part.start == 0 or part.stop == side]
        border = bool(cut)
        if border and min(cut) < CUT_UM * px_per_um:
            continue
        x0, y0 = int(cols.start * width / size[1]), int(rows.start * height / size[0])
        x1, y1 = int(np.ceil(cols.stop * width / size[1])), int(np.ceil(rows.stop * height / size[0]))
        score = float(np.percentile(maps.contrast[slices][part], 75))
        found.append(Detection(Box(x0, y0, min(x1, width) - x0, min(y1, height) - y0), border, score))
    return sorted(found, key=lambda cell: (cell.box.y, cell.box.x, cell.box.w, cell.box.h))
