"""Who computes the automaton: the NumPy reference, ONNX Runtime, LiteRT and the compiled step, behind one protocol.

All take normalised images (n, size, size, 3) and give logits (n, classes) and states (n, grid, grid, channels), float32.
A cell's answer does not depend on the other cells of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from nca_edge.backends.litert import LitertBackend
from nca_edge.backends.native import NativeBackend
from nca_edge.backends.onnx import CPU, KEEP_CPU, OnnxBackend, gpu_providers, short
from nca_edge.backends.protocol import Answer, Backend
from nca_edge.backends.reference import NumpyBackend, firing_lines
from nca_edge.errors import UsageError

__all__ = [
    "BACKENDS", "CPU", "KEEP_CPU", "Answer", "Backend", "LitertBackend", "NativeBackend", "NumpyBackend", "OnnxBackend",
    "firing_lines", "gpu_providers", "resolve", "short",
]  # fmt: skip

BACKENDS = ("native", "onnx", "litert", "numpy")
"""In the order that ``auto`` tries them where no benchmark has said better."""


def resolve(names: Sequence[str], precision: str, present: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Choose among backends.

    Parameters
    ----------
    names : of those that may be used, the best first
    precision : ``fp32`` or ``int8``
    present : (backend, precision) -> file, of the bundle; the NumPy reference is always there in fp32

    Returns
    -------
    (backend, file name) of each that has that variant; the NumPy reference has no file of its own

    Raises
    ------
    UsageError
        The bundle has none.
    """
    available = {**present, ("numpy", "fp32"): "weights.npz"}
    if chosen := [(name, available[name, precision]) for name in names if (name, precision) in available]:
        return chosen
    choices = ", ".join(sorted(f"--backend {b} --precision {p}" for b, p in available))
    raise UsageError(f"this bundle has no {' or '.join(names)} model in {precision}; it has: {choices}.")
