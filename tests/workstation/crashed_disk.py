"""What a power cut leaves of a recorded disk, replayed from its record.

What was synced is there; what was not is there in part, or torn in sectors of 512 bytes, or not at all; a name is certain once
its folder was synced.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.workstation.recorded_disk import Event

SECTOR = 512


@dataclass(slots=True)
class _Inode:
    """A file's bytes: on the platter, and still on their way."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)


def crash(log: list[Event], at: int, mode: str, draw: random.Random) -> dict[str, bytes]:
    """Files that are left when the power goes before event ``at``.

    Parameters
    ----------
    mode : ``none`` (nothing that was not synced), ``subset`` (any of it) or ``torn`` (any sectors of it)

    Returns
    -------
    path -> bytes
    """
    here: dict[str, _Inode] = {}
    certain: dict[str, _Inode] = {}
    names: list[Callable[[dict[str, _Inode]], object]] = []
    folders: list[str] = []

    def name(path: str, change: Callable[[dict[str, _Inode]], object]) -> None:
        change(here)
        names.append(change)
        folders.append(os.path.dirname(path))

    for event in log[:at]:
        kind, path = event[0], event[1]
        if kind == "open":
            inode = _Inode()
            name(path, lambda files, path=path, inode=inode: files.__setitem__(path, inode))
        elif kind in ("write", "truncate"):
            here[path].pending.append(event)
        elif kind == "sync":
            _apply(here[path], here[path].pending, "all", draw)
            here[path].pending = []
        elif kind == "rename":
            name(path, lambda files, path=path, to=event[2]: _rename(files, path, to))
        elif kind == "delete":
            name(path, lambda files, path=path: files.pop(path, None))
        elif kind == "folder":
            for change in [change for change, folder in zip(names, folders, strict=True) if folder == path]:
                change(certain)
            kept = [pair for pair in zip(names, folders, strict=True) if pair[1] != path]
            names, folders = [change for change, _ in kept], [folder for _, folder in kept]
    for change in names if mode != "none" else []:
        if draw.random() < 0.5:
            change(certain)
    return {path: bytes(_left(inode, mode, draw)) for path, inode in certain.items()}


def _rename(files: dict[str, _Inode], source: str, target: str) -> None:
    if source in files:  # in a subset the file's own name may be what was lost
        files[target] = files.pop(source)


def _left(inode: _Inode, mode: str, draw: random.Random) -> bytearray:
    left = _Inode(bytearray(inode.durable))
    _apply(left, inode.pending, mode, draw)
    return left.durable


def _apply(inode: _Inode, events: list[Event], mode: str, draw: random.Random) -> None:
    for event in events:
        if mode == "none" or (mode != "all" and event[0] == "truncate" and draw.random() < 0.5):
            continue
        if event[0] == "truncate":
            del inode.durable[event[2] :]
            continue
        offset, data = event[2], event[3]
        size = SECTOR if mode == "torn" else max(len(data), 1)
        for start in range(0, len(data), size):
            if mode == "all" or draw.random() < 0.5:
                _put(inode.durable, offset + start, data[start : start + size])


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
