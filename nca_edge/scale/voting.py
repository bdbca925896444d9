"""Discs among what is stained, found by the votes of its outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca_edge.planes import blurred, middle, percentile, rim
from nca_edge.preprocess import absorbance, otsu, resize
from nca_edge.records import Image32
from nca_edge.threads import each

WORK_SIDE = 400
"""Long side, px, of the reduced field in which outlines vote: reduction averages granules and diffraction rings away."""

DARK = 2.0
"""A disc this much darker than the pale ones is no red cell."""

MIN_STAIN = 0.06
"""Absorbance, summed over channels, below which nothing is stained: about 5 grey levels of 255 in each channel."""

VOTE_BIAS = 1.13
"""Diameter that people measure over voted diameter. The votes of a tilted or oval cell gather at the shorter of its radii, and
where the rim is steepest, while people measure to the outer end of the rim: 1.06 left the scale 13 % above what boxes drawn
around red cells say (bccd) and 2.6 % above the nominal one (acevedo20), 1.09 would agree with the latter and be 10 % above the
boxes. This value lies between both references, 7 % and less from either."""

AROUND = 0.5
"""Radii are asked one by one if they differ from the most common one by less, in their logarithm."""


def stain_planes(corrected: Image32, shrink: float) -> tuple[Image32, list[Image32]]:
    """Absorbance of the reduced image: (h, w) float32 summed over channels and slightly smoothed, and the channel planes."""
    height, width = (max(1, round(n * shrink)) for n in corrected.shape[:2])
    planes = each(lambda c: absorbance(resize(np.ascontiguousarray(corrected[..., c]), height, width)), range(3))
    return blurred(planes[0] + planes[1] + planes[2], 1.0), planes


def foreground(total: Image32) -> NDArray[np.bool_]:
    """What is stained at all, by Otsu's threshold on the absorbance summed over channels.

    The threshold is taken twice, first with the darkest tenth clipped, then with everything darker than a typical red cell:
    white cells would otherwise pull it above pale red cells. Where clipping a fiftieth separates far better, the field holds
    hardly any cells and the tenth would have been background.

    Parameters
    ----------
    total : (height, width) float32, slightly smoothed

    Returns
    -------
    (height, width) bool
    """
    if min(float(total.max()), float(np.ptp(total))) <= MIN_STAIN:  # nothing stained, or all alike
        return np.zeros(total.shape, np.bool_)
    (crowded_level, crowded), (sparse_level, sparse) = (split(np.minimum(total, percentile(total, p))) for p in (90, 98))
    first = sparse_level if sparse > 1.6 * crowded else crowded_level
    stained = total[total > 0.6 * first]
    if stained.size == 0:
        return np.zeros(total.shape, np.bool_)
    second = otsu(np.minimum(total, np.float32(1.2) * middle(stained)))
    noise = 1.4826 * float(middle(np.abs(total[total <= second])))
    return np.asarray(total > max(0.8 * second, min(3.0 * noise, 1.2 * second), MIN_STAIN))


def split(values: Image32) -> tuple[float, float]:
    """Otsu's threshold, and the distance of its two classes in standard deviations of the lower one."""
    level = otsu(values)
    flat = values.ravel()
    low = (flat <= level).astype(np.float32)
    count = int(np.count_nonzero(low))
    if count in (0, flat.size):
        return level, 0.0
    # sums by products: to pick the values of each class takes five times as long
    below = float(flat @ low) / count
    above = (float(flat.sum()) - below * count) / (flat.size - count)
    low *= flat - np.float32(below)
    return level, (above - below) / (float(np.sqrt(low @ low / count)) + 1e-3)


def pale_discs(total: Image32, mask: NDArray[np.bool_], about_px: float | None = None) -> NDArray[np.float64]:
    """Discs of the most common size for which the outline of ``mask`` votes, those of white cells left out.

    Every second radius is asked, then those between that are near the most common one: all at once took a third more of the
    time.

    Parameters
    ----------
    total : (height, width) float32, absorbance summed over channels; its gradient points into cells
    mask : (height, width) bool, what is stained
    about_px : radius near which they are looked for; None: anywhere

    Returns
    -------
    (discs, 4) float64
        Centre x, y and radius in px, and completeness: the share of the circle's outline that voted. One a cell.
    """
    height, width = total.shape
    grad_y, grad_x = (np.asarray(g) for g in np.gradient(total))
    y, x = np.nonzero(rim(mask))
    steep = np.hypot(grad_x[y, x], grad_y[y, x]) + 1e-9
    outline = Outline(x, y, grad_x[y, x] / steep, grad_y[y, x] / steep, (height, width))
    radii = np.geomspace(3.0, max(height, width) / 5, 40)
    sums = np.zeros((height + 1, width + 1))
    total.cumsum(axis=0, dtype=np.float64).cumsum(axis=1, out=sums[1:, 1:])
    if about_px is not None:
        near = radii[np.abs(np.log(radii / about_px)) < AROUND]
        return _modal(_pale(np.concatenate([np.empty((0, 4)), *each(outline.discs, near)]), sums))
    some = np.concatenate(each(outline.discs, radii[::2]))
    common = _common_radius(_pale(some, sums), 0.5)
    between = radii[1::2][np.abs(np.log(radii[1::2] / common)) < AROUND]
    discs = _pale(np.concatenate([some, *each(outline.discs, between)]), sums)
    return _modal(discs[np.abs(np.log(discs[:, 2] / common)) < AROUND])


