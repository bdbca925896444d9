"""ONNX Runtime: on the CPU, or on a GPU where the installed build can."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np

from nca_edge.automaton import Architecture
from nca_edge.backends.protocol import Answer, collect, outputs
from nca_edge.errors import BundleError, UsageError
from nca_edge.records import Image32
from nca_edge.threads import allowed, each

CPU = "CPUExecutionProvider"
GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
"""In the order in which they are tried where no benchmark has said better: TensorRT needs minutes for its first start."""
KEEP_CPU = "NCA_EDGE_PROVIDER"
"""Environment variable: ``CPU`` keeps ONNX Runtime off the GPU."""
EXACT = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""TensorFloat-32 rounds to 10 bits; the golden cells ask for float32."""


def gpu_providers() -> list[str]:
    """GPU providers that the installed build lists; whether they start is another question. Imports the runtime."""
    import onnxruntime as ort

    if os.environ.get(KEEP_CPU, "").casefold() == "cpu":
        return []
    there = ort.get_available_providers()
    return [name for name in GPU if name in there]


def short(provider: str) -> str:
    """Its name for people, such as ``CUDA``."""
    return provider.removesuffix("ExecutionProvider")


class OnnxBackend:
    """ONNX Runtime with one provider, and the CPU for what that one does not know."""

    name = "onnx"

    def __init__(
        self,
        file: str,
        graph: bytes,
        architecture: Architecture,
        threads: int,
        mask_step: int | None = None,
        provider: str = CPU,
    ) -> None:
        self.architecture, self.provider, self.graph, self.threads = architecture, provider, graph, threads
        self.outputs = outputs(mask_step)
        try:
            self.session = _session(graph, threads, provider)
        except Exception as error:  # onnxruntime's own errors derive from Exception alone
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise BundleError(
                f"{file}: ONNX Runtime cannot load it ({str(error).splitlines()[0]}); export the bundle again."
            ) from error
        if self.session.get_providers()[0] != provider:  # the runtime goes on with the CPU, and says so to nobody
            raise UsageError(f"{short(provider)} does not start in this build of ONNX Runtime; check its driver and libraries.")
        if missing := set(self.outputs) - {output.name for output in self.session.get_outputs()}:
            raise BundleError(f"{file}: gives no {', '.join(sorted(missing))}; export the bundle again.")

    def __call__(self, images: Image32) -> Answer:
        # one by one: matrix products of another batch size may round differently, and company must not change an answer
        images = np.ascontiguousarray(images, np.float32)
        shared = self.threads > 1 and len(images) > 1 and self.provider == CPU
        session = self.alone if shared else self.session
        with allowed(self.threads if shared else 1):
            answers = each(lambda n: session.run(self.outputs, {"image": images[n : n + 1]}), range(len(images)))
        return collect(self.architecture, answers)

    @cached_property
    def alone(self) -> Any:
        """The session for several cells at once, a thread each: less waiting for one another than many threads in a cell."""
        return _session(self.graph, 1, self.provider)


def _session(graph: bytes, threads: int, provider: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # its threads wait for the next call at full speed otherwise, and take a core from a call of many cells after one of
    # a single cell
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_cpu_mem_arena = False  # the arena keeps twice the state's memory; no slower without it
    return ort.InferenceSession(graph, options, providers=_with_options(provider))


def _with_options(provider: str) -> list[Any]:
    """What a session is asked for."""
    return [CPU] if provider == CPU else [(provider, EXACT.get(provider, {})), CPU]
