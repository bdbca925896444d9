"""A hand at the stage and one at the focus, as a function of time: what the simulated microscope does.

The stage is moved by minimum-jerk strokes, as hands do (Flash & Hogan 1985), rests with a slow tremor, and returns now and then
to a place where it was; the focus is lost on the way and found again by hunting. Everything follows from one seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Habits:
    """How the operator works; lengths in shares of the view."""

    step: float = 0.6
    """From one field to the next."""
    dwell_s: tuple[float, float] = (1.2, 2.2)
    """Least and longest rest."""
    stroke_s: tuple[float, float] = (0.5, 1.1)
    """Least and longest way from one rest to the next; a flick takes a quarter of it."""
    flicks: float = 0.1
    """Share of strokes that are too quick to follow."""
    returns: float = 0.2
    """Share of fields after which an earlier one is visited again."""
    hunts: float = 0.4
    """Share of rests at which the focus must be found."""
    tremor: float = 0.0015
    """Standard deviation of the tremor at rest."""
    blur: float = 0.008
    """Standard deviation of the blur at the worst of a hunt."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the view lies at one moment."""

    x: float
    """Left edge on the sheet, px."""
    y: float
    """Upper edge, px."""
    blur_px: float
    """Standard deviation of the defocus, px."""
    resting: bool


@dataclass(frozen=True, slots=True)
class _Rest:
    x: float
    y: float
    arrive_s: float
    leave_s: float
    hunt: float
    """Share of the worst defocus at arrival, 0..1."""


class Operator:
    """One person's way over a sheet. ``pose`` may be asked for any time, in any order."""

    def __init__(self, sheet: tuple[int, int], view: tuple[int, int], seed: int, habits: Habits = Habits()) -> None:
        """``sheet`` and ``view``: (width, height), px."""
        rng = np.random.default_rng(seed)
        self.view, self.habits = view, habits
        self._side = max(view)
        self.rests = self._plan(sheet, rng)
        self._tremor = self._waves(rng)

    @property
    def duration_s(self) -> float:
        """When the last rest ends."""
        return self.rests[-1].leave_s

    def pose(self, at_s: float) -> Pose:
        """Where the view lies ``at_s`` seconds after the start; after the end it rests."""
        at_s = min(at_s, self.duration_s)
        index = next((i for i, rest in enumerate(self.rests) if at_s <= rest.leave_s), len(self.rests) - 1)
        rest = self.rests[index]
        wobble = self._wobble(at_s)
        if at_s >= rest.arrive_s:
            left = at_s - rest.arrive_s
            blur = (
                abs(np.cos(2 * np.pi * left / 1.1)) * max(0.0, 1.0 - left / (0.7 * (rest.leave_s - rest.arrive_s))) * rest.hunt
            )
            return Pose(rest.x + wobble[0], rest.y + wobble[1], float(blur) * self.habits.blur * self._side, True)
        before = self.rests[index - 1]
        t = (at_s - before.leave_s) / (rest.arrive_s - before.leave_s)
        share = t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)
        x, y = before.x + share * (rest.x - before.x), before.y + share * (rest.y - before.y)
        return Pose(x + wobble[0], y + wobble[1], t * rest.hunt * self.habits.blur * self._side, False)

    def _plan(self, sheet: tuple[int, int], rng: np.random.Generator) -> list[_Rest]:
        """Rows to and fro over the sheet, with returns."""
        habits = self.habits
        xs, ys = (_stops(sheet[i], self.view[i], habits.step) for i in (0, 1))
        places = [(x, y) for row, y in enumerate(ys) for x in (xs if row % 2 == 0 else xs[::-1])]
        slack = 0.03 * np.array(self.view)
        rests: list[_Rest] = []
        now_s = 0.0
        done: list[tuple[float, float]] = []
        for place in places:
            todo = [place]
            if done and rng.random() < habits.returns:
                todo.append(done[int(rng.integers(len(done)))])
                todo.append(place)
            done.append(place)
            for x, y in todo:
                x = float(np.clip(x + rng.uniform(-1, 1) * slack[0], 0, sheet[0] - self.view[0]))
                y = float(np.clip(y + rng.uniform(-1, 1) * slack[1], 0, sheet[1] - self.view[1]))
                stroke = rng.uniform(*habits.stroke_s) * (0.25 if rng.random() < habits.flicks else 1.0)
                if rests:  # a far way takes longer
                    stroke *= max(1.0, np.hypot(x - rests[-1].x, y - rests[-1].y) / self._side)
                hunt = rng.uniform(0.3, 1.0) if rng.random() < habits.hunts else 0.0
                arrive = now_s + (stroke if rests else 0.0)
                now_s = arrive + rng.uniform(*habits.dwell_s) + (1.0 if hunt else 0.0)
                rests.append(_Rest(x, y, arrive, now_s, hunt))
        return rests

    def _waves(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Frequency, Hz, and phase of the tremor's parts: (2, 6, 2)."""
        return np.stack([rng.uniform(0.3, 4.0, (2, 6)), rng.uniform(0, 2 * np.pi, (2, 6))], axis=-1)

    def _wobble(self, at_s: float) -> tuple[float, float]:
        parts = np.sin(2 * np.pi * self._tremor[..., 0] * at_s + self._tremor[..., 1]).sum(axis=1)
        x, y = parts / np.sqrt(3.0) * self.habits.tremor * self._side
        return float(x), float(y)


def _stops(sheet: int, view: int, step: float) -> list[float]:
    """Left edges of the views that cover one side of the sheet."""
    n = max(1, int(np.ceil((sheet - view) / (step * view))) + 1)
    return [float(v) for v in np.linspace(0, max(0, sheet - view), n)]
