"""A session played on a recorded disk, and what the real session finds after the power went."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from nca_edge.errors import NcaEdgeError
from nca_edge.session import Session
from nca_edge.session.verify import verify
from tests.runtime.sessions import FACTS, SLIDE, cell, field
from tests.workstation.crashed_disk import crash
from tests.workstation.recorded_disk import Disk, Event, recorded


def steps(session: Session, fields: int) -> list[Callable[[], object]]:
    """A whole session, one acknowledged step after the other; a step that was done already does nothing."""
    found: list[Callable[[], object]] = []
    for n in range(fields):
        cells = [cell(i, "monocyte" if i == 2 else "lymphocyte", size=24) for i in range(1, 1 + n % 3)]
        found.append(lambda n=n, cells=cells: session.commit(field(f"{n:03d}.png", *cells)))
        if n % 3 == 2:
            found.append(lambda n=n: session.reclassify(f"{n:06d}-001", "blast", "Ada"))
            found.append(lambda: session.undo("Ada"))
    found.append(lambda: session.begin_review("Ada"))
    found.append(lambda: session.accept([row.id for row in session.unreviewed()], "Ada"))
    found.append(lambda: session.sign("Ada"))
    return found


def played(folder: Path, disk: Disk, fields: int) -> None:
    """Play a session on the disk and note each acknowledgement by the head of the log at that moment."""
    with recorded(disk):
        with Session.create(folder, FACTS, SLIDE) as session:
            disk.log.append(("ack", session.head))
            for step in steps(session, fields):
                step()
                disk.log.append(("ack", session.head))
            session.export()
        disk.log.append(("ack", disk.log[-1][1] if disk.log[-1][0] == "ack" else heads(disk.log)[-1]))


def heads(log: list[Event]) -> list[str]:
    return [event[1] for event in log if event[0] == "ack"]


def outcome(folder: Path, files: dict[str, bytes], acknowledged: list[str]) -> str:
    """``ok``, ``lost`` or ``corrupt``: what the real SQLite and the real session find in the files of a cut."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        if not path.endswith("-shm"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)
    try:
        with Session.open(folder) as session:
            known = {row.hash for row in session.audit_log()}
        problems = verify(folder).problems
    except NcaEdgeError:
        return "corrupt" if acknowledged else "ok"  # cut off before it was there: the user is told, and begins again
    if problems:
        return "corrupt"
    return "lost" if set(acknowledged) - known else "ok"


def cuts(folder: Path, disk: Disk, n: int) -> Counter[str]:
    """What became of ``n`` power cuts at random moments, a third in each mode."""
    draw = random.Random(7)
    results: Counter[str] = Counter()
    for number in range(n):
        at = draw.randint(1, len(disk.log))
        files = crash(disk.log, at, ("none", "subset", "torn")[number % 3], draw)
        results[outcome(folder, files, heads(disk.log[:at]))] += 1
    return results
