"""Size and shape of a cell by its mask, in micrometres; what the mask cannot tell is None, with the reason beside it. A base
module like records: anybody may import it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from nca_edge.records import ChannelRelevance, Explanation, Image8, Measures, Scale
from nca_edge.regions import box_of

CELL, NUCLEUS = 128, 255
"""Values of a mask, as ``nca_edge.mask`` writes them."""
OUTLINE_PX = 160
"""An outline is measured on at most so many pixels a side: a mask that was enlarged has stairs that are not the cell's."""
NOTHING = Measures(reason="no cell was outlined: the image is empty, of one colour, or shows nothing in its middle")
CUT = "the mask reaches the edge of what is seen of the cell: its size and shape are not known"
NO_NUCLEUS = "no nucleus was told apart"
NO_SCALE = "the scale is not known: give --um-per-px"
FLAG_ABOVE = 0.5
"""A cell whose positive relevance peaks outside it by more than this share rests on the background. Chosen as "most of it", not
fitted."""

Part = tuple[int, int, int, int]
"""(left, upper, right, lower) px, right and lower exclusive."""


def measure(mask: Image8, scale: Scale, seen: Part | None = None) -> Measures:
    """Measures of the cell that a mask outlines.

    Parameters
    ----------
    mask : (height, width) uint8
        0 background, 128 cell, 255 nucleus.
    scale : of the mask's pixels; sizes are None where nothing tells it (``view``)
    seen : the part of the mask where the image has pixels; None: all

    Returns
    -------
    Measures, all None where nothing is outlined or where the outline is cut by the edge of the image or of the view
    """
    left, upper, right, lower = seen or (0, 0, mask.shape[1], mask.shape[0])
    shown = mask[upper:lower, left:right]
    cell = shown >= CELL
    n = int(np.count_nonzero(cell))
    if n == 0:
        return NOTHING
    if cell[0].any() or cell[-1].any() or cell[:, 0].any() or cell[:, -1].any():
        return Measures(reason=CUT)
    nucleus = int(np.count_nonzero(shown == NUCLEUS))
    share = nucleus / n if nucleus else None
    ratio = nucleus / (n - nucleus) if 0 < nucleus < n else None
    shape = Measures(
        circularity=circularity(cell), nucleus_share=share, nucleus_cytoplasm_ratio=ratio,
        reason=None if nucleus else NO_NUCLEUS,
    )  # fmt: skip
    if scale.source == "view":
        return replace(shape, reason=NO_SCALE)
    px_um2 = scale.um_per_px**2
    return replace(
        shape, area_um2=n * px_um2, equivalent_diameter_um=2 * math.sqrt(n * px_um2 / math.pi),
        nucleus_area_um2=nucleus * px_um2 if nucleus else None,
    )  # fmt: skip


def unoutlined(explanation: Explanation) -> Explanation:
    """Without its mask and what is told by it, for an image that shows no cell."""
    return replace(explanation, mask=np.zeros_like(explanation.mask), outside_share=None, mask_agreement=None, measures=NOTHING)


def measured(explanation: Explanation, scale: Scale, center: tuple[float, float], shape: tuple[int, ...]) -> Explanation:
    """With the measures of its mask, which lies around ``center`` (x, y) px of an image of this (height, width)."""
    return replace(explanation, measures=measure(explanation.mask, scale, seen_part(center, len(explanation.mask), shape)))


def seen_part(center: tuple[float, float], side: int, shape: tuple[int, ...]) -> Part:
    """The part of a square of ``side`` px around ``center`` (x, y) px where an image of this (height, width) has pixels."""
    height, width = shape
    x0, y0 = round(center[0] - side / 2), round(center[1] - side / 2)
    return max(-x0, 0), max(-y0, 0), min(side, width - x0), min(side, height - y0)


def circularity(region: NDArray[np.bool_]) -> float:
    """4 pi area / perimeter^2: 1 for a disc, less for all else; at most 1, which pixels of a small disc can exceed.

    The perimeter is Cauchy's and Crofton's: how often lines in four directions cross the outline (Legland, Kieu and Devaux
    2007, Image Analysis and Stereology 26:83). Four directions are exact for a disc; a square comes out at 0.88, not 0.79.

    Parameters
    ----------
    region : (height, width) bool, at least one pixel set
    """
    height, width = region.shape
    side = max(height, width)
    if side > OUTLINE_PX:
        rows, columns = (
            ((np.arange(round(n * OUTLINE_PX / side)) + 0.5) * side / OUTLINE_PX).astype(int) for n in (height, width)
        )
        region = region[rows.clip(0, height - 1)][:, columns.clip(0, width - 1)]
    part = region[box_of(region)]
    r = np.zeros((part.shape[0] + 2, part.shape[1] + 2), np.bool_)  # numpy.pad takes ten times as long
    r[1:-1, 1:-1] = part
    straight = np.count_nonzero(r[1:] != r[:-1]) + np.count_nonzero(r[:, 1:] != r[:, :-1])
    slanting = np.count_nonzero(r[1:, 1:] != r[:-1, :-1]) + np.count_nonzero(r[1:, :-1] != r[:-1, 1:])
    perimeter = math.pi / 8 * (straight + slanting / math.sqrt(2))
    return min(1.0, 4 * math.pi * np.count_nonzero(r) / perimeter**2)


def outside_share(channels: tuple[ChannelRelevance, ...], mask: Image8) -> float | None:
    """Share of the positive relevance of some channels whose peak lies outside the cell, 0..1.

    A peak is a cell of the automaton's grid, 0.8 um wide in the shipped model: it lies outside where no part of it is in the
    mask.

    Parameters
    ----------
    channels : their peaks in px of the mask
    mask : (n, n) uint8

    Returns
    -------
    None where nothing is outlined or no channel speaks for the class
    """
    speaking = [c for c in channels if c.relevance > 0]
    if not speaking or not mask.any():
        return None
    outside = sum(c.relevance for c in speaking if not peak_touches(c, mask))
    return outside / sum(c.relevance for c in speaking)


def peak_touches(channel: ChannelRelevance, mask: Image8) -> bool:
    """Whether some part of the grid cell in which a channel peaks lies in the mask."""
    px = len(mask) / len(channel.map)
    first = [int(at / px) for at in channel.peak]
    columns, rows = (slice(int(at * px), math.ceil((at + 1) * px)) for at in first)
    return bool((mask[rows, columns] >= CELL).any())


def rests_on_background(share: float | None) -> bool:
    """Whether most of what spoke for the class lies outside the cell."""
    return share is not None and share > FLAG_ABOVE


def kept(explanation: Explanation) -> dict[str, float | bool | str]:
    """What a session keeps of the measures and of where the relevance lies: name -> value, without what is not known."""
    values = {**asdict(explanation.measures), "outside_share": explanation.outside_share}
    known = {
        name: round(value, 6) if isinstance(value, float) else value for name, value in values.items() if value is not None
    }
    return {**known, "rests_on_background": rests_on_background(explanation.outside_share)}
