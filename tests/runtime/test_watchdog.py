"""What the service manager is told, over a real socket."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nca_edge import watchdog
from nca_edge.samples import sample_fields

Call = Callable[..., Any]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd is to a service: a datagram socket whose name is in the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def told(listening: socket.socket) -> list[bytes]:
    out = []
    while True:
        try:
            out.append(listening.recv(4096))
        except BlockingIOError:
            return out


def test_ready_alive_stopping(manager: socket.socket) -> None:
    watchdog.ready()
    watchdog.alive()
    watchdog.stopping()
    assert told(manager) == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"nca-edge-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        watchdog.alive()
        assert listening.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "not a path", "/nowhere/at/all", "@nobody-listens"])
def test_without_a_manager_nothing_happens(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    open_files = len(os.listdir("/proc/self/fd"))
    watchdog.ready()
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_manager_that_does_not_read_is_not_waited_for(manager: socket.socket) -> None:
    for _ in range(2000):  # more than the socket's buffer holds
        watchdog.alive()
    assert 0 < len(told(manager)) < 2000


def test_a_run_is_alive_with_each_field(manager: socket.socket, tmp_path: Path, call: Call) -> None:
    fields = tmp_path / "fields"
    fields.mkdir()
    for name in ("bccd-BloodImage_00209.jpg", "bccd-BloodImage_00099.jpg"):
        shutil.copy(sample_fields() / name, fields)
    assert call("run", fields, "--out", tmp_path / "session").code == 0
    assert told(manager) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"STOPPING=1"]
