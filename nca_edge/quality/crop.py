"""Does an image of one cell show anything at all?"""

from __future__ import annotations

import numpy as np

from nca_edge.planes import blurred
from nca_edge.preprocess import absorbance
from nca_edge.quality.gate import MIN_COLOUR, colour
from nca_edge.records import Image8, Image32

LIGHT = 40
"""Grey level that the brightest hundredth of an image reaches; the least of the real ones reaches 125."""
BLUR = 1 / 48
"""Width of the blur that takes noise and leaves cells, as a share of the image's side."""
MIN_COARSE = 0.45
"""Share of its deviation that an image keeps under it; real ones 0.70 and more, noise 0.09, a page of print 0.19."""
MIN_CONTRAST = 0.2
"""Absorbance, summed over channels, between the palest and the darkest hundredth of the blurred image; real ones 0.54 and more,
noise around one colour 0.08."""


def nothing_in(rgb: Image8, corrected: Image32) -> str | None:
    """Why an image of one cell shows none, in a sentence for a person; None where there is something to look at.

    Parameters
    ----------
    rgb : (height, width, 3) uint8
    corrected : (height, width, 3) float32, the same with background = 1.0
    """
    if float(np.percentile(rgb.max(2), 99)) < LIGHT:
        return "the image is black: check the lamp, the exposure time and the file"
    planes = [absorbance(np.ascontiguousarray(corrected[..., c])) for c in range(3)]
    total = planes[0] + planes[1] + planes[2]
    smooth = blurred(total, min(total.shape) * BLUR)
    if float(smooth.std()) < MIN_COARSE * float(total.std()):
        return "the image shows only noise or print: no cell is seen"
    low, high = np.percentile(smooth, (1, 99))
    if float(high - low) < MIN_CONTRAST:
        return "the image is of one colour: no cell is seen"
    if colour(planes, smooth) < MIN_COLOUR:
        return "the image shows no stained cell: all colours are absorbed alike"
    return None
