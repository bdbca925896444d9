"""Where on the smear the fields lie that were read, and which cells are counted there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from nca_edge.live.glance import Glance, Match, match, recognised
from nca_edge.live.place import Join, Place, Position, covered, freed, on_sheet, shared, spot_of
from nca_edge.records import CellReading

SURE, SURE_SMALL = 0.80, 0.87
"""Least likeness of two frames of one place, where they share more or less than ``SMALL`` of a frame. Measured on 40 fields of
each set cut in two: the same place has 0.82 and more, two places 0.73 at most."""
SMALL = 0.25
COVERED = 0.97
"""Share of a frame that was read before for it to count as seen."""
NEAR = 3
"""Places that are compared where the position is known already."""
HELD = 8
"""Whole glances that are held, 1 MB each at most: those near by and the newest, asked for again and again. To make them anew
takes a third of what comparing does; 60 of them were 42 MB that a long count grew by."""
MET = 8
"""Places of other sheets that a field is compared with before its cells are counted, the newest: 1 ms each, which its cells
wait for. A hand came back, by a way that could be followed, to a field that it had left by one that could not: its cell was
counted twice, a moment before both sheets were made one."""
LEAST_JOIN = 0.15
"""Share of a frame that two must have in common for their sheets to be made one."""
LOOKED_BACK = 400
"""Places that are compared where it is not, the newest first. Of older ones the small picture is given up, so that memory
does not grow with the count: what lies there is known as long as the stage is followed, and not found by its looks."""


class Chart:
    """All places of a session. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._places: list[Place] = []
        self._unwritten: dict[str, Place] = {}
        self._joins: tuple[Join, ...] = ()
        self._sheets = 0
        self._moved: dict[int, Join] = {}
        self._whole: OrderedDict[str, Glance] = OrderedDict()
        self._met: set[str] = set()

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
            guess = guess and self._now(guess)
        if guess is not None:
            near = [p for p in places if p.glance is not None and shared(p, guess, size) > 0.1]
            for place in sorted(near, key=lambda p: -shared(p, guess, size))[:NEAR]:
                found = match(self._glance(place), seen)
                if found is not None and _is_sure(found):
                    return place.position.moved(found.dx, found.dy)
            return guess  # the way the stage moved was followed frame by frame, and that is enough
        best: tuple[float, Position] | None = None
        for place in reversed(places[-LOOKED_BACK:]):
            if place.glance is None:
                continue
            found = recognised(self._glance(place), seen)
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
            position = self._now(position)
            near = [p for p in self._places if shared(p, position, size) > 0.0]
        if not near or covered(near, position, size) < COVERED:
            return False
        counted = [spot for p in near for spot in p.spots if not spot.border]
        slack = 0.015 * max(size)
        for place in near:
            for spot in place.spots:
                if spot.border and not any(spot.same(other) for other in counted) and freed(spot, place, position, slack):
                    return False
        return True

    def fresh(self, cells: Iterable[CellReading], position: Position) -> tuple[CellReading, ...]:
        """The cells that were not read before, numbered from 1; one that was cut then and is whole now is fresh."""
        with self._lock:
            position = self._now(position)
            spots = [spot for p in self._places if p.position.sheet == position.sheet for spot in p.spots]
        left = []
        for cell in cells:
            spot = spot_of(cell.detection.box, cell.detection.border, position)
            if not any(spot.same(other) for other in spots if spot.border or not other.border):
                left.append(cell)
        return tuple(replace(cell, cell=n) for n, cell in enumerate(left, start=1))

    def add(self, place: Place) -> None:
        """Remember a field that was read. One thread alone may meet, add and connect."""
        with self._lock:
            at = self._now(place.position)
            place = on_sheet(place, at.sheet, at.x - place.position.x, at.y - place.position.y)
            place, self._joins = replace(place, joins=self._joins), ()
            self._unwritten[place.name] = place
            self._append(place)

    def meet(self, seen: Glance, position: Position) -> None:
        """Make the sheets of the newest places that a frame shows one with its own, before its cells are told from theirs."""
        with self._lock:
            at = self._now(position)
            others = [p for p in self._places[-LOOKED_BACK:] if p.position.sheet != at.sheet and p.glance is not None]
        self._met = {p.name for p in others[-MET:]}
        self._connect(seen, at, others[-MET:])

    def connect(self, name: str) -> None:
        """Make sheets that a field connects one. Compares it with all that it did not meet: 0.3 s for hundreds, so that its
        cells need not wait for it, nor, without the lock, the camera's pictures."""
        with self._lock:
            place = next((p for p in reversed(self._places) if p.name == name), None)
            left = [p for p in self._places[-LOOKED_BACK:] if p.name not in self._met and p.glance is not None]
            others = [p for p in left if place and p.position.sheet != place.position.sheet]
        if place is not None and place.glance is not None and others:
            self._connect(place.glance.glance(), place.position, others, held=False)

    def _connect(self, here: Glance, at: Position, others: list[Place], held: bool = True) -> None:
        """Move the sheets of those that show the same onto ``at``'s; ``held``: they will soon be asked for again."""
        joins: dict[int, Join] = {}
        for other in others:
            if other.position.sheet in joins:
                continue
            found = recognised(self._glance(other) if held or other.glance is None else other.glance.glance(), here)
            if found is not None and _is_sure(found) and found.overlap >= LEAST_JOIN:
                there = other.position.moved(found.dx, found.dy)
                joins[there.sheet] = Join(there.sheet, at.sheet, at.x - there.x, at.y - there.y)
        with self._lock:
            self._join(tuple(joins.values()))
            self._joins += tuple(joins.values())

    def unwritten(self, name: str) -> Place | None:
        """A place as it was added, while it is not written down; None for a field that has none."""
        with self._lock:
            return self._unwritten.get(name)

    def written(self, name: str) -> None:
        """It is on the disk."""
        with self._lock:
            self._unwritten.pop(name, None)

    def restore(self, places: Iterable[Place], names: set[str]) -> None:
        """Know the places of earlier sittings again.

        Parameters
        ----------
        places : as they were added, in this order
        names : fields that count; of the others only what they connected is used
        """
        with self._lock:
            for place in places:
                self._sheets = max(self._sheets, place.position.sheet)
                self._places = [p for p in self._places if p.name != place.name]
                self._join(place.joins)
                self._append(place)
            self._places = [p for p in self._places if p.name in names]

    def places(self) -> tuple[Place, ...]:
        """All places as they lie now, in the order in which they were read."""
        with self._lock:
            return tuple(replace(place, joins=()) for place in self._places)

    def forget(self, name: str) -> None:
        """Take a field back: its cells may be read again."""
        with self._lock:
            self._places = [p for p in self._places if p.name != name]
            self._unwritten.pop(name, None)

    def _glance(self, place: Place) -> Glance:
        """The whole glance of a place; those that were asked for last are held."""
        with self._lock:
            whole = self._whole.pop(place.name, None)
            if whole is None and place.glance is not None:
                whole = place.glance.glance()
            if whole is None:
                raise ValueError(f"{place.name} is kept without its picture")
            self._whole[place.name] = whole
            if len(self._whole) > HELD:
                self._whole.popitem(last=False)
        return whole

    def _join(self, joins: tuple[Join, ...]) -> None:
        """Under the lock: move what lies on sheets that are no more."""
        for join in joins:
            if join.sheet not in self._moved and self._now(Position(join.onto, 0.0, 0.0)).sheet != join.sheet:
                self._moved[join.sheet] = join  # a damaged book may lead in a circle
            self._places = [
                on_sheet(p, join.onto, join.dx, join.dy) if p.position.sheet == join.sheet else p for p in self._places
            ]

    def _now(self, position: Position) -> Position:
        """Under the lock: where it lies since its sheet was made one with others. A frame is looked at while an earlier one is
        read, which may connect its sheet to another."""
        while (join := self._moved.get(position.sheet)) is not None:
            position = Position(join.onto, position.x + join.dx, position.y + join.dy)
        return position

    def _append(self, place: Place) -> None:
        """Under the lock."""
        self._places.append(place)
        old = len(self._places) - LOOKED_BACK - 1
        if old >= 0 and self._places[old].glance is not None:
            self._places[old] = replace(self._places[old], glance=None)


def _is_sure(found: Match) -> bool:
    return found.likeness >= (SURE if found.overlap >= SMALL else SURE_SMALL)
