"""Discs among what is stained, found by the votes of its outline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nca_edge.preprocess import absorbance, otsu, resize
from nca_edge.records import Image32

WORK_SIDE = 400
"""Long side, px, of the reduced field in which outlines vote: reduction averages granules and diffraction rings away."""

DARK = 2.0
"""A disc this much darker than the pale ones is no red cell."""

MIN_STAIN = 0.06
"""Absorbance, summed over channels, below which nothing is stained: about 5 grey levels of 255 in each channel."""

VOTE_BIAS = 1.06
"""Equivalent diameter over voted diameter: the votes of a tilted or oval cell gather at the shorter of its radii."""


def stain_planes(corrected: Image32, shrink: float) -> tuple[Image32, list[Image32]]:
    """Absorbance of the reduced image: (h, w) float32 summed over channels and slightly smoothed, and the channel planes."""
    from scipy import ndimage

    height, width = (max(1, round(n * shrink)) for n in corrected.shape[:2])
    planes = [absorbance(resize(np.ascontiguousarray(corrected[..., c]), height, width)) for c in range(3)]
    return ndimage.gaussian_filter(planes[0] + planes[1] + planes[2], 1.0), planes


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
    crowded, sparse = (np.minimum(total, np.percentile(total, p)) for p in (90, 98))
    first = otsu(sparse if _separation(sparse) > 1.6 * _separation(crowded) else crowded)
    stained = total[total > 0.6 * first]
    if stained.size == 0:
        return np.zeros(total.shape, np.bool_)
    second = otsu(np.minimum(total, 1.2 * np.median(stained)))
    noise = 1.4826 * float(np.median(np.abs(total[total <= second])))
    return np.asarray(total > max(0.8 * second, min(3.0 * noise, 1.2 * second), MIN_STAIN))


def _separation(values: Image32) -> float:
    """Distance of the two classes of Otsu's threshold in standard deviations of the lower one."""
    low = values <= otsu(values)
    if low.all() or not low.any():
        return 0.0
    return float((values[~low].mean() - values[low].mean()) / (values[low].std() + 1e-3))


def vote(total: Image32, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Discs for which the outline of ``mask`` votes.

    Parameters
    ----------
    total : (height, width) float32, absorbance summed over channels; its gradient points into cells
    mask : (height, width) bool, what is stained

    Returns
    -------
    (discs, 4) float64
        Centre x, y and radius in px, and completeness: the share of the circle's outline that voted.
    """
    from scipy import ndimage

    height, width = total.shape
    grad_y, grad_x = (np.asarray(g) for g in np.gradient(total))
    y, x = np.nonzero(mask & ~ndimage.binary_erosion(mask, border_value=1))
    steep = np.hypot(grad_x[y, x], grad_y[y, x]) + 1e-9
    inward_x, inward_y = grad_x[y, x] / steep, grad_y[y, x] / steep
    found = []
    for radius in np.geomspace(3.0, max(height, width) / 5, 40):
        cell = max(1, int(radius / 4))  # coarse bins for large circles: the tolerance is a share of the radius anyway
        shape = height // cell + 1, width // cell + 1
        bin_x = np.rint((x + radius * inward_x) / cell).astype(np.intp)
        bin_y = np.rint((y + radius * inward_y) / cell).astype(np.intp)
        inside = (bin_x >= 0) & (bin_x < shape[1]) & (bin_y >= 0) & (bin_y < shape[0])
        votes = np.bincount(bin_y[inside] * shape[1] + bin_x[inside], minlength=shape[0] * shape[1]).reshape(shape)
        sigma = max(0.2 * radius / cell, 0.5)
        complete = ndimage.gaussian_filter(votes.astype(np.float32), sigma) * sigma**2 / radius
        peak_y, peak_x = np.nonzero(
            (complete == ndimage.maximum_filter(complete, 2 * int(np.ceil(radius / cell)) + 1)) & (complete > 0.25)
        )
        found.append(np.stack([peak_x * cell, peak_y * cell, np.full(len(peak_x), radius), complete[peak_y, peak_x]], axis=-1))
    return np.concatenate(found)


def pale(discs: NDArray[np.float64], total: Image32) -> NDArray[np.float64]:
    """The discs that are not much darker than the pale ones: white cells vote too, and may be more than the red cells."""
    if len(discs) == 0:
        return discs
    height, width = total.shape
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = total.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    half = 0.6 * discs[:, 2]
    x0, x1 = (np.clip(np.rint(discs[:, 0] + h), 0, width - 1).astype(np.intp) for h in (-half, half))
    y0, y1 = (np.clip(np.rint(discs[:, 1] + h), 0, height - 1).astype(np.intp) for h in (-half, half))
    inside = sums[y1 + 1, x1 + 1] - sums[y0, x1 + 1] - sums[y1 + 1, x0] + sums[y0, x0]
    level = inside / ((y1 + 1 - y0) * (x1 + 1 - x0))
    return discs[level <= DARK * np.percentile(level, 30)]


def modal(discs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The discs of the most common size, one a cell: (n, 4) float64.

    Support of a radius is the sum of completeness squared times radius: without the radius, dirt and platelets win by number.
    """
    from scipy import ndimage

    if not len(discs):
        return discs
    radii, index = np.unique(discs[:, 2], return_inverse=True)
    number = np.bincount(index)
    support = np.bincount(index, discs[:, 3] ** 2) * radii * number / (number + 2.0)
    support = ndimage.gaussian_filter1d(support, 1.0, mode="constant")
    at = int(np.argmax(support))
    best = radii[at]
    if 0 < at < len(radii) - 1:  # the peak of a parabola through three neighbours: radii are 8 % apart
        left, middle, right = support[at - 1 : at + 2]
        shift = 0.5 * (left - right) / min(left - 2.0 * middle + right, -1e-9)
        best *= (radii[at + 1] / radii[at]) ** float(np.clip(shift, -0.5, 0.5))
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
