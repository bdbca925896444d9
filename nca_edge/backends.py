"""Who computes the automaton: the NumPy reference and ONNX Runtime, behind one protocol.

Both take normalised images (n, size, size, 3) and give logits (n, classes) and the final state
(n, grid, grid, channels), float32.
A cell's answer does not depend on the other cells of the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nca_edge.automaton import Architecture, Fire, Weights, pool
from nca_edge.errors import BundleError, UsageError
from nca_edge.records import Image32


class Answer(NamedTuple):
    """What a backend says of a batch."""

    logits: NDArray[np.float32]
    """(n, classes) float32."""
    state: Image32
    """(n, grid, grid, channels) float32 after the last step."""
    mask_state: Image32
    """(n, grid, grid, channels) float32 after the bundle's ``mask_step``; the final state where it names none."""


class Backend(Protocol):
    """Runs one automaton."""

    name: str
    """As on the command line."""

    def __call__(self, images: Image32) -> Answer:
        """(n, size, size, 3) normalised images -> answer for each."""
        ...


class NumpyBackend:
    """The reference: plain NumPy, float32, BLAS for the two 1x1 layers; one cell after the other: company changes nothing."""

    name = "numpy"

    def __init__(self, architecture: Architecture, weights: Weights, fire: Fire, mask_step: int | None = None) -> None:
        architecture.check_weights(weights)
        architecture.check_fire(fire)
        self.architecture, self.weights, self.fire, self.mask_step = architecture, weights, fire, mask_step

    def __call__(self, images: Image32) -> Answer:
        a = self.architecture
        logits = np.empty((len(images), a.classes), np.float32)
        states = np.empty((len(images), a.grid, a.grid, a.channels), np.float32)
        mask_states = states if self.mask_step is None else np.empty_like(states)
        for n, image in enumerate(images):
            state = self.seed_state(image)
            for number, fire in enumerate(self.fire, start=1):
                self.step(state, fire)
                if number == self.mask_step:
                    mask_states[n] = state
            logits[n] = self.head(self.pool(state))
            states[n] = state
        return Answer(logits, states, mask_states)

    def seed_state(self, image: Image32) -> Image32:
        """(size, size, 3) -> (grid, grid, channels); fold 2: colour k of pixel (2r + i, 2c + j) in channel (2i + j) * 3 + k."""
        a = self.architecture
        state = np.zeros((a.grid, a.grid, a.channels), np.float32)
        folded = image.reshape(a.grid, a.fold, a.grid, a.fold, 3).transpose(0, 2, 1, 3, 4)
        state[..., : a.image_channels] = folded.reshape(a.grid, a.grid, a.image_channels)
        return state

    def step(self, state: Image32, fire: NDArray[np.uint8] | np.uint8) -> None:
        """Update ``state`` in place; ``fire`` is a (grid, grid) mask or the phase of a half-lattice step."""
        padded = np.pad(state, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        phase = int(fire) if np.ndim(fire) == 0 else None
        lines = (slice(None), slice(None))
        if phase is not None:
            lines = (slice(phase, None, 2), slice(None)) if phase < 2 else (slice(None), slice(phase - 2, None, 2))
        firing = state[lines]
        rows, columns, channels = firing.shape
        w = self.weights
        y = np.empty((rows, columns, 3 * channels), np.float32)
        y[..., :channels] = firing
        y[..., channels : 2 * channels] = self._depthwise(padded, w["k1"], w["k1_bias"], lines)
        y[..., 2 * channels :] = self._depthwise(padded, w["k2"], w["k2_bias"], lines)
        h = y.reshape(-1, 3 * channels) @ w["w1"].T
        h += w["w1_bias"]
        np.maximum(h, 0, out=h)
        d = (h @ w["w2"].T).reshape(firing.shape)
        d[..., : self.architecture.image_channels] = 0
        if phase is None:
            d *= np.asarray(fire, np.float32)[..., None]
        state[lines] = firing + d

    def _depthwise(
        self, padded: Image32, kernel: NDArray[np.float32], bias: NDArray[np.float32], lines: tuple[slice, slice]
    ) -> Image32:
        grid = self.architecture.grid
        total: Image32 | None = None
        for i in range(3):
            for j in range(3):
                tap = padded[i : i + grid, j : j + grid][lines] * kernel[:, i, j]
                total = tap + bias if total is None else np.add(total, tap, out=total)
        if total is None:
            raise BundleError("a 3x3 kernel has nine taps")
        return total

    def pool(self, state: Image32) -> NDArray[np.float32]:
        """(grid, grid, channels) -> (features,)."""
        return pool(state, self.architecture.pool).astype(np.float32)

    def head(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """(features,) -> (classes,) logits."""
        w = self.weights
        hidden = np.maximum(w["head1"] @ pooled + w["head1_bias"], 0)
        logits: NDArray[np.float32] = w["head2"] @ hidden + w["head2_bias"]
        return logits


class OnnxBackend:
    """ONNX Runtime on the CPU."""

    name = "onnx"

    def __init__(self, file: str, graph: bytes, architecture: Architecture, threads: int, mask_step: int | None = None) -> None:
        import onnxruntime as ort

        self.architecture = architecture
        self.outputs = ["logits", "state"] if mask_step is None else ["logits", "state", "mask_state"]
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
        a = self.architecture
        empty = [np.empty((0, a.classes), np.float32), *[np.empty((0, a.grid, a.grid, a.channels), np.float32)] * 2]
        logits, state, *mask_state = [
            np.concatenate([empty[i], *(answer[i] for answer in answers)]) for i in range(len(self.outputs))
        ]
        return Answer(logits, state, mask_state[0] if mask_state else state)


BACKENDS = ("onnx", "numpy")
"""In the order that ``auto`` tries them."""


def resolve(requested: str, precision: str, present: dict[tuple[str, str], str]) -> tuple[str, str]:
    """Choose the backend.

    Parameters
    ----------
    requested : ``auto`` or a name
    precision : ``fp32`` or ``int8``
    present : (backend, precision) -> file, of the bundle; the NumPy reference is always there in fp32

    Returns
    -------
    (backend, file name); the NumPy reference has no file of its own

    Raises
    ------
    UsageError
        Unknown name, or the bundle lacks that variant.
    """
    available = {**present, ("numpy", "fp32"): "weights.npz"}
    names = BACKENDS if requested == "auto" else (requested,)
    for name in names:
        if (name, precision) in available:
            return name, available[name, precision]
    choices = ", ".join(sorted(f"--backend {b} --precision {p}" for b, p in available))
    raise UsageError(f"this bundle has no {requested} model in {precision}; it has: {choices}.")
