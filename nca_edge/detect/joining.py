"""Pieces of one cell whose bodies do not touch: the granules between the lobes of an eosinophil have the red cells' colour."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nca_edge.detect.contrast import Maps
from nca_edge.detect.shapes import Labels, Mask
from nca_edge.detect.waist import side_by_side

LOBE_AREA_UM2 = (8.8, 30.0)
"""Area of a nucleus, um2, that may be the lobe of another: smaller are platelets, larger the round nuclei of lymphocytes, which
touch each other without being one cell."""

GAP_UM = 3.75
"""Lobes farther apart than this are not one cell's."""

SPAN_UM = 17.0
"""Nor are those that reach farther together."""

COVERED = 1 / 3
"""Share of a red cell's absorbance that is between them at least, at all but a fifth of the places: no background there."""

BRIDGE_UM = 1.4
"""What lies between two lobes: the places from which the way to both is longer than the gap by no more than this."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nuclei near each other, in a window around both."""

    gap_px: float
    """From border to border."""
    bridge: Mask
    """What lies between them."""


def joined_pieces(owner: Labels, lobes: Labels, bodies: Labels, maps: Maps, px_per_um: float) -> Labels:
    """Join what ``joined_lobes`` left in pieces: (count + 1,) int32, the label of the cell of each lobe.

    Parameters
    ----------
    owner : (count + 1,) int32
    lobes : (height, width) int32 labels 1..count
    bodies : of the same labels, each lobe with its cytoplasm
    """
    from scipy import ndimage

    nuclei = owner[lobes]
    places = {i: box for i, box in enumerate(ndimage.find_objects(nuclei, len(owner) - 1), start=1) if box is not None}
    area = np.bincount(nuclei.ravel(), minlength=len(owner)) / px_per_um**2
    kept = [i for i in places if area[i] >= LOBE_AREA_UM2[0]]
    joined = owner.copy()
    for a, b in combinations(kept, 2):
        if min(area[a], area[b]) > LOBE_AREA_UM2[1] or joined[a] == joined[b]:
            continue
        window = _around(places[a], places[b])
        if _too_long(window, (GAP_UM + SPAN_UM) * px_per_um):
            continue
        pair = _pair(nuclei[window], a, b, px_per_um)
        if pair.gap_px > GAP_UM * px_per_um or not _covered(maps.total[window][pair.bridge], maps.red_total):
            continue
        whole = np.isin(joined[lobes], (joined[a], joined[b]))
        pieces = int(joined[a]), int(joined[b])
        if _span(whole) <= SPAN_UM * px_per_um and not side_by_side(joined[bodies], pieces, px_per_um):
            joined[joined == joined[b]] = joined[a]
    return joined


def _around(one: tuple[slice, ...], two: tuple[slice, ...]) -> tuple[slice, ...]:
    """The smallest window that holds both."""
    return tuple(slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(one, two, strict=True))


def _too_long(window: tuple[slice, ...], side_px: float) -> bool:
    return any(part.stop - part.start > side_px for part in window)


def _pair(nuclei: Labels, a: int, b: int, px_per_um: float) -> Pair:
    """Two nuclei of a window, and what lies between them."""
    from scipy import ndimage

    one, two = nuclei == a, nuclei == b
    far = ndimage.distance_transform_edt(~one), ndimage.distance_transform_edt(~two)
    gap = float(far[0][two].min())
    return Pair(gap, (far[0] + far[1] <= gap + BRIDGE_UM * px_per_um) & ~one & ~two)


def _covered(between: NDArray[np.float32], red_total: float) -> bool:
    """Nowhere background, or next to each other."""
    return between.size == 0 or bool(np.percentile(between, 20) >= COVERED * max(red_total, 0.05))


def _span(mask: Mask) -> float:
    """Largest extent along 12 directions, px."""
    y, x = np.nonzero(mask)
    angle = np.arange(12) * np.pi / 12
    along = np.multiply.outer(np.cos(angle), x) + np.multiply.outer(np.sin(angle), y)
    return float(np.ptp(along, axis=1).max())
