"""Address, port and token of the page."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from nca_edge.errors import MissingExtraError, UsageError
from nca_edge.i18n import LANGUAGES
from nca_edge.web.guard import Door

TOKEN = "page-token"
"""File in the user's state folder: the address stays the same, so that a browser finds the page again after a power cut."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the page is served, and how."""

    host: str = "127.0.0.1"
    """Address of this machine; anything but loopback is reached from the network."""
    port: int = 8765
    """0: any that is free."""
    cert: Path | None = None
    """TLS certificate (PEM); None: plain HTTP."""
    key: Path | None = None
    """Its private key (PEM)."""
    new_token: bool = False
    """Shut out every browser that was let in before."""

    @property
    def loopback(self) -> bool:
        """Reached from this machine alone."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


def check(address: Address, language: str | None) -> None:
    """Refuse what cannot work, before a model is loaded.

    Raises
    ------
    UsageError, MissingExtraError
    """
    for module in ("starlette", "uvicorn"):
        if find_spec(module) is None:
            raise MissingExtraError("web", "The page")
    if language is not None and language not in LANGUAGES:
        raise UsageError(f"--language {language}: known are {', '.join(LANGUAGES)}.")
    if (address.cert is None) != (address.key is None):
        raise UsageError("--cert and --key belong together: give both, or neither.")
    if address.cert is not None and address.key is not None:
        _check_pair(address.cert, address.key)
    if address.host != "localhost":
        try:
            unspecified = ipaddress.ip_address(address.host).is_unspecified
        except ValueError as error:
            raise UsageError(f"--host {address.host}: give an address of this machine, such as 192.168.1.20.") from error
        if unspecified:
            raise UsageError(f"--host {address.host} would listen everywhere: give the one address that others shall use.")


def _check_pair(cert: Path, key: Path) -> None:
    for option, path in (("--cert", cert), ("--key", key)):
        if not path.is_file():
            raise UsageError(f"{option} {path}: no such file; give a PEM file.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"--cert {cert} and --key {key} cannot be used together: give PEM files.") from error


def bind(address: Address) -> socket.socket:
    """A listening socket; the page is reached from the moment it is printed.

    Raises
    ------
    UsageError
        The port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise UsageError(
            f"{address.host} port {address.port} cannot be served ({reason}): give another --port or --host."
        ) from error
    listening.listen(64)
    return listening


def door_of(address: Address, port: int) -> Door:
    """What a request to this address must show."""
    names = {"127.0.0.1", "localhost", "[::1]"} if address.loopback else {address.host}
    names.add(f"[{address.host}]" if ":" in address.host else address.host)
    tls = address.cert is not None
    hosts = {f"{name}:{port}" for name in names} | (names if port == (443 if tls else 80) else set())
    return Door(frozenset(hosts), _token(address.new_token), port, tls)


def url_of(address: Address, door: Door) -> str:
    """What the user opens."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'https' if door.tls else 'http'}://{host}:{door.port}/?token={door.token}"


def _token(new: bool) -> str:
    """The user's token, made on first use; one for this start alone where nothing can be kept."""
    place = _place()
    if place is not None and not new:
        with contextlib.suppress(OSError, ValueError):
            kept = place.read_text("ascii").strip()
            if len(kept) >= 32 and not place.stat().st_mode & 0o077:
                return kept
    token = secrets.token_urlsafe(32)
    if place is not None:
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(token)
    return token


def _place() -> Path | None:
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "nca-edge" / TOKEN
    except RuntimeError:  # a service without a home
        return None
