"""What a neural cellular automaton is made of: its sizes, its weights by name, its fire schedule.

One step (both papers): perception y = [x, k1*x, k2*x] (two depthwise 3x3, reflect padding, bias); h = relu(W1 y + b1);
d = W2 h; x <- x + fire * d. After the last step a pool over the grid and a Linear-ReLU-Linear head.
The image channels never change.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.errors import BundleError

Weights = dict[str, NDArray[np.float32]]
Fire = NDArray[np.uint8]
"""``half-lattice``: (steps,) phase of each step, 0 even rows, 1 odd rows, 2 even columns, 3 odd columns.
``bernoulli``: (steps, grid, grid), 1 = the grid cell is updated."""

POOLS = ("max", "mean", "max+mean")
UPDATES = ("bernoulli", "half-lattice")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of one automaton."""

    grid: int
    """Side of the grid, grid cells."""
    fold: int
    """Side of the square of pixels that one grid cell holds; the input image has grid * fold pixels a side."""
    channels: int
    """State channels, image channels included."""
    hidden: int
    """Width of the update's hidden layer."""
    steps: int
    """Updates before the answer."""
    pool: str
    """``max`` (MICCAI 2024), ``mean`` (NCA-WSS) or ``max+mean``: the maxima of all channels, then their means."""
    update: str
    """``bernoulli`` (the papers: each grid cell with p = 0.5) or ``half-lattice`` (rows or columns by turns)."""
    head: int
    """Width of the head's hidden layer."""
    classes: int
    """Outputs."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in ("pool", "update"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BundleError(f"architecture: {name} must be a whole number of at least 1, not {value!r}.")
        if self.pool not in POOLS or self.update not in UPDATES:
            raise BundleError(
                f"architecture: pool is one of {POOLS} and update one of {UPDATES}, not {self.pool!r}, {self.update!r}."
            )
        if self.grid < 2 or self.channels <= self.image_channels or (self.update == "half-lattice" and self.grid % 2):
            raise BundleError("architecture: the state needs hidden channels, and a half-lattice an even grid.")

    @property
    def image_channels(self) -> int:
        """Channels of the state that hold the image: 3 * fold^2."""
        return 3 * self.fold**2

    @property
    def size(self) -> int:
        """Side of the input image, px."""
        return self.grid * self.fold

    @property
    def features(self) -> int:
        """Length of the pooled vector."""
        return self.channels * (2 if self.pool == "max+mean" else 1)

    @property
    def parameters(self) -> int:
        """Trained numbers, the never-used image rows of W2 included (as the papers count)."""
        return sum(int(np.prod(shape)) for shape in self.shapes().values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one cell image; a half-lattice computes only the grid cells that fire."""
        a_cell = self.channels * 18 + 3 * self.channels * self.hidden + self.hidden * self.channels
        per_step = self.grid**2 * a_cell // (2 if self.update == "half-lattice" else 1)
        return self.steps * per_step + self.features * self.head + self.head * self.classes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight array, as in ``weights.npz``."""
        c, h, f = self.channels, self.hidden, self.head
        return {
            "k1": (c, 3, 3), "k1_bias": (c,), "k2": (c, 3, 3), "k2_bias": (c,),
            "w1": (h, 3 * c), "w1_bias": (h,), "w2": (c, h),
            "head1": (f, self.features), "head1_bias": (f,), "head2": (self.classes, f), "head2_bias": (self.classes,),
        }  # fmt: skip

    def check_weights(self, weights: Weights) -> None:
        """Refuse arrays of other names, shapes or kinds, and numbers that are not finite.

        Raises
        ------
        BundleError
        """
        for name, shape in self.shapes().items():
            array = weights.get(name)
            if array is None or array.shape != shape or array.dtype != np.float32:
                raise BundleError(f"weights.npz: {name} must be float32 of shape {shape}; export the bundle again.")
            if not np.isfinite(array).all():
                raise BundleError(f"weights.npz: {name} holds numbers that are not finite; train the model again.")

    def check_fire(self, fire: Fire) -> None:
        """Refuse a schedule that does not belong to this automaton.

        Raises
        ------
        BundleError
        """
        shape = (self.steps,) if self.update == "half-lattice" else (self.steps, self.grid, self.grid)
        largest = 3 if self.update == "half-lattice" else 1
        if fire.dtype != np.uint8 or fire.shape != shape or int(fire.max()) > largest:
            raise BundleError(
                f"fire schedule: must be uint8 of shape {shape} with values up to {largest}; export the bundle again."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain dict for the manifest."""
        return asdict(self)


PRESETS = {
    "paper": Architecture(64, 1, 128, 128, 64, "max", "bernoulli", 128, 13),
    "wss": Architecture(64, 1, 32, 32, 32, "mean", "bernoulli", 128, 5),
    "edge": Architecture(32, 2, 64, 256, 16, "max+mean", "half-lattice", 96, 11),
}
"""DESIGN's table; ``edge`` folds 2x2 pixels into channels: the same grid and work see four times the pixels."""


def draw_fire(architecture: Architecture, seed: int) -> Fire:
    """One fire schedule for inference; a half-lattice visits all four phases in every four steps.

    Parameters
    ----------
    seed : provenance only; the schedule itself goes into the bundle, since generators differ between versions
    """
    rng = np.random.default_rng(seed)
    if architecture.update == "half-lattice":
        rounds = [rng.permutation(4) for _ in range(-(-architecture.steps // 4))]
        return np.concatenate(rounds)[: architecture.steps].astype(np.uint8)
    return (rng.random((architecture.steps, architecture.grid, architecture.grid)) < 0.5).astype(np.uint8)


def pack_fire(architecture: Architecture, fire: Fire) -> NDArray[np.uint8]:
    """Phases as they are; masks as bits along the columns."""
    return fire if architecture.update == "half-lattice" else np.packbits(fire, axis=-1)


def unpack_fire(architecture: Architecture, packed: NDArray[np.uint8]) -> Fire:
    """The inverse of ``pack_fire``, checked.

    Raises
    ------
    BundleError
    """
    fire = packed
    if architecture.update == "bernoulli" and packed.dtype == np.uint8 and packed.ndim == 3:
        fire = np.unpackbits(packed, axis=-1, count=architecture.grid)
    architecture.check_fire(fire)
    return fire


def fire_masks(architecture: Architecture, fire: Fire) -> NDArray[np.bool_]:
    """Spell a schedule out as (steps, grid, grid) masks, whichever rule it follows."""
    if fire.ndim == 3:
        return fire.astype(bool)
    masks = np.zeros((len(fire), architecture.grid, architecture.grid), bool)
    for step, phase in enumerate(fire):
        if phase < 2:
            masks[step, phase::2, :] = True
        else:
            masks[step, :, phase - 2 :: 2] = True
    return masks


def pool(state: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    """(grid, grid, channels) -> (features,), in float64."""
    parts = []
    if kind != "mean":
        parts.append(state.max(0).max(0).astype(np.float64))  # one axis after the other: a third of the time
    if kind != "max":
        parts.append(state.sum(0, dtype=np.float64).sum(0) / (state.shape[0] * state.shape[1]))
    return np.concatenate(parts)
