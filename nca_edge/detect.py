"""Where the white cells of a field are: dark nuclei of a colour that its red cells do not have, and the cell around each.

Nothing is learned and no colour is named: absorbance is compared with the field's own red cells, sizes are in micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca_edge.preprocess import absorbance, resize
from nca_edge.records import Box, Detection, Image32, RedCells

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

PX_PER_UM = 4.0
"""Working resolution: finer costs time and adds noise, coarser merges lobes with their neighbours."""

RED_CELL_UM = 7.5
"""As in scale.py (leaves do not import leaves); only sizes depend on it here."""

MIN_RED_CELLS = 4
"""Fewer red cells than this are no reference of colour or size."""

SEED_CONTRAST = 0.6
"""A nucleus exceeds the red cells by this much, in units of half their absorbance plus twice its spread."""

NUCLEUS_UM2 = (18.0, 330.0)
"""Area of the nucleus, um2: below are platelets and dirt, above smears and clumps."""

LOBE_UM2 = 3.0
"""Smaller dark specks are granules, not lobes of a nucleus."""

CELL_SPAN_UM = 21.0
"""Lobes are not joined into a cell longer than this."""

ROUND = 0.62
"""Breadth over length that a cell has at least: two equal discs side by side have 0.5."""

SAMPLE = 50_000
"""Pixels that give a median of a whole field; millions would cost more time than all else."""

CYTOPLASM_UM = 4.5
"""How far the cell reaches beyond its nucleus at most."""


@dataclass(frozen=True, slots=True)
class _Maps:
    """One field at working resolution."""

    contrast: Image32
    """(height, width) float32, how much darker and differently coloured than the red cells; 0 on background and red cells."""
    hue: Image32
    """(height, width) float32, absorbance that no amount of red cell explains."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """What white cells are compared with."""

    absorbance: Image32
    """(3,) float32, typical absorbance of a red cell."""
    spread: float
    """Its median absolute deviation, summed over channels."""


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
    reference = _reference(corrected, red)
    scale = _um_per_px(corrected, red, reference) if um_per_px is None else um_per_px
    shrink = min(1.0, 1.0 / (PX_PER_UM * scale))
    px_per_um = 1.0 / (scale * shrink)
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    maps = _maps(corrected if shrink == 1.0 else resize(corrected, *size), reference, 0.4 * px_per_um)
    lobes, count = _lobes(maps.contrast, px_per_um)
    bodies = _bodies(maps, lobes, px_per_um)
    owner = _joined(lobes, bodies, count, px_per_um)
    cells, nuclei = owner[bodies], owner[lobes]
    found = []
    for index, slices in enumerate(ndimage.find_objects(cells, count), start=1):
        if slices is None or not _is_nucleus(nuclei[slices] == index, px_per_um):
            continue
        rows, cols = slices
        border = rows.start == 0 or cols.start == 0 or rows.stop == size[0] or cols.stop == size[1]
        x0, y0 = int(cols.start * width / size[1]), int(rows.start * height / size[0])
        x1, y1 = int(np.ceil(cols.stop * width / size[1])), int(np.ceil(rows.stop * height / size[0]))
        score = float(np.percentile(maps.contrast[slices][nuclei[slices] == index], 75))
        found.append(Detection(Box(x0, y0, min(x1, width) - x0, min(y1, height) - y0), border, score))
    return sorted(found, key=lambda cell: (cell.box.y, cell.box.x, cell.box.w, cell.box.h))


def _reference(corrected: Image32, red: RedCells) -> _Reference:
    """The red cells' colour; where hardly any were found, that of the paler quarter of what is stained (red cells or
    cytoplasm)."""
    from scipy import ndimage

    if red.n >= MIN_RED_CELLS:
        return _Reference(np.array(red.absorbance, np.float32), sum(red.spread))
    stained = ndimage.gaussian_filter(absorbance(_thumbnail(corrected)), (1.0, 1.0, 0)).reshape(-1, 3)
    total = stained.sum(axis=1)
    kept = total > max(0.1, 0.25 * float(np.percentile(total, 99)))
    if not kept.any():
        return _Reference(np.zeros(3, np.float32), 0.1)
    pale = stained[kept & (total <= np.percentile(total[kept], 25))]
    middle = np.median(pale, axis=0)
    return _Reference(middle, float(np.median(np.abs(pale - middle), axis=0).sum()))


def _um_per_px(corrected: Image32, red: RedCells, reference: _Reference) -> float:
    """Scale from the red cells, else so that the largest nucleus is 9 um across."""
    from scipy import ndimage

    if red.n >= MIN_RED_CELLS:
        return RED_CELL_UM / red.diameter_px
    small = _thumbnail(corrected)
    contrast = _maps(small, reference, 1.0).contrast
    dark = contrast > _seed_level(contrast)
    if not dark.any():
        return RED_CELL_UM / 30.0
    thickest = float(ndimage.distance_transform_edt(np.pad(dark, 1)).max())
    radius = min(0.7 * thickest, 8.0)
    labels, _ = ndimage.label(~_opened(~np.pad(dark, 20), radius))
    largest = float(np.bincount(labels.ravel())[1:].max())
    return float(9.0 / max(2.0 * np.sqrt(largest / np.pi), 6.0) * small.shape[1] / corrected.shape[1])


def _thumbnail(corrected: Image32) -> Image32:
    """The field at 400 px on its long side at most."""
    shrink = min(1.0, 400 / max(corrected.shape[:2]))
    return resize(corrected, max(1, round(corrected.shape[0] * shrink)), max(1, round(corrected.shape[1] * shrink)))


def _maps(image: Image32, reference: _Reference, sigma: float) -> _Maps:
    """Contrast with the red cells, smoothed by ``sigma`` px.

    Compared on 70 fields a set, as the share whose every true cell is 1.3 times stronger than anything else in the field
    (bccd, chula):
    summed absorbance 0.65, 0.81; red channel 0.96, 0.81; excess over the red cells 0.99, 0.89; what no amount of red cell
    explains 0.97, 0.91. Half the excess plus the latter keeps both: the first finds grey nuclei, the second ignores red cells
    that lie on each other.
    """
    from scipy import ndimage

    # Plane by plane: sums over a last axis of three cost numpy ten times as much, and full-size fields would not fit.
    planes = [ndimage.gaussian_filter(absorbance(image[..., c]), sigma) for c in range(3)]
    direction = reference.absorbance / max(float(np.linalg.norm(reference.absorbance)), 1e-6)
    along = np.zeros_like(planes[0])
    for plane, share in zip(planes, direction, strict=True):
        along += share * plane
    np.maximum(along, 0.0, out=along)
    hue, contrast = np.zeros_like(along), np.zeros_like(along)
    for plane, share, level in zip(planes, direction, reference.absorbance, strict=True):
        hue += np.maximum(plane - share * along, 0.0)
        contrast += np.maximum(plane - level, 0.0)
    unit = 0.5 * float(reference.absorbance.sum()) + 2.0 * reference.spread + 0.02
    contrast *= 0.5
    contrast += hue
    contrast /= unit
    return _Maps(contrast, hue)


def _seed_level(contrast: Image32) -> float:
    """Contrast above which a pixel may be nucleus: fixed from below, relative to the darkest of the field where stain is
    strong."""
    return max(SEED_CONTRAST, 0.4 * float(np.percentile(contrast, 99.9)))


def _lobes(contrast: Image32, px_per_um: float) -> tuple[Labels, int]:
    """Dark pieces, touching nuclei split: (height, width) int32 labels 1..n, and n."""
    from scipy import ndimage

    labels, count = ndimage.label(_filled(_opened(contrast > _seed_level(contrast), 0.5 * px_per_um)))
    area = np.bincount(labels.ravel(), minlength=count + 1)
    kept = area >= LOBE_UM2 * px_per_um**2
    kept[0] = False
    return _split((np.cumsum(kept) * kept)[labels].astype(np.int32), int(kept.sum()), px_per_um)


def _is_nucleus(part: Mask, px_per_um: float) -> bool:
    """Size and shape of one candidate: neither platelet nor scratch nor smear."""
    from scipy import ndimage

    if not NUCLEUS_UM2[0] <= part.sum() / px_per_um**2 <= NUCLEUS_UM2[1]:
        return False
    return bool(ndimage.distance_transform_edt(np.pad(part, 1)).max() >= 1.2 * px_per_um)


def _split(lobes: Labels, count: int, px_per_um: float) -> tuple[Labels, int]:
    """Cut components that are two nuclei with a neck: both 5.6 um thick or more and 6.5 um apart, neck under 0.7 of the
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
        thick = [i for i in range(1, n + 1) if depth[cores == i].max() >= 2.8 * px_per_um]
        centers = np.array(ndimage.center_of_mass(depth, cores, thick)).reshape(-1, 2)
        if len(thick) < 2 or np.hypot(*(centers[0] - centers[1:]).T).min() < 6.5 * px_per_um:
            continue
        nearest = ndimage.distance_transform_edt(~np.isin(cores, thick), return_distances=False, return_indices=True)
        owner = cores[tuple(nearest)]
        for i in thick[1:]:
            last += 1
            out[slices][part & (owner == i)] = last
    return out, last


