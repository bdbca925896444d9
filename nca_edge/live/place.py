"""A field that was read, as the chart remembers it: where it lies, how it looks, which cells were seen in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nca_edge.live.glance import Kept
from nca_edge.records import Box


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
class Join:
    """Two sheets that a field connected."""

    sheet: int
    """The one that is no more."""
    onto: int
    """The one that holds its places now."""
    dx: float
    dy: float
    """px that they were moved by."""


@dataclass(frozen=True, slots=True)
class Place:
    """One field that was read."""

    name: str
    position: Position
    size: tuple[int, int]
    """(width, height) px."""
    glance: Kept | None
    """None: so many fields were read since that it is not looked for by its looks any more."""
    spots: tuple[Spot, ...]
    joins: tuple[Join, ...] = ()
    """Sheets that were connected since the place before it was read."""


def spot_of(box: Box, border: bool, position: Position) -> Spot:
    """A box of a frame, on its sheet."""
    return Spot(box.x + position.x, box.y + position.y, box.w, box.h, border)


def on_sheet(place: Place, sheet: int, dx: float, dy: float) -> Place:
    old = place.position
    spots = tuple(replace(s, x=s.x + dx, y=s.y + dy) for s in place.spots)
    return replace(place, position=Position(sheet, old.x + dx, old.y + dy), spots=spots)


def shared(place: Place, position: Position, size: tuple[int, int]) -> float:
    """Share of a frame that a place covers."""
    if place.position.sheet != position.sheet:
        return 0.0
    w = min(place.position.x + place.size[0], position.x + size[0]) - max(place.position.x, position.x)
    h = min(place.position.y + place.size[1], position.y + size[1]) - max(place.position.y, position.y)
    return max(0.0, w) * max(0.0, h) / (size[0] * size[1])


def covered(places: list[Place], position: Position, size: tuple[int, int]) -> float:
    """Share of a frame that places cover together."""
    step = max(1, max(size) // 100)
    x, y = np.arange(0, size[0], step) + position.x, np.arange(0, size[1], step) + position.y
    out = np.zeros((len(y), len(x)), np.bool_)
    for p in places:
        rows = (y >= p.position.y) & (y < p.position.y + p.size[1])
        cols = (x >= p.position.x) & (x < p.position.x + p.size[0])
        out |= rows[:, None] & cols[None, :]
    return float(out.mean())


def freed(spot: Spot, place: Place, position: Position, slack: float) -> bool:
    """Whether a cell that a place's edge cut now shows more of itself: each edge that cut it lies ``slack`` px inside."""
    px, py = place.position.x, place.position.y
    right, bottom = px + place.size[0], py + place.size[1]
    out = True
    if spot.x <= px + 1:
        out &= position.x <= px - slack
    if spot.y <= py + 1:
        out &= position.y <= py - slack
    if spot.x + spot.w >= right - 1:
        out &= position.x + place.size[0] >= right + slack
    if spot.y + spot.h >= bottom - 1:
        out &= position.y + place.size[1] >= bottom + slack
    return out
