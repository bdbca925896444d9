"""`nca-edge serve`: address, port and token, the session and the microscope, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nca_edge.errors import MissingExtraError, StorageError, UsageError
from nca_edge.i18n import LANGUAGES, Words
from nca_edge.session import Session, SlideFacts
from nca_edge.web.desk import Bell, Desk
from nca_edge.web.guard import Door
from nca_edge.web.house import House
from nca_edge.web.watch import Watch

if TYPE_CHECKING:
    from nca_edge.live import LiveRequest

GRACE_S = 2.0
"""For what is being answered when the server ends."""
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
        if not _installed(module):
            raise MissingExtraError("web", "The page")
    if language is not None and language not in LANGUAGES:
        raise UsageError(f"--language {language}: known are {', '.join(LANGUAGES)}.")
    if (address.cert is None) != (address.key is None):
        raise UsageError("--cert and --key belong together: give both, or neither.")
    if address.host != "localhost":
        try:
            unspecified = ipaddress.ip_address(address.host).is_unspecified
        except ValueError as error:
            raise UsageError(f"--host {address.host}: give an address of this machine, such as 192.168.1.20.") from error
        if unspecified:
            raise UsageError(f"--host {address.host} would listen everywhere: give the one address that others shall use.")


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


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


def open_session(folder: Path, say: Callable[[str], None]) -> Session:
    """The session for reviewing; for looking alone where its disk cannot be written.

    Raises
    ------
    UsageError, StorageError
        No session, in use by another process, damaged.
    """
    try:
        return Session.open(folder)
    except StorageError as error:
        if os.access(folder, os.W_OK):
            raise
        session = Session.open(folder, read_only=True)
        say(f"{error} Until then this session can be looked at and not changed.")
        return session


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What the user asked for."""

    address: Address
    live: LiveRequest | None
    """A count at the microscope; None: ``session`` is looked through."""
    session: Path | None
    """The session to look through, where nothing is counted."""
    slide: SlideFacts
    """What is counted and by whom; empty texts leave a session's own."""
    language: str | None = None
    """Of the page; None: what each browser prefers."""
    outbox: Path | None = None
    """Folder that a laboratory system watches; None: none."""


def run(request: ServeRequest, say: Callable[[str], None], show: Callable[[str], None]) -> None:
    """Serve until stopped; ``show`` gets the address.

    Raises
    ------
    UsageError, MissingExtraError, BundleError, StorageError
        Before the address is shown.
    """
    check(request.address, request.language)
    listening = bind(request.address)  # first: nothing is created where the page could not be served
    with listening, _session(request, say) as (session, live):
        desk = Desk(session, Bell())
        house = House(desk, door_of(request.address, listening.getsockname()[1]), language=request.language)
        house.outbox = request.outbox
        house.warning = _notice(Words(request.language or "en"), request.address, session)
        if house.warning:
            say(house.warning)
        if live is not None:
            house.watch = Watch(live, desk.touched, desk.bell.ring)
            house.watch.start()
        show(url_of(request.address, house.door))
        try:
            _answer(house, listening, request.address)
        finally:
            if house.watch is not None:
                house.watch.end(GRACE_S)
            desk.close()


@contextmanager
def _session(request: ServeRequest, say: Callable[[str], None]) -> Iterator[tuple[Session, Any]]:
    """The session, and the live count that goes on in it."""
    if request.live is None:
        if request.session is None:
            raise UsageError("Give a camera (--camera, or a SOURCE such as v4l2:0) to count, or --session DIR to review.")
        with open_session(request.session, say) as session:
            _describe(session, request.slide)
            yield session, None
        return
    from nca_edge.live import begin

    with begin(request.live, say) as live:
        _describe(live.session, request.slide)
        yield live.session, live


def _describe(session: Session, given: SlideFacts) -> None:
    """Write down what the command line said of the slide; what it left out stays."""
    known = session.slide
    slide = replace(
        known, specimen=given.specimen or known.specimen, slide=given.slide or known.slide,
        operator=given.operator or known.operator, target=given.target or known.target,
    )  # fmt: skip
    if slide != known:
        session.describe(slide, slide.operator or "operator")


def _notice(words: Words, address: Address, session: Session) -> str:
    """What stands on every page because of how it is served."""
    told = [words("serve.read_only")] if session.read_only else []
    if not address.loopback and address.cert is None:
        told.append(words("serve.not_encrypted"))
    return " ".join(told)


def _answer(house: House, listening: socket.socket, address: Address) -> None:
    """Answer until SIGINT or SIGTERM; then streams end, and what was begun is finished."""
    import uvicorn

    from nca_edge.web.app import build

    config = uvicorn.Config(
        build(house), lifespan="off", ws="none", loop="asyncio", http="h11", access_log=False, log_level="error",
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=int(GRACE_S), timeout_keep_alive=30,
        ssl_certfile=address.cert, ssl_keyfile=address.key,
    )  # fmt: skip
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--cert {address.cert} and --key {address.key} cannot be used ({error}): give PEM files.") from error
    server = uvicorn.Server(config)
    house.closing = lambda: server.should_exit
    asyncio.run(server.serve(sockets=[listening]))