@dataclass(frozen=True, slots=True)
class Outline:
    """Points that vote."""

    x: NDArray[np.intp]
    """(points,) px."""
    y: NDArray[np.intp]
    inward_x: NDArray[np.float64]
    """(points,) unit vector towards the darker side."""
    inward_y: NDArray[np.float64]
    shape: tuple[int, int]
    """Height and width of the field, px."""

    def discs(self, radius: np.float64) -> NDArray[np.float64]:
        """Of one radius, as ``pale_discs`` gives them: where the votes, smoothed, are the most within a radius around.

        A filter for maxima over the whole field took half of the time: few places have votes enough to be asked.
        """
        from scipy import ndimage

        cell = max(1, int(radius / 4))  # coarse bins for large circles: the tolerance is a share of the radius anyway
        height, width = self.shape[0] // cell + 1, self.shape[1] // cell + 1
        bin_x = np.rint((self.x + radius * self.inward_x) / cell).astype(np.intp)
        bin_y = np.rint((self.y + radius * self.inward_y) / cell).astype(np.intp)
        inside = (bin_x >= 0) & (bin_x < width) & (bin_y >= 0) & (bin_y < height)
        votes = np.bincount(bin_y[inside] * width + bin_x[inside], minlength=height * width).reshape(height, width)
        sigma = max(0.2 * radius / cell, 0.5)
        reach = int(np.ceil(radius / cell))
        smooth = np.zeros((height + 2 * reach, width + 2 * reach), np.float32)
        ndimage.gaussian_filter(votes.astype(np.float32), sigma, output=smooth[reach:-reach, reach:-reach])
        peaks = _peaks(smooth, reach, 0.249 * radius / sigma**2)
        complete = smooth.ravel()[peaks] * sigma**2 / radius
        peaks, complete = peaks[complete > 0.25], complete[complete > 0.25]
        peak_y, peak_x = np.divmod(peaks, smooth.shape[1])
        return np.stack([(peak_x - reach) * cell, (peak_y - reach) * cell, np.full(len(peaks), radius), complete], axis=-1)


def _peaks(values: Image32, reach: int, least: float) -> NDArray[np.intp]:
    """Flat indices of the values above ``least`` that none within ``reach`` (a square) exceeds; the rim, so wide, is 0."""
    flat, row = values.ravel(), values.shape[1]
    at = np.flatnonzero(flat > least)
    square = np.arange(-reach, reach + 1)
    for step in (1, row, max(1, reach // 2) * (row + 1), max(1, reach // 2) * (row - 1)):  # near ones first: most end here
        at = at[(flat[at] >= flat[at - step]) & (flat[at] >= flat[at + step])]
    around = at[:, None] + (square[:, None] * row + square[None, :]).ravel()
    return at[flat[at] == flat[around].max(axis=1)] if len(at) else at


def _pale(discs: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The discs that are not much darker than the pale ones: white cells vote too, and may be more than the red cells.

    ``sums``: running sums of the absorbance, one row and column larger than the field.
    """
    if len(discs) == 0:
        return discs
    height, width = (side - 1 for side in sums.shape)
    half = 0.6 * discs[:, 2]
    x0, x1 = (np.clip(np.rint(discs[:, 0] + h), 0, width - 1).astype(np.intp) for h in (-half, half))
    y0, y1 = (np.clip(np.rint(discs[:, 1] + h), 0, height - 1).astype(np.intp) for h in (-half, half))
    inside = sums[y1 + 1, x1 + 1] - sums[y0, x1 + 1] - sums[y1 + 1, x0] + sums[y0, x0]
    level = inside / ((y1 + 1 - y0) * (x1 + 1 - x0))
    return discs[level <= DARK * np.percentile(level, 30)]


def _common_radius(discs: NDArray[np.float64], sigma: float) -> float:
    """The radius with the most support, px; 1 where there is no disc.

    Support of a radius is the sum of completeness squared times radius: without the radius, dirt and platelets win by number.

    Parameters
    ----------
    sigma : how far support is smoothed, steps between radii
    """
    from scipy import ndimage

    if not len(discs):
        return 1.0
    radii, index = np.unique(discs[:, 2], return_inverse=True)
    number = np.bincount(index)
    support = np.bincount(index, discs[:, 3] ** 2) * radii * number / (number + 2.0)
    support = ndimage.gaussian_filter1d(support, sigma, mode="constant")
    at = int(np.argmax(support))
    best = float(radii[at])
    if 0 < at < len(radii) - 1:  # the peak of a parabola through three neighbours: radii are 8 % apart
        left, middle, right = support[at - 1 : at + 2]
        shift = 0.5 * (left - right) / min(left - 2.0 * middle + right, -1e-9)
        best *= float((radii[at + 1] / radii[at]) ** np.clip(shift, -0.5, 0.5))
    return best


def _modal(discs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The discs of the most common size, one a cell: (n, 4) float64."""
    if not len(discs):
        return discs
    best = _common_radius(discs, 1.0)
    near = discs[np.abs(np.log(discs[:, 2] / best)) < 0.25]
    near = near[np.argsort(-near[:, 3], kind="stable")]
    kept = []
    while len(near):
        kept.append(near[0])
        near = near[np.hypot(near[:, 0] - near[0, 0], near[:, 1] - near[0, 1]) > 0.8 * best]
    return np.array(kept)


def cover(discs: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Stained pixels well inside the discs: (height, width) bool."""
    out = np.zeros(mask.shape, np.bool_)
    for x, y, radius, _ in discs:
        r = 0.8 * radius
        y0, x0 = max(0, int(y - r)), max(0, int(x - r))
        rows, cols = np.ogrid[y0 : int(y + r) + 1, x0 : int(x + r) + 1]
        part = out[y0 : int(y + r) + 1, x0 : int(x + r) + 1]
        part |= ((rows - y) ** 2 + (cols - x) ** 2 <= r * r)[: part.shape[0], : part.shape[1]]
    return out & mask
