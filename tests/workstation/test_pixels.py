"""Relevance of pixels: every small automaton's logit is the sum of its pixels and its biases."""

import numpy as np
import pytest
import torch

from nca_edge.automaton import Architecture, draw_fire
from nca_train.model import NCA
from nca_train.pixels import pixel_relevance
from tests.workstation.automata import SMALL, name_of, random_images, random_weights


@pytest.mark.parametrize("a", SMALL, ids=name_of)
def test_pixels_and_biases_add_up_to_the_logit(a: Architecture) -> None:
    model = NCA(a)
    weights = random_weights(a)
    model.load_weights(weights)
    image, fire = random_images(a, 1)[0], draw_fire(a, 3)
    with torch.inference_mode():
        (logits,), _ = model(torch.from_numpy(image)[None], fire)
    for target in range(a.classes):
        found = pixel_relevance(model, image, fire, target)
        assert found.pixels.shape == (a.size, a.size) and np.abs(found.pixels).max() > 0
        assert found.pixels.sum() + found.bias_share == pytest.approx(float(logits[0, target]), rel=1e-3, abs=1e-4)


def test_an_image_of_the_mean_colour_leaves_all_to_the_biases() -> None:
    a = SMALL[0]
    model = NCA(a)
    model.load_weights(random_weights(a))
    found = pixel_relevance(model, np.zeros((a.size, a.size, 3), np.float32), draw_fire(a, 3), 1)
    assert not found.pixels.any() and found.bias_share != 0
