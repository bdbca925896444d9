"""Sizes, schedules and weights of the automaton."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nca_edge.automaton import PRESETS, Architecture, draw_fire, fire_masks, pack_fire, unpack_fire
from nca_edge.errors import BundleError


def test_presets_have_the_published_sizes() -> None:
    assert PRESETS["paper"].parameters == 86_413
    assert round(PRESETS["paper"].macs / 1e9, 1) == 17.8
    assert PRESETS["wss"].parameters == 9_637


def test_a_half_lattice_costs_half_the_steps_work() -> None:
    a = replace(PRESETS["paper"], update="half-lattice")
    head = a.channels * a.head + a.head * a.classes
    assert a.macs - head == (PRESETS["paper"].macs - head) // 2


@pytest.mark.parametrize(
    "change",
    [
        {"grid": 0}, {"channels": 12}, {"steps": 2.0}, {"hidden": True}, {"pool": "median"}, {"update": "all"},
        {"grid": 31, "update": "half-lattice"},
    ],
)  # fmt: skip
def test_sizes_that_make_no_automaton_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        replace(PRESETS["edge"], **change)  # type: ignore[arg-type]


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_every_four_half_lattice_steps_visit_all_four_phases(seed: int, steps: int) -> None:
    fire = draw_fire(replace(PRESETS["edge"], steps=steps), seed)
    assert len(fire) == steps
    for start in range(0, steps - 3, 4):
        assert sorted(fire[start : start + 4].tolist()) == [0, 1, 2, 3]


def test_half_lattice_masks_are_rows_and_columns() -> None:
    a = Architecture(4, 1, 5, 2, 4, "max", "half-lattice", 2, 2)
    even_rows, odd_rows, even_columns, odd_columns = fire_masks(a, np.array([0, 1, 2, 3], np.uint8))
    assert even_rows[:, 0].tolist() == [True, False, True, False] and even_rows[0].all()
    assert np.array_equal(odd_rows, ~even_rows)
    assert np.array_equal(even_columns, even_rows.T) and np.array_equal(odd_columns, odd_rows.T)


@given(st.integers(0, 2**32), st.integers(2, 19), st.sampled_from(["bernoulli", "half-lattice"]))
def test_a_packed_schedule_comes_back_as_it_was(seed: int, grid: int, update: str) -> None:
    a = Architecture(grid + grid % 2, 1, 5, 2, 3, "max", update, 2, 2)
    fire = draw_fire(a, seed)
    assert np.array_equal(unpack_fire(a, pack_fire(a, fire)), fire)


@pytest.mark.parametrize("broken", [np.array([0, 1, 4], np.uint8), np.array([0, 1], np.uint8), np.array([0, 1, 2], np.int64)])
def test_a_schedule_of_another_kind_is_refused(broken: np.ndarray) -> None:
    with pytest.raises(BundleError, match="fire schedule"):
        Architecture(4, 1, 5, 2, 3, "max", "half-lattice", 2, 2).check_fire(broken)


def test_weights_that_are_not_finite_are_refused() -> None:
    a = PRESETS["edge"]
    weights = {name: np.zeros(shape, np.float32) for name, shape in a.shapes().items()}
    a.check_weights(weights)
    weights["w1"][0, 0] = np.nan
    with pytest.raises(BundleError, match="w1"):
        a.check_weights(weights)
