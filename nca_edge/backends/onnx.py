"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from nca_edge.automaton import Architecture
from nca_edge.backends.protocol import Answer, collect, outputs
from nca_edge.errors import BundleError
from nca_edge.records import Image32


class OnnxBackend:
    """ONNX Runtime on the CPU."""

    name = "onnx"

    def __init__(self, file: str, graph: bytes, architecture: Architecture, threads: int, mask_step: int | None = None) -> None:
        import onnxruntime as ort

        self.architecture = architecture
        self.outputs = outputs(mask_step)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # the arena keeps twice the state's memory; no slower without it
        try:
            self.session: Any = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors derive from Exception alone
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise BundleError(
                f"{file}: ONNX Runtime cannot load it ({str(error).splitlines()[0]}); export the bundle again."
            ) from error
        if missing := set(self.outputs) - {output.name for output in self.session.get_outputs()}:
            raise BundleError(f"{file}: gives no {', '.join(sorted(missing))}; export the bundle again.")

    def __call__(self, images: Image32) -> Answer:
        # one by one: matrix products of another batch size may round differently, and company must not change an answer
        images = np.ascontiguousarray(images, np.float32)
        answers = [self.session.run(self.outputs, {"image": images[n : n + 1]}) for n in range(len(images))]
        return collect(self.architecture, answers)
