"""Where on the smear the fields lie that were read, and which cells are counted there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from nca_edge.live.glance import Glance, Kept, Match, match
from nca_edge.records import Box, CellReading

SURE, SURE_SMALL = 0.80, 0.87
"""Least likeness of two frames of one place, where they share more or less than ``SMALL`` of a frame. Measured on 40 fields of
each set cut in two: the same place has 0.82 and more, two places 0.73 at most."""
SMALL = 0.25
COVERED = 0.97
"""Share of a frame that was read before for it to count as seen."""
NEAR = 3
"""Places that are compared where the position is known already."""
HELD = 60
"""Whole glances that are held, 700 kB each."""
LOOKED_BACK = 400
"""Places that are compared where it is not, the newest first."""


@dataclass(frozen=True, slots=True)
class Position:
    """The upper left corner of a frame on one sheet: places that are connected share a sheet."""

    sheet: int
    x: float
    y: float
    """px of the camera's frame."""

    def moved(self, dx: float, dy: float) -> Position:
        """This position, shifted."""
        return Position(self.sheet, self.x + dx, self.y + dy)


@dataclass(frozen=True, slots=True)
class Spot:
    """A cell that was read, in px of its sheet."""

    x: float
    y: float
    w: float
    h: float
    border: bool

    def same(self, other: Spot) -> bool:
        """Whether both are one cell: the centre of the one lies well within the other."""
        return self._holds(other) or other._holds(self)

    def _holds(self, other: Spot) -> bool:
        x, y = other.x + other.w / 2, other.y + other.h / 2
        # A clipped box ends where the frame did: its cell goes on there.
        slack = 0.05 if self.border or other.border else -0.05
        return (
            self.x - slack * self.w <= x <= self.x + (1 + slack) * self.w
            and self.y - slack * self.h <= y <= self.y + (1 + slack) * self.h
        )


@dataclass(frozen=True, slots=True)
class Place:
    """One field that was read."""

    name: str
    position: Position
    size: tuple[int, int]
    """(width, height) px."""
    glance: Kept
    spots: tuple[Spot, ...]


class Chart:
    """All places of a session. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._places: list[Place] = []
        self._sheets = 0
        self._whole: OrderedDict[str, Glance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def locate(self, seen: Glance, guess: Position | None, size: tuple[int, int]) -> Position | None:
        """Where a frame lies by what it shows; None where it shows no place that was read.

        Parameters
        ----------
        guess : where it should lie by the way the stage moved; None: lost
        size : (width, height) of the frame, px
        """
        with self._lock:
            places = list(self._places)
        if guess is not None:
            near = sorted((p for p in places if _shared(p, guess, size) > 0.1), key=lambda p: -_shared(p, guess, size))[:NEAR]
            for place in near:
                found = match(self._glance(place), seen)
                if found is not None and _is_sure(found):
                    return place.position.moved(found.dx, found.dy)
            return guess  # the way the stage moved was followed frame by frame, and that is enough
        best: tuple[float, Position] | None = None
        for place in reversed(places[-LOOKED_BACK:]):
            found = match(self._glance(place), seen)
            if found is not None and _is_sure(found):
                weight = found.likeness * found.overlap**0.25
                if best is None or weight > best[0]:
                    best = weight, place.position.moved(found.dx, found.dy)
                if found.overlap > 0.5:
                    break
        return best[1] if best else None

    def new_sheet(self) -> Position:
        """A position of its own, for a frame that shows no known place."""
        with self._lock:
            self._sheets += 1
            return Position(self._sheets, 0.0, 0.0)

    def seen(self, position: Position, size: tuple[int, int]) -> bool:
        """Whether all that a frame shows was read before, and no cell that was cut then lies further inside now."""
        with self._lock:
            near = [p for p in self._places if _shared(p, position, size) > 0.0]
        if not near or _covered(near, position, size) < COVERED:
            return False
        counted = [spot for p in near for spot in p.spots if not spot.border]
        slack = 0.015 * max(size)
        for place in near:
            for spot in place.spots:
                if spot.border and not any(spot.same(other) for other in counted) and _freed(spot, place, position, slack):
                    return False
        return True

    def fresh(self, cells: Iterable[CellReading], position: Position) -> tuple[CellReading, ...]:
        """The cells that were not read before, numbered from 1; one that was cut then and is whole now is fresh."""
        with self._lock:
            spots = [spot for p in self._places if p.position.sheet == position.sheet for spot in p.spots]
        left = []
        for cell in cells:
            spot = spot_of(cell.detection.box, cell.detection.border, position)
            if not any(spot.same(other) for other in spots if spot.border or not other.border):
                left.append(cell)
        return tuple(replace(cell, cell=n) for n, cell in enumerate(left, start=1))

    def add(self, place: Place) -> None:
        """Remember a field that was read; sheets that it connects become one."""
        with self._lock:
            others = [p for p in self._places if p.position.sheet != place.position.sheet]
            here = place.glance.glance() if others else None
            for other in others[-LOOKED_BACK:]:
                found = match(self._glance(other), here, 0.15) if here is not None else None
                if found is not None and _is_sure(found):
                    self._join(other.position.moved(found.dx, found.dy), place.position)
            self._places.append(place)

    def forget(self, name: str) -> None:
        """Take a field back: its cells may be read again."""
        with self._lock:
            self._places = [p for p in self._places if p.name != name]

    def _glance(self, place: Place) -> Glance:
        """The whole glance of a place; those that were asked for last are held."""
        with self._lock:
            whole = self._whole.pop(place.name, None) or place.glance.glance()
            self._whole[place.name] = whole
            if len(self._whole) > HELD:
                self._whole.popitem(last=False)
        return whole

    def _join(self, there: Position, here: Position) -> None:
        """Move the sheet of ``there`` so that it lies on ``here``'s."""
        if there.sheet == here.sheet:
            return
        dx, dy = here.x - there.x, here.y - there.y
        self._places = [_on_sheet(p, here.sheet, dx, dy) if p.position.sheet == there.sheet else p for p in self._places]


