"""Tells systemd that the program is ready, alive, about to end: the protocol of sd_notify(3), a datagram to a socket.

Started by hand, or by anything else than a service of type ``notify``, all of it does nothing. Whoever does the work says
``alive`` from the loop that does it, so that a loop that hangs is found and the service started again.
"""

from __future__ import annotations

import contextlib
import os
import socket


def ready() -> None:
    """Everything is loaded: work begins."""
    _tell("READY=1")


def alive() -> None:
    """Once a field, a frame, or a wait for one; at least once in the ``WatchdogSec`` of the service."""
    _tell("WATCHDOG=1")


def stopping() -> None:
    """The end was asked for: what is left is to store and to report."""
    _tell("STOPPING=1")


def _tell(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # an abstract name, which begins with a zero byte
        address = "\0" + address[1:]
    # a manager that is restarting listens again soon; the work does not wait for it
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as own:
        own.setblocking(False)
        own.sendto(state.encode("ascii"), address)
