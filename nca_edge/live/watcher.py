"""Frame by frame: does the stage move, is the field sharp and steady, was it counted before?"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from nca_edge.live.chart import Chart
from nca_edge.live.events import FieldState
from nca_edge.live.glance import EMPTY, Glance, glance, match, rested
from nca_edge.live.place import Position
from nca_edge.records import Image8

REST = 0.005
"""Way between two frames, shares of the long side, that a resting hand makes at most."""
PREPARE_S = 0.1
"""How long it rests before what a field's frames have in common is found out, so that less is left to do at the end."""
CREEP = 0.02
"""Way from where it came to rest, shares of the long side, after which it is no longer the same rest."""
REST_S = 0.3
"""How long it must rest, and its sharpness be steady."""
STEADY = 0.25
"""Range of the sharpness, share of its mean, of a field that nobody is focusing, at most. At 0.08 the last moments of a hunt
were not steady yet: 6 of 41 cells of simulated pans were missed; what is too blurred is the quality gate's to say."""
FOLLOWED = 0.7
"""Least likeness of one frame with the one before for the way between them to be believed."""
CHANGED = 0.10
"""Share by which sharpness must change for a refused field to be tried again."""

Answer = Literal["counted", "seen", "blurred", "rejected"]
"""What became of a field that was read."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of one frame."""

    state: FieldState
    """``new``: it is worth reading, or being read."""
    read: bool
    """True: this frame should be read now."""
    rest: int
    """Number of the rest it belongs to: of each pause of the stage."""
    glance: Glance
    position: Position | None
    """None while the stage moves on unknown ground."""
    prepare: bool = False
    """True: it is probably read soon."""


class Watcher:
    """Follows the stage. Not for several threads at once, apart from ``answer``."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self._before: Glance | None = None
        self._position: Position | None = None
        self._rest = 0
        self._way = (0.0, 0.0)
        self._steady: deque[tuple[float, float]] = deque()
        self._since_s: float | None = None
        self._asked: int | None = None
        self._prepared: int | None = None
        self._answer: tuple[int, Answer, float] | None = None

    def look(self, rgb: Image8, at_s: float) -> Look:
        """Judge the next frame.

        Parameters
        ----------
        rgb : (height, width, 3) uint8
        at_s : when it came, s of a clock that does not jump
        """
        now = glance(rgb)
        size = (rgb.shape[1], rgb.shape[0])
        if not self._follow(now, size):
            self._since_s = None
            self._way = (0.0, 0.0)
            self._steady.clear()
            return Look("moving", False, self._rest, now, self._position)
        if self._since_s is None:
            self._since_s, self._asked = at_s, None
            self._way = (0.0, 0.0)
            self._rest += 1
        state = self._known(now) if self._asked == self._rest else None
        if state in ("new", "seen"):  # it is being read, or was: nobody asks how sharp it is
            return Look(state, False, self._rest, now, self._position)
        self._steady.append((at_s, now.focus))
        while len(self._steady) > 3 and self._steady[1][0] <= at_s - REST_S:
            self._steady.popleft()
        if at_s - self._since_s < REST_S or len(self._steady) < 3:
            return Look("moving", False, self._rest, now, self._position, self._soon(now, size, at_s - self._since_s))
        if state is not None:
            return Look(state, False, self._rest, now, self._position)
        return self._judge(now, size)

    def still(self, rgb: Image8) -> Look:
        """Judge a field that somebody else chose and photographed: it rests, and is read unless it was read before."""
        now, size = glance(rgb), (rgb.shape[1], rgb.shape[0])
        self._rest += 1
        position = self.chart.locate(now, None, size)
        if position is not None and self.chart.seen(position, size):
            return Look("seen", False, self._rest, now, position)
        return Look("new", True, self._rest, now, position or self.chart.new_sheet())

    def answer(self, rest: int, what: Answer, focus: float) -> None:
        """Told what became of the frame of ``rest`` that was read at sharpness ``focus``."""
        self._answer = rest, what, focus

    def again(self) -> None:
        """The frame that was to be read was not: ask for another one of this rest."""
        self._asked = None

    def _follow(self, now: Glance, size: tuple[int, int]) -> bool:
        """Add the way since the last frame; True where the stage rests."""
        before, self._before = self._before, now
        if before is None:
            return False
        if now.contrast < EMPTY:
            self._position = None  # black, or empty: nothing shows a way
            return before.contrast < EMPTY
        way = rested(before, now) or match(before, now, 0.2)
        if way is None or way.likeness < FOLLOWED:
            self._position = None
            return False
        if self._position is not None:
            self._position = self._position.moved(way.dx, way.dy)
        self._way = self._way[0] + way.dx, self._way[1] + way.dy
        return max(map(abs, (way.dx, way.dy))) <= max(1.0, REST * max(size)) and max(map(abs, self._way)) <= CREEP * max(size)

    def _soon(self, now: Glance, size: tuple[int, int], rested_s: float) -> bool:
        """Whether a frame should be prepared for: once in a rest, unless its place is known as counted or nothing is there."""
        if self._prepared == self._rest or rested_s < PREPARE_S or now.contrast < EMPTY:
            return False
        self._prepared = self._rest
        return self._position is None or not self.chart.seen(self._position, size)

    def _judge(self, now: Glance, size: tuple[int, int]) -> Look:
        """Of a frame at rest that was not read yet."""
        levels = [focus for _, focus in self._steady]
        if max(levels) - min(levels) > STEADY * sum(levels) / len(levels):
            return Look("blurred", False, self._rest, now, self._position)
        self._position = self.chart.locate(now, self._position, size)
        if self._position is not None and self.chart.seen(self._position, size):
            return Look("seen", False, self._rest, now, self._position)
        if self._position is None:
            self._position = self.chart.new_sheet()
        self._asked, self._answer = self._rest, None
        return Look("new", True, self._rest, now, self._position)

    def _known(self, now: Glance) -> FieldState | None:
        """State of a rest that was read or is being read; None where it is to be read once more."""
        if self._answer is None or self._answer[0] != self._rest:
            return "new"
        _, what, focus = self._answer
        if what == "blurred" or what == "rejected":
            return what if abs(now.focus - focus) <= CHANGED * focus else None
        return "seen"
