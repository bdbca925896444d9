"""The parity gate: how far a graph is from the NumPy reference, step by step, and whether that is near enough to be written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.backends import NumpyBackend, firing_lines
from nca_edge.formats import FORMATS
from nca_edge.records import Image32
from nca_export.variants import Automaton, build, inside, runner

TENSORS = ("perceived", "hidden", "delta", "state")
"""In the order in which a step makes them."""
TRACED = 4
"""Cells whose insides are looked at."""
SURE_LOGITS = 1.0
"""A cell whose two best logits lie this far apart must keep its answer."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a variant may differ by."""

    logits: float
    """Largest difference as a share of the largest logit."""
    state: float
    """Relative L2 error of the state after the last step, median over cells."""
    agreement: float
    """Share of the cells whose best class stays."""
    sure_agreement: float
    """The same among cells whose margin exceeds ``SURE_LOGITS``."""
    inside: dict[str, float]
    """Relative L2 error of each tensor inside a step; only names the place in a refusal."""


BOUNDS = {
    "fp32": Bound(1e-4, 1e-5, 1.0, 1.0, dict.fromkeys(TENSORS, 1e-4)),
    "int8": Bound(0.15, 0.05, 0.95, 0.99, {"perceived": 0.3, "hidden": 0.3, "delta": 0.3, "state": 0.05}),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """What was measured of one variant."""

    file: str
    precision: str
    n: int
    """Cells."""
    logits: float
    state: float
    agreement: float
    sure_agreement: float | None
    """None: no cell is sure."""
    steps: dict[str, list[float]]
    """Tensor -> relative L2 error in each step, over ``TRACED`` cells."""
    graph: bytes
    """What was measured: the file, if it may be written."""

    def problem(self) -> str | None:
        """One sentence on what is beyond its bound, and where it began; None: nothing."""
        bound = BOUNDS[self.precision]
        broken = [
            (not self.logits <= bound.logits, f"logits differ by {self.logits:.2g} of their scale (allowed {bound.logits:g})"),
            (not self.state <= bound.state, f"the state differs by {self.state:.2g} (allowed {bound.state:g})"),
            (
                self.agreement < bound.agreement,
                f"{self.agreement:.1%} of {self.n} answers agree ({bound.agreement:.0%} at least)",
            ),
            (
                self.sure_agreement is not None and self.sure_agreement < bound.sure_agreement,
                f"{self.sure_agreement or 0:.1%} of the sure answers agree (at least {bound.sure_agreement:.0%})",
            ),
        ]
        reasons = [text for wrong, text in broken if wrong]
        if not reasons:
            return None
        return f"{self.file}: not written: {'; '.join(reasons)}; {self._origin(bound)}."

    def _origin(self, bound: Bound) -> str:
        for step in range(len(self.steps["state"])):
            for tensor in TENSORS:
                error = self.steps[tensor][step] if tensor in self.steps else 0.0
                if not error <= bound.inside[tensor]:
                    return (
                        f"first beyond its bound: {tensor} of step {step + 1} ({error:.2g}, allowed {bound.inside[tensor]:g})"
                    )
        return "no step is beyond its own bound, the error adds up"

    def to_json(self) -> dict[str, Any]:
        """For the manifest: without what lies inside the steps."""
        return {
            "file": self.file, "n": self.n, "logits": self.logits, "state": self.state, "agreement": self.agreement,
            "sure_agreement": self.sure_agreement, "state_by_step": self.steps["state"],
        }  # fmt: skip


def measure(form: str, precision: str, automaton: Automaton, images: Image32, reference: NDArray[np.float32]) -> Parity:
    """Compare a variant with the reference.

    Parameters
    ----------
    images : (n, size, size, 3) normalised cells
    reference : (n, classes) the reference's logits of them
    """
    file = next(f for f in FORMATS if f.name == form).file(precision)
    graph = build(form, precision, automaton)
    logits = runner(form, graph)(images)["logits"]
    states, steps = _inside(form, precision, automaton, images[:: max(1, len(images) // TRACED)][:TRACED])
    best, same = np.sort(reference, 1), logits.argmax(1) == reference.argmax(1)
    sure = best[:, -1] - best[:, -2] > SURE_LOGITS
    largest = float(np.abs(logits - reference).max() / np.abs(reference).max())
    return Parity(
        file, precision, len(images), largest, float(np.median(states)), float(same.mean()),
        float(same[sure].mean()) if sure.any() else None, steps, graph,
    )  # fmt: skip


def _inside(form: str, precision: str, automaton: Automaton, images: Image32) -> tuple[list[float], dict[str, list[float]]]:
    """Error of each cell's last state, and of each tensor in each step over all cells.

    What is compared is let go: the insides of one cell of the paper's automaton are 800 MB.
    """
    run = inside(form, precision, automaton)
    found = [run(images[n : n + 1]) for n in range(len(images))]
    steps: dict[str, list[float]] = {tensor: [] for tensor in TENSORS if f"{tensor}/1" in found[0]}
    last: NDArray[np.float32] = np.empty(0, np.float32)
    for number, expected in enumerate(trace(automaton, images), start=1):
        for tensor, errors in steps.items():
            errors.append(error(np.concatenate([one.pop(f"{tensor}/{number}") for one in found]), expected[tensor]))
        last = expected["state"]
    return [error(one["state"], state[None]) for one, state in zip(found, last, strict=True)], steps


def error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Relative L2 error; of something that should be 0 and is not, infinite."""
    size, off = float(np.linalg.norm(expected)), float(np.linalg.norm(found.reshape(expected.shape) - expected))
    return off / size if size else (np.inf if off else 0.0)


def trace(automaton: Automaton, images: Image32) -> Iterator[dict[str, NDArray[np.float32]]]:
    """What the reference holds in each step, by the names of ``TENSORS``; all cells in one array."""
    backend = NumpyBackend(automaton.architecture, automaton.weights, automaton.fire)
    states = [backend.seed_state(image) for image in images]
    for step in automaton.fire:
        perceived = np.stack([backend.perception(state, firing_lines(step)) for state in states])
        hidden = np.stack([backend.hidden(one) for one in perceived])
        delta = hidden @ automaton.weights["w2"].T
        delta[..., : automaton.architecture.image_channels] = 0
        for state in states:
            backend.step(state, step)
        yield dict(zip(TENSORS, (perceived, hidden, delta, np.stack(states)), strict=True))
