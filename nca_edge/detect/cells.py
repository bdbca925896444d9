"""From contrast to cells: lobes of nuclei, the body around each, and which lobes are one cell."""

from __future__ import annotations

import numpy as np

from nca_edge.detect.contrast import Maps, seed_level
from nca_edge.detect.shapes import Labels, Mask, filled, opened
from nca_edge.detect.waist import is_elongated, side_by_side, widths
from nca_edge.records import Image32

NUCLEUS_UM2 = (15.8, 290.0)
"""Area of the nucleus, um2: below are platelets and dirt, above smears and clumps."""

LOBE_UM2 = 2.6
"""Smaller dark specks are granules, not lobes of a nucleus."""

CELL_SPAN_UM = 19.7
"""Lobes are not joined into a cell longer than this."""

ROUND = 0.62
"""Breadth over length that a cell has at least: two equal discs side by side have 0.5."""

BLUE_PER_RED_GREEN = 0.65
"""Absorbance of a nucleus in blue over that in red and green at most. By masks and boxes that people drew, nuclei have 0.37 at
most on bccd, chula, acevedo20 and 0.40 on segwbc2, all but one of 100 have less than 0.60 on segwbc1 (another stain, yellow
light); dirt on chula fields has 0.66 to 1.1."""

SAMPLE = 50_000
"""Pixels that give a median of a whole field; millions would cost more time than all else."""

CYTOPLASM_UM = 4.2
"""How far the cell reaches beyond its nucleus at most."""


def nucleus_lobes(contrast: Image32, px_per_um: float) -> tuple[Labels, int]:
    """Dark pieces, touching nuclei split: (height, width) int32 labels 1..n, and n."""
    from scipy import ndimage

    level = seed_level(contrast, NUCLEUS_UM2[0] * px_per_um**2)
    labels, count = ndimage.label(filled(opened(contrast > level, 0.47 * px_per_um)))
    area = np.bincount(labels.ravel(), minlength=count + 1)
    kept = area >= LOBE_UM2 * px_per_um**2
    kept[0] = False
    return _split((np.cumsum(kept) * kept)[labels].astype(np.int32), int(kept.sum()), px_per_um)


def is_nucleus(part: Mask, px_per_um: float) -> bool:
    """Size and shape of one candidate: neither platelet nor scratch nor smear."""
    from scipy import ndimage

    if not NUCLEUS_UM2[0] <= part.sum() / px_per_um**2 <= NUCLEUS_UM2[1]:
        return False
    return bool(ndimage.distance_transform_edt(np.pad(part, 1)).max() >= 1.1 * px_per_um)


def is_stained(part: Mask, planes: tuple[Image32, Image32, Image32]) -> bool:
    """Whether the nuclear dyes made it dark: dirt, ink and shadows take away as much blue as red and green.

    Parameters
    ----------
    part : (height, width) bool
    planes : absorbance in R, G, B, (height, width) float32 each
    """
    red, green, blue = (float(plane[part].mean()) for plane in planes)
    return blue < BLUE_PER_RED_GREEN * 0.5 * (red + green)


def _split(lobes: Labels, count: int, px_per_um: float) -> tuple[Labels, int]:
    """Cut components that are two nuclei with a neck: both 5.2 um thick or more and 6.1 um apart, neck under 0.7 of the
    thicker."""
    from scipy import ndimage

    out = lobes.astype(np.int32)
    last = count
    for index, slices in enumerate(ndimage.find_objects(lobes), start=1):
        part = lobes[slices] == index
        depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
        cores, n = ndimage.label(depth > 0.7 * depth.max())
        if n < 2:
            continue
        thick = [i for i in range(1, n + 1) if depth[cores == i].max() >= 2.6 * px_per_um]
        centers = np.array(ndimage.center_of_mass(depth, cores, thick)).reshape(-1, 2)
        if len(thick) < 2 or np.hypot(*(centers[0] - centers[1:]).T).min() < 6.1 * px_per_um:
            continue
        nearest = ndimage.distance_transform_edt(~np.isin(cores, thick), return_distances=False, return_indices=True)
        owner = cores[tuple(nearest)]
        for i in thick[1:]:
            last += 1
            out[slices][part & (owner == i)] = last
    return out, last


