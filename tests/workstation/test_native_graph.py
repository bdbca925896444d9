"""The compiled step against NumPy, number by number, on automata of any size; against the ONNX graph of the same scales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nca_edge.automaton import POOLS, PRESETS, UPDATES, Architecture
from nca_edge.backends import NumpyBackend
from nca_edge.backends.native import library, read_graph
from nca_edge.backends.native.graph import MOST_KERNEL
from nca_export.native_graph import NumpyNative
from nca_export.quantize import reach
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
    # a sum is multiplied in float32, in NumPy in float64: what lies on the edge between two numbers may fall to either side
    for name in ("state", "mask_state") if step else ("state",):
        off = np.abs(found[name][0] - expected[name])
        assert (off > 1e-6 * scale).mean() < 0.01 and off.max() < 0.05 * scale
    assert np.allclose(found["logits"][0], expected["logits"], atol=0.02 * np.abs(expected["logits"]).max())


def test_what_16_bits_cannot_hold_stops_at_their_ends() -> None:
    m = automaton(replace(PRESETS["edge"], grid=8))
    graph, image = read_graph("graph", content := build("native", "int8", m)), 1e6 * noise(m.architecture)
    found = runner("native", content)(image)["state"][0]
    expected = NumpyNative(graph)(image[0])["state"]
    pixels = m.architecture.image_channels
    assert np.array_equal(found[..., :pixels], expected[..., :pixels])  # the image is given back as it came
    units = np.abs(found / graph.unit * graph.arrays["factors"])[..., pixels:]
    assert units.max() < 2**15 + 1
    assert np.linalg.norm(found[..., pixels:] - expected[..., pixels:]) <= 1e-3 * np.linalg.norm(expected[..., pixels:])


def test_kernels_that_reach_next_to_nothing_are_not_made_steeper_than_16_bits_hold() -> None:
    m = automaton(PRESETS["edge"])
    assert m.reach is not None
    channels, faint = m.architecture.channels, m.reach.high.copy()
    faint[:, channels:] *= 1e-9
    content = build("native", "int8", replace(m, reach=replace(m.reach, high=faint, low=-faint)))
    x = read_graph("graph", content).arrays
    steepest = max((np.abs(x[name].astype(int)).sum(1) * x[f"{name}_scales"]).max() for name in ("k1", "k2"))
    assert 0.85 * MOST_KERNEL < steepest <= MOST_KERNEL


@pytest.mark.parametrize("size", [0, 1e-6, 1e-2])
def test_dead_and_faint_kernels_give_little_more_than_their_biases(size: float) -> None:
    m = automaton(PRESETS["edge"])
    faint = {name: (size * m.weights[name]).astype(np.float32) for name in ("k1", "k2")}
    biases = {f"{name}_bias": np.linspace(-1, 1, m.architecture.channels, dtype=np.float32) for name in faint}
    m = replace(m, weights={**m.weights, **faint, **biases})
    m, image = replace(m, reach=reach(m.architecture, m.weights, m.fire, noise(m.architecture))), noise(m.architecture)
    content = build("native", "int8", m)
    reference = NumpyBackend(m.architecture, m.weights, m.fire)(image).state[0]
    for found in (
        runner("native", content)(image)["state"],
        NumpyNative(read_graph("graph", content))(image[0])["state"][None],
    ):
        assert np.linalg.norm(found - reference) <= 0.05 * np.linalg.norm(reference)


@pytest.mark.parametrize("name", ["edge", "wss"])
def test_the_step_and_the_onnx_graph_differ_by_their_roundings_alone(name: str) -> None:
    m = automaton(PRESETS[name])
    image = noise(m.architecture)
    step, onnx = (runner(form, build(form, "int8", m))(image)["state"] for form in ("native", "onnx"))
    # 16 bits of state turn some roundings to 8 bits
    assert np.linalg.norm(step - onnx) <= 4e-3 * np.linalg.norm(onnx)