def _bodies(maps: _Maps, lobes: Labels, px_per_um: float) -> Labels:
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
    cell = _opened(stained, 0.75 * px_per_um) | (far <= 0.4 * px_per_um)
    parts, count = ndimage.label(cell)
    hit = np.zeros(count + 1, np.bool_)
    hit[np.unique(parts[lobes > 0])] = True
    return np.where(_filled(hit[parts] & cell), lobes[tuple(nearest)], 0)


def _joined(lobes: Labels, bodies: Labels, count: int, px_per_um: float) -> Labels:
    """Which lobes make one cell: (count + 1,) int32, the label of the cell of each lobe.

    Lobes whose bodies touch are joined, widest contact first, as long as the whole is no longer than a cell and about as
    round. Joining by the
    gap between lobes alone (2 um) left one bccd cell in eight in two pieces.
    """
    from scipy import ndimage

    owner = np.arange(count + 1, dtype=np.int32)
    extent = {i: _widths(bodies, i, slices) for i, slices in enumerate(ndimage.find_objects(bodies), start=1) if slices}
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
        if width.max() <= CELL_SPAN_UM * px_per_um and width.min() >= ROUND * width.max():
            owner[owner == two] = one
            extent[one] = low, high
    return owner


def _widths(labels: Labels, index: int, slices: tuple[slice, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Extent of one label along 12 directions: lowest and highest projection, (12,) float64 each, px."""
    y, x = np.nonzero(labels[slices] == index)
    angle = np.arange(12) * np.pi / 12
    along = np.multiply.outer(np.cos(angle), x + slices[1].start) + np.multiply.outer(np.sin(angle), y + slices[0].start)
    return along.min(axis=1), along.max(axis=1)


def _filled(mask: Mask) -> Mask:
    """Holes filled; scipy's own does it by repeated dilation, in ten times the time."""
    from scipy import ndimage

    gaps, count = ndimage.label(~mask)
    open_ = np.zeros(count + 1, np.bool_)
    for rim in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        open_[rim] = True
    open_[0] = False
    return ~open_[gaps]


def _opened(mask: Mask, radius: float) -> Mask:
    """Opening by a disc, outside counting as empty: shifted copies, some 30 times faster than scipy's at these radii."""
    r = max(1, round(radius))
    shifts = [(y, x) for y in range(-r, r + 1) for x in range(-r, r + 1) if x * x + y * y <= r * r + 0.5 * r]
    height, width = mask.shape
    padded = np.pad(mask, r)
    eroded = np.zeros_like(padded)
    core = eroded[r : r + height, r : r + width]
    core[...] = True
    for y, x in shifts:
        core &= padded[r + y : r + y + height, r + x : r + x + width]
    out = np.zeros_like(mask)
    for y, x in shifts:
        out |= eroded[r + y : r + y + height, r + x : r + x + width]
    return out
