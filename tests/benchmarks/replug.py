"""Cameras that are pulled and plugged in again: how soon is it back, is a stale picture ever handed out, does anything leak?

Stand-ins, each a real process with stamped pictures (tests/runtime/cameras.py): a stub ``rpicam-vid`` on PATH, a program that
writes MJPEG into a FIFO, an MJPEG server. By turns a camera is pulled (its program ends), killed in the middle of a picture,
hangs, or gives its last picture again and again.

Usage: python tests/benchmarks/replug.py [--cycles 100] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

import cameras

from nca_edge.camera import Reader, open_uri

WAYS = ("pulled", "killed", "hangs", "freezes")
STALE_MS = 1000
"""A picture older than this, from its making to the hand of who takes it, is stale."""


@dataclass
class StandIn:
    """One camera that can be pulled."""

    kind: str
    uri: str
    folder: Path
    state: Path
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    backs: list[float] = field(default_factory=list)

    def plug(self) -> None:
        self.state.write_text("on")
        if self.kind != "rpicam" and (self.process is None or self.process.poll() is not None):
            place = str(self.folder / "fifo") if self.kind == "fifo" else str(self.port)
            command = [sys.executable, str(Path(cameras.__file__)), self.kind, place, str(self.state)]
            self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def pull(self, way: str) -> None:
        self.state.write_text({"pulled": "off", "killed": "off", "hangs": "hang", "freezes": "freeze"}[way])
        if way == "killed":
            for child in [self.process.pid] if self.process else children():
                os.kill(child, signal.SIGKILL)
        if way in ("pulled", "killed") and self.process is not None:
            if way == "pulled":
                time.sleep(0.1)
                self.process.terminate()
            self.process.wait()

    def ready_s(self) -> float:
        """When its process last was ready to give pictures: that it needs time to start is not the reader's doing."""
        try:
            return int(self.state.with_suffix(".ready").read_text()) / 1000
        except (FileNotFoundError, ValueError):
            return 0.0

    def end(self) -> None:
        self.state.write_text("off")
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def children() -> list[int]:
    """Processes that this one started and that live."""
    out = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[1]) == os.getpid() and words[0] != "Z":
                out.append(int(entry.name))
    return out


def zombies() -> int:
    n = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            n += int(words[1]) == os.getpid() and words[0] == "Z"
    return n


def fresh(reader: Reader, tally: dict[str, int], wait_s: float, after_ms: int = 0) -> bool:
    """Take pictures until one made after ``after_ms`` comes; each is checked for its age."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        shot = reader.newest()
        if shot is None:
            continue
        made = cameras.stamp_of(shot.rgb)
        tally["taken"] += 1
        tally["stale"] += (cameras.now_ms() - made) & 0xFFFFFFFF > STALE_MS
        if made > after_ms:
            return True
    return False


def measure(stand_in: StandIn, cycles: int) -> dict[str, Any]:
    """Pull and plug in, again and again."""
    rng = random.Random(1)
    tally = {"taken": 0, "stale": 0, "never_back": 0, "taken_while_gone": 0}
    stand_in.plug()
    while stand_in.kind != "rpicam" and not stand_in.ready_s():
        time.sleep(0.05)
    with Reader(open_uri(stand_in.uri)) as reader:
        fresh(reader, tally, 5.0)
        before = len(os.listdir("/proc/self/fd")), len(children()), threading.active_count()
        for cycle in range(cycles):
            way = WAYS[cycle % len(WAYS)]
            stand_in.pull(way)
            gone = time.monotonic() + rng.uniform(0.5, 3.5)
            pulled_ms = cameras.now_ms()
            while time.monotonic() < gone:
                shot = reader.newest()
                if shot is not None:  # what was under way may still come, for as long as it is not stale
                    made = cameras.stamp_of(shot.rgb)
                    tally["taken_while_gone"] += made > pulled_ms + 200 or cameras.now_ms() - made > STALE_MS
            stand_in.plug()
            plugged, plugged_ms = time.monotonic(), cameras.now_ms()
            if fresh(reader, tally, 15.0, plugged_ms):
                stand_in.backs.append(time.monotonic() - max(plugged, stand_in.ready_s()))
            else:
                tally["never_back"] += 1
            fresh(reader, tally, 1.0)
        after = len(os.listdir("/proc/self/fd")), len(children()), threading.active_count()
        status = reader.status()
    stand_in.end()
    backs = np.array(stand_in.backs)
    return {
        "stand_in": stand_in.kind, "cycles": cycles, **tally, "losses": status.losses, "torn": status.torn,
        "repeated": status.repeated, "back_s_median": float(np.median(backs)), "back_s_p95": float(np.percentile(backs, 95)),
        "back_s_worst": float(backs.max()), "descriptors_leaked": after[0] - before[0],
        "processes_leaked": after[1] - before[1], "threads_leaked": after[2] - before[2], "zombies_left": zombies(),
    }  # fmt: skip


def main() -> int:
    """Run and print; 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=100, help="of each stand-in")
    parser.add_argument("--only", choices=("rpicam", "fifo", "http"), help="one stand-in")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cameras.stub_rpicam(folder / "bin", folder / "rpicam.state")
        os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        os.mkfifo(folder / "fifo")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for stand_in in (
            StandIn("rpicam", "rpicam:0?shutter=8000&gain=1&awbgains=1.5,1.5", folder, folder / "rpicam.state"),
            StandIn("fifo", f"pipe:{folder / 'fifo'}", folder, folder / "fifo.state"),
            StandIn("http", f"http://127.0.0.1:{port}/stream", folder, folder / "http.state", port=port),
        ):
            if args.only not in (None, stand_in.kind):
                continue
            results.append(measure(stand_in, args.cycles))
            print(json.dumps(results[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