def cell_bodies(maps: Maps, lobes: Labels, px_per_um: float) -> Labels:
    """Each lobe with the cytoplasm nearest to it: (height, width) int32, labels as ``lobes``.

    Cytoplasm is stained in a colour that is neither the background's nor the red cells' (beyond the spread of both in this
    field).
    """
    from scipy import ndimage

    out = np.zeros_like(lobes)
    reach = int(np.ceil(CYTOPLASM_UM * px_per_um)) + 1
    near = ndimage.maximum_filter(lobes > 0, 2 * reach + 1)
    rest = maps.hue[~near]
    if rest.size < 100:
        rest = maps.hue.ravel()
    rest = rest[:: 1 + rest.size // SAMPLE]
    middle = float(np.median(rest))
    level = middle + 3.0 * 1.4826 * float(np.median(np.abs(rest - middle))) + 0.01
    regions, _ = ndimage.label(near)
    for region, slices in enumerate(ndimage.find_objects(regions), start=1):
        body = _body(maps.hue[slices] > level, lobes[slices], px_per_um)
        own = regions[slices] == region
        out[slices][own] = body[own]
    return out


def _body(tinged: Mask, lobes: Labels, px_per_um: float) -> Labels:
    """The same in the surroundings of some lobes: (height, width) int32; ``tinged``: stained unlike red cells."""
    from scipy import ndimage

    far, nearest = ndimage.distance_transform_edt(lobes == 0, return_indices=True)
    stained = tinged & (far <= CYTOPLASM_UM * px_per_um) | (lobes > 0)
    cell = opened(stained, 0.7 * px_per_um) | (far <= 0.38 * px_per_um)
    parts, count = ndimage.label(cell)
    hit = np.zeros(count + 1, np.bool_)
    hit[np.unique(parts[lobes > 0])] = True
    return np.where(filled(hit[parts] & cell), lobes[tuple(nearest)], 0)


def joined_lobes(lobes: Labels, bodies: Labels, count: int, px_per_um: float) -> Labels:
    """Which lobes make one cell: (count + 1,) int32, the label of the cell of each lobe.

    Lobes whose bodies touch are joined, widest contact first, as long as the whole is no longer than a cell and about as
    round, and no waist says that it is two. Joining by the gap between lobes alone (2 um) left one bccd cell in eight in two
    pieces.
    """
    from scipy import ndimage

    owner = np.arange(count + 1, dtype=np.int32)
    extent = {i: widths(bodies, i, slices) for i, slices in enumerate(ndimage.find_objects(bodies), start=1) if slices}
    contact: dict[tuple[int, int], int] = {}
    for first, second in ((bodies[1:], bodies[:-1]), (bodies[:, 1:], bodies[:, :-1])):
        meet = (first != second) & (first > 0) & (second > 0)
        for a, b in zip(first[meet].tolist(), second[meet].tolist(), strict=True):
            pair = (min(a, b), max(a, b))
            contact[pair] = contact.get(pair, 0) + 1
    for (a, b), _ in sorted(contact.items(), key=lambda item: (-item[1], item[0])):
        one, two = int(owner[a]), int(owner[b])
        if one == two:
            continue
        low, high = np.minimum(extent[one][0], extent[two][0]), np.maximum(extent[one][1], extent[two][1])
        width = high - low
        if width.max() > CELL_SPAN_UM * px_per_um or width.min() < ROUND * width.max():
            continue
        if is_elongated(width, px_per_um) and side_by_side(owner[bodies], (one, two), px_per_um):
            continue
        owner[owner == two] = one
        extent[one] = low, high
    return owner
