"""Relevance of pixels: a class logit carried back through the head, the pool and every step to the image. For a workstation.

This is not the relevance of channels that a session shows (``nca_edge.explain``), which stops at the pooled features. All
layers are linear, rectified or maxima, so a logit is the sum over pixels and biases of value times gradient: the epsilon rule
with epsilon 0 (Ancona et al. 2018, ICLR, section 3). It is relative to an image of the mean colour, normalised 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nca_edge.automaton import Fire
from nca_edge.records import Image32
from nca_train.model import NCA


class PixelRelevance(NamedTuple):
    """A class logit, split into who spoke for it."""

    pixels: NDArray[np.float64]
    """(size, size), the three colours of a pixel together."""
    bias_share: float
    """Absorbed by the biases of all steps and of the head."""


def pixel_relevance(model: NCA, image: Image32, fire: Fire, target: int) -> PixelRelevance:
    """Carry the logit of a class back to the pixels.

    Parameters
    ----------
    image : (size, size, 3) normalised
    fire : schedule of the bundle
    target : index of the class

    Returns
    -------
    PixelRelevance, whose two parts sum to the logit, up to float32
    """
    shown = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].requires_grad_()
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    (logits,), _ = model(shown, fire)
    gradient, *of_biases = torch.autograd.grad(logits[0, target], [shown, *biases])
    pixels = (shown * gradient)[0].detach().double().sum(-1).numpy()
    pairs = zip(biases, of_biases, strict=True)
    bias = sum(float((value.detach().double() * slope.double()).sum()) for value, slope in pairs)
    return PixelRelevance(pixels, bias)
