"""The compiled step against NumPy, number by number, on automata of any size; against the ONNX graph of the same scales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nca_edge.automaton import POOLS, PRESETS, UPDATES, Architecture
from nca_edge.backends.native import library, read_graph
from nca_export.native_graph import NumpyNative
from nca_export.variants import build, runner
from tests.benchmarks.graphs import automaton, noise

pytestmark = pytest.mark.skipif(library.missing() is not None, reason=library.missing() or "")


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Grids smaller and larger than a pass of the step, channels below, at and above its multiples."""
    fold, update = draw(st.sampled_from([1, 2])), draw(st.sampled_from(UPDATES))
    grid = draw(st.integers(2, 21))
    channels, hidden, steps = (draw(st.integers(*ends)) for ends in ((3 * fold**2 + 1, 70), (1, 70), (1, 7)))
    grid += grid % 2 if update == "half-lattice" else 0
    return Architecture(grid, fold, channels, hidden, steps, draw(st.sampled_from(POOLS)), update, head=4, classes=3)


@settings(max_examples=25, deadline=None)
@given(architectures(), st.integers(0, 7))
def test_the_step_computes_what_numpy_computes(a: Architecture, mask: int) -> None:
    step = mask if 1 <= mask <= a.steps else None
    m = replace(automaton(a), mask_step=step)
    graph, image = build("native", "int8", m), noise(a)
    expected, found = NumpyNative(read_graph("graph", graph))(image[0]), runner("native", graph)(image)
    scale = np.abs(expected["state"]).max()
    # a change is added with one rounding less than in NumPy: the last bit of a number may differ, and with it a later rounding
    for name in ("state", "mask_state") if step else ("state",):
        off = np.abs(found[name][0] - expected[name])
        assert (off > 1e-6 * scale).mean() < 0.01 and off.max() < 0.05 * scale
    assert np.allclose(found["logits"][0], expected["logits"], atol=0.02 * np.abs(expected["logits"]).max())


@pytest.mark.parametrize("name", ["edge", "wss"])
def test_the_step_and_the_onnx_graph_differ_by_their_roundings_alone(name: str) -> None:
    m = automaton(PRESETS[name])
    image = noise(m.architecture)
    step, onnx = (runner(form, build(form, "int8", m))(image)["state"] for form in ("native", "onnx"))
    assert np.linalg.norm(step - onnx) <= 1e-3 * np.linalg.norm(onnx)
