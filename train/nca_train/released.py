"""Import the state dict released with the MICCAI 2024 paper into this project's names and axes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nca_edge.automaton import PRESETS, Architecture, Weights
from nca_edge.errors import BundleError

RELEASED_CLASSES = (
    "basophil", "eosinophil", "erythroblast", "myeloblast", "promyelocyte", "myelocyte", "metamyelocyte", "neutrophil_band",
    "neutrophil_segmented", "monocyte", "lymphocyte_typical", "lymphocyte_atypical", "smudge_cell",
)  # fmt: skip
RELEASED_MEAN = (0.82069695, 0.7281261, 0.836143)
RELEASED_STD = (0.16157213, 0.2490039, 0.09052657)

_NOT_THAT = (
    AttributeError, BundleError, EOFError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError,
    pickle.UnpicklingError,
)  # fmt: skip
"""What torch, pickle and NumPy raise for files of another kind."""


def load_released(path: Path) -> tuple[Architecture, Weights]:
    """Read a released ``MaxNCA`` state dict.

    Its 3x3 kernels act on (column, row) and are transposed here; the image rows of its last update layer had no effect (the
    image is put back after each step) and become 0.

    Raises
    ------
    BundleError
        The file is no such state dict.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        return _imported({name: np.asarray(tensor, np.float32) for name, tensor in state.items()})
    except _NOT_THAT as error:  # their words are about pickles; some even advise to load the file without a guard
        raise BundleError(f"{path}: not a released state dict; give the .pt file as it was published.") from error


def _imported(arrays: dict[str, NDArray[np.float32]]) -> tuple[Architecture, Weights]:
    channels, hidden = arrays["p0.weight"].shape[0], arrays["fc0.weight"].shape[0]
    head, classes = arrays["fc2.weight"].shape[0], arrays["fc3.weight"].shape[0]
    paper = PRESETS["paper"]
    architecture = Architecture(paper.grid, 1, channels, hidden, paper.steps, paper.pool, paper.update, head, classes)
    w2 = arrays["fc1.weight"].copy()
    w2[: architecture.image_channels] = 0
    weights = {
        "k1": arrays["p0.weight"][:, 0].transpose(0, 2, 1), "k1_bias": arrays["p0.bias"],
        "k2": arrays["p1.weight"][:, 0].transpose(0, 2, 1), "k2_bias": arrays["p1.bias"],
        "w1": arrays["fc0.weight"], "w1_bias": arrays["fc0.bias"], "w2": w2,
        "head1": arrays["fc2.weight"], "head1_bias": arrays["fc2.bias"],
        "head2": arrays["fc3.weight"], "head2_bias": arrays["fc3.bias"],
    }  # fmt: skip
    weights = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    architecture.check_weights(weights)
    return architecture, weights
