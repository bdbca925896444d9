"""What ``model.int8.npz`` holds, checked: numbers in 8 bits, their scales, and the head.

All arrays are those of the automaton after its channels were made alike (``export/README.md``); nothing is laid out for any
instruction set, which is ``layout.py``'s work when the file is loaded.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, unpack_fire
from nca_edge.errors import BundleError

Arrays = dict[str, NDArray[Any]]
FINER = 128
"""So much smaller is the unit of the state, which is held in 16 bits, than the largest scale of what is perceived in 8: they
reach as far as the 8 bits of any step, to either side."""
MOST_KERNEL = 62
"""Sum of a kernel's weights without their signs, times its scale: what it makes of 8 bits then fits into 16, with a bias of at
most ``MOST_BIAS`` and a zero point."""
MOST_BIAS = 2**14


@dataclass(frozen=True, slots=True)
class NativeGraph:
    """One automaton in 8 bits."""

    architecture: Architecture
    mask_step: int | None
    fire: Fire
    arrays: Arrays
    """By the names of ``shapes``."""

    @property
    def unit(self) -> np.float32:
        """What 1 means in the state's 16 bits."""
        largest: np.float32 = self.arrays["scale"].max()
        return largest / np.float32(FINER)


def shapes(a: Architecture) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """Kind and shape of every array.

    ``k1, k2, w1, w2, head1`` are weights in -127..127, each times its row's scale. ``factors``: what the state's channels are
    multiplied by. ``scale, zero``: of what a step perceives; ``between``: scale of its hidden layer.
    """
    c, h, f, steps = a.channels, a.hidden, a.head, a.steps
    return {
        "factors": (np.float32, (c,)), "scale": (np.float32, (steps,)), "zero": (np.uint8, (steps,)),
        "between": (np.float32, (steps,)),
        "k1": (np.int8, (c, 9)), "k1_scales": (np.float32, (c,)), "k1_bias": (np.float32, (c,)),
        "k2": (np.int8, (c, 9)), "k2_scales": (np.float32, (c,)), "k2_bias": (np.float32, (c,)),
        "w1": (np.int8, (h, 3 * c)), "w1_scales": (np.float32, (h,)), "w1_bias": (np.float32, (h,)),
        "w2": (np.int8, (c, h)), "w2_scales": (np.float32, (c,)),
        "head1": (np.int8, (f, a.features)), "head1_scale": (np.float32, (1,)), "head1_bias": (np.float32, (f,)),
        "head2": (np.float32, (a.classes, f)), "head2_bias": (np.float32, (a.classes,)),
    }  # fmt: skip


def read_graph(file: str, content: bytes) -> NativeGraph:
    """Of the bytes of a file; the compiled step trusts every size and number that is checked here.

    Raises
    ------
    BundleError
        Naming the file.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        facts = json.loads(str(arrays.pop("facts")[0]))
        architecture, mask_step = Architecture(**facts["architecture"]), facts["mask_step"]
        fire = unpack_fire(architecture, arrays.pop("fire"))
        wrong = next((name for name, form in shapes(architecture).items() if not _is(arrays.get(name), *form)), None)
        if wrong is not None:
            raise ValueError(f"{wrong} is not as it must be")
        if not all((arrays[name] > 0).all() for name in ("scale", "between")) or not arrays["factors"].all():
            raise ValueError("a scale is not above 0")
        if any((np.abs(arrays[k].astype(np.int32)).sum(1) * arrays[f"{k}_scales"] > MOST_KERNEL).any() for k in ("k1", "k2")):
            raise ValueError("a kernel reaches too far")
        if mask_step is not None and not (type(mask_step) is int and 1 <= mask_step <= architecture.steps):
            raise ValueError("no such mask step")
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile, BundleError) as error:
        raise BundleError(f"{file}: cannot be read as an automaton in 8 bits ({error}); export the bundle again.") from error
    return NativeGraph(architecture, mask_step, fire, {name: arrays[name] for name in shapes(architecture)})


def _is(array: NDArray[Any] | None, kind: type[np.generic], shape: tuple[int, ...]) -> bool:
    """Of that kind and shape; what is scaled by it must be finite, and no weight -128: two products must fit into 16 bits."""
    if array is None or array.dtype != kind or array.shape != shape:
        return False
    if kind is np.int8:
        return bool((array != -128).all())
    return bool(np.isfinite(array).all())