def spot_of(box: Box, border: bool, position: Position) -> Spot:
    """A box of a frame, on its sheet."""
    return Spot(box.x + position.x, box.y + position.y, box.w, box.h, border)


def _on_sheet(place: Place, sheet: int, dx: float, dy: float) -> Place:
    old = place.position
    spots = tuple(replace(s, x=s.x + dx, y=s.y + dy) for s in place.spots)
    return replace(place, position=Position(sheet, old.x + dx, old.y + dy), spots=spots)


def _is_sure(found: Match) -> bool:
    return found.likeness >= (SURE if found.overlap >= SMALL else SURE_SMALL)


def _shared(place: Place, position: Position, size: tuple[int, int]) -> float:
    """Share of a frame that a place covers."""
    if place.position.sheet != position.sheet:
        return 0.0
    w = min(place.position.x + place.size[0], position.x + size[0]) - max(place.position.x, position.x)
    h = min(place.position.y + place.size[1], position.y + size[1]) - max(place.position.y, position.y)
    return max(0.0, w) * max(0.0, h) / (size[0] * size[1])


def _covered(places: list[Place], position: Position, size: tuple[int, int]) -> float:
    """Share of a frame that places cover together."""
    step = max(1, max(size) // 100)
    x, y = np.arange(0, size[0], step) + position.x, np.arange(0, size[1], step) + position.y
    out = np.zeros((len(y), len(x)), np.bool_)
    for p in places:
        rows = (y >= p.position.y) & (y < p.position.y + p.size[1])
        cols = (x >= p.position.x) & (x < p.position.x + p.size[0])
        out |= rows[:, None] & cols[None, :]
    return float(out.mean())


def _freed(spot: Spot, place: Place, position: Position, slack: float) -> bool:
    """Whether a cell that a place's edge cut now shows more of itself: each edge that cut it lies ``slack`` px inside."""
    px, py = place.position.x, place.position.y
    right, bottom = px + place.size[0], py + place.size[1]
    freed = True
    if spot.x <= px + 1:
        freed &= position.x <= px - slack
    if spot.y <= py + 1:
        freed &= position.y <= py - slack
    if spot.x + spot.w >= right - 1:
        freed &= position.x + place.size[0] >= right + slack
    if spot.y + spot.h >= bottom - 1:
        freed &= position.y + place.size[1] >= bottom + slack
    return freed
