"""What this CPU can do at best: the runtime's own matrix products, in float32 and in 8 bits."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from nca_edge.bench.onnx_file import product

ROWS = (1024, 4096)
SIDES = (128, 512, 1024)
"""N = K of the products; the best one counts."""
ENOUGH_S = 0.25
"""Each product is repeated until so much time has passed."""


@dataclass(frozen=True, slots=True)
class Peak:
    """10^9 multiply-accumulates a second; None where ONNX Runtime, whose products they are, does not run."""

    fp32_gmac_per_s: float | None = None
    int8_gmac_per_s: float | None = None


def measure_peak(threads: int) -> Peak:
    """The best rate of ONNX Runtime's products with stored weights, over several sizes."""
    rng = np.random.default_rng(0)
    best = {"MatMul": 0.0, "MatMulInteger": 0.0}
    for side in SIDES:
        weights = rng.integers(-127, 128, (side, side)).astype(np.int8)
        for rows in ROWS:
            inputs = rng.integers(0, 256, (rows, side)).astype(np.uint8)
            for kind, a, b in (
                ("MatMul", inputs.astype(np.float32), weights.astype(np.float32)),
                ("MatMulInteger", inputs, weights),
            ):
                best[kind] = max(best[kind], rows * side**2 / _seconds(product(kind, rows, b), a, threads) / 1e9)
    return Peak(best["MatMul"], best["MatMulInteger"])


def _seconds(file: bytes, a: np.ndarray[tuple[int, ...], np.dtype[np.generic]], threads: int) -> float:
    """The quickest run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    began, best = time.perf_counter(), float("inf")
    while time.perf_counter() - began < ENOUGH_S:
        started = time.perf_counter()
        session.run(["c"], {"a": a})
        best = min(best, time.perf_counter() - started)
    return best
