"""The session of a live count, as its storing stage sees it: what is committed, taken back and counted."""

from __future__ import annotations

import re
import threading

from nca_edge.differential import Differential, differential
from nca_edge.live.chart import Chart
from nca_edge.live.places import PlaceBook
from nca_edge.records import Reading
from nca_edge.session import Session

FRAME = "frame-{:06d}"


class Count:
    """Commits and undoes; its figures may be read from any thread."""

    def __init__(self, session: Session, operator: str, chart: Chart) -> None:
        """``operator``: who takes fields back, for the session's log. ``chart``: is told the places of earlier sittings."""
        self._session, self._operator, self._chart = session, operator, chart
        self._lock = threading.Lock()
        self._book = PlaceBook(session.folder)
        self.earlier: str = self._restore()
        """What is known of the places of earlier sittings, for a person; empty where there was none."""
        names = [field.name for field in session.fields()]
        self._next = 1 + max((int(m[1]) for name in names if (m := re.fullmatch(r"frame-(\d+)", name))), default=0)
        self._refresh()

    def next_name(self) -> str:
        """A field name that the session does not hold."""
        with self._lock:
            name = FRAME.format(self._next)
            self._next += 1
        return name

    def commit(self, reading: Reading) -> str:
        """Save one field; StorageError where the disk refuses, and then it may be tried again."""
        place = self._chart.unwritten(reading.field)
        if place is not None:
            self._book.write(place)
            self._chart.written(reading.field)
        self._session.commit(reading)
        self._refresh()
        return reading.field

    def undo(self) -> str | None:
        """Take back the newest field that counts; its name, or None where there is none."""
        names = [field.name for field in self._session.fields() if not field.voided]
        if not names:
            return None
        self._session.void_field(names[-1], self._operator)
        self._refresh()
        return names[-1]

    def _restore(self) -> str:
        """Tell the chart what earlier sittings saw."""
        live = {
            field.name for field in self._session.fields()
            if field.accepted and not field.voided and re.fullmatch(r"frame-\d+", field.name)
        }  # fmt: skip
        if not live:
            return ""
        self._chart.restore(self._book.read(), live)
        self._book.rewrite(self._chart.places())
        known = len(self._chart)
        if known == len(live):
            return f"The places of {known} earlier fields are known again, as long as the slide lies as it lay."
        return (
            f"Of {len(live)} earlier fields the places of {known} are known again: go on where nothing was counted yet, or "
            "cells may be counted twice."
        )

    def _refresh(self) -> None:
        facts = self._session.facts
        self.table: Differential = differential(self._session.verdicts(), facts.classes, facts.groups)
        """The running differential."""
        self.fields: int = sum(not field.voided for field in self._session.fields())
        """Fields that are committed and not taken back."""
