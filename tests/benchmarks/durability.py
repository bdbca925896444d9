"""Whether a session keeps what it said it kept: killed at random moments under load, and cut off from its power.

    python -m tests.benchmarks.durability [--times 200] [--states 3000] [--json FILE]

| measure | bound |
|---|---|
| acknowledged changes lost in kill -9 at a random moment, ``--times`` of them, two processes loading the machine | 0 |
| of these, sessions that did not open again, or were not sound | 0 |
| acknowledged changes lost in simulated power cuts, ``--states`` of them, cell pictures included | 0 |
| of these, corrupt | 0 |
| the same with synchronous NORMAL, OFF, and with pictures not synced: lost or corrupt (a control) | > 0 |

A change is acknowledged when the method returned; the writer then prints the head of the audit log. Power cuts are replayed
from the record of every write and sync (crashed_disk.py in tests/workstation): what was not synced is gone, there in part, or
in some of its sectors. Exit code 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nca_edge.errors import NcaEdgeError
from nca_edge.session import Session
from nca_edge.session.verify import verify
from tests.runtime.sessions import FACTS, SLIDE, cell, field
from tests.workstation.power_cuts import cuts, played
from tests.workstation.recorded_disk import Disk

CHECKOUT = Path(__file__).resolve().parents[2]
FIELDS_A_SESSION = 60
"""A session that has so many is given up for a new one: a check takes longer the more it holds."""
LATEST_S = 0.4
"""A kill comes within so many seconds after the first acknowledgement."""


def work(folder: Path) -> None:
    """Commit and review until killed, and say so after each change (in a process of its own)."""
    with Session.open(folder) as session:
        number = len(session.fields_done())
        while True:
            session.commit(field(f"{number:05d}.png", *(cell(i, size=64) for i in range(1, 1 + number % 3))))
            print(session.head, flush=True)
            if number % 3 == 1:
                session.reclassify(f"{number + 1:06d}-001", "blast", "Ada")
                print(session.head, flush=True)
            number += 1


def killed(folder: Path, draw: random.Random) -> list[str]:
    """Start a writer, kill it at a random moment; what it had acknowledged by then."""
    command = [sys.executable, "-m", "tests.benchmarks.durability", "--work", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=env)
    assert writer.stdout is not None
    said = [writer.stdout.readline()]
    time.sleep(draw.uniform(0, LATEST_S))
    writer.send_signal(signal.SIGKILL)
    said += list(writer.stdout)
    writer.stdout.close()
    writer.wait()
    return [line.strip() for line in said if len(line) == 65]  # a line that the kill cut in two acknowledged nothing


def kills(times: int, folder: Path) -> dict[str, Any]:
    """``times`` kills, one after the other, of writers on sessions that go on."""
    draw = random.Random(11)
    load = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**5))"]) for _ in range(2)]
    acknowledged = lost = unsound = sessions = 0
    heads: list[str] = []
    place = folder / "none"
    try:
        for _ in range(times):
            if not place.exists() or len(heads) > FIELDS_A_SESSION:
                shutil.rmtree(place, ignore_errors=True)
                sessions, place, heads = sessions + 1, folder / f"s{sessions}", []
                Session.create(place, FACTS, SLIDE).close()
            new = killed(place, draw)
            acknowledged, heads = acknowledged + len(new), heads + new
            try:
                with Session.open(place) as session:
                    lost += len(set(heads) - {row.hash for row in session.audit_log()})
                unsound += bool(verify(place).problems)
            except NcaEdgeError as error:
                print(error, file=sys.stderr)
                unsound += 1
    finally:
        for process in load:
            process.kill()
            process.wait()
    return {"times": times, "acknowledged": acknowledged, "lost": lost, "unsound": unsound, "sessions": sessions}


def power_cuts(states: int, folder: Path) -> list[dict[str, Any]]:
    """Simulated cuts of the session as it is, and of the three controls."""
    rows = []
    for name, disk, n in (
        ("as it is", Disk(), states),
        ("synchronous NORMAL", Disk(synchronous="NORMAL"), states // 5),
        ("synchronous OFF", Disk(synchronous="OFF"), states // 5),
        ("pictures not synced", Disk(picture_syncs=False), states // 5),
    ):
        place = folder / name.replace(" ", "-")
        played(place, disk, 14)
        found = cuts(place, disk, n)
        writes = sum(event[0] == "write" for event in disk.log)
        rows.append({"name": name, "states": n, "writes": writes, "lost": found["lost"], "corrupt": found["corrupt"]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--states", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as fast:
        killing = kills(given.times, Path(disk))
        print(killing)
        cutting = power_cuts(given.states, Path(fast))
        for row in cutting:
            print(row)
    ok = not (killing["lost"] or killing["unsound"] or cutting[0]["lost"] or cutting[0]["corrupt"])
    ok = ok and all(row["lost"] + row["corrupt"] for row in cutting[1:])
    if given.json:
        result = {"kill_9": killing, "power_cuts": cutting, "cpus": os.cpu_count(), "ok": ok}
        given.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
