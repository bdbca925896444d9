"""`nca-edge serve`: the session and the microscope behind the page, one slide after the other, and a clean end."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nca_edge import watchdog
from nca_edge.errors import NcaEdgeError, StorageError, UsageError
from nca_edge.i18n import Words
from nca_edge.session import Session, SlideFacts, State
from nca_edge.web.address import Address, bind, check, door_of, url_of
from nca_edge.web.desk import Bell, Desk
from nca_edge.web.house import House
from nca_edge.web.watch import Watch

if TYPE_CHECKING:
    import socket

    from nca_edge.live import LiveRequest

GRACE_S = 2.0
"""For what is being answered when the server ends."""
ALIVE_EVERY_S = 5.0
"""How often the service manager is told that the page answers and the microscope is watched."""
OVER = (State.SIGNED, State.ABANDONED)
"""States after which the next slide may begin."""


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
    fresh: bool = False
    """Begin a new session, also where one was not finished."""


def run(request: ServeRequest, say: Callable[[str], None], show: Callable[[str], None]) -> None:
    """Serve until stopped; ``show`` gets the address.

    Raises
    ------
    UsageError, MissingExtraError, BundleError, StorageError
        Before the address is shown.
    """
    check(request.address, request.language)
    following: ServeRequest | None = request
    while following is not None:
        following = _serve(following, say, show)
        show = _nothing  # the browser finds the next slide under the same address


def _nothing(url: str) -> None:
    pass


def _serve(request: ServeRequest, say: Callable[[str], None], show: Callable[[str], None]) -> ServeRequest | None:
    """Serve one session; the request for the next slide, where the page asked for one."""
    listening = bind(request.address)  # first: nothing is created where the page could not be served
    port = listening.getsockname()[1]
    with listening, _session(request, say) as (session, live, interrupted):
        house = House(Desk(session, Bell()), door_of(request.address, port), language=request.language, outbox=request.outbox)
        house.warning = _notice(Words(request.language or "en"), request.address, session)
        if house.warning:
            say(house.warning)
        if live is not None:
            house.watch = Watch(live, house.desk.touched, house.desk.bell.ring, interrupted)
            house.watch.start()
        show(url_of(request.address, house.door))
        try:
            _answer(house, listening, request.address)
        finally:
            watchdog.stopping()
            if house.watch is not None:
                house.watch.end(GRACE_S)
            house.desk.close()
    if house.following is None or request.live is None:
        return None
    live_request = replace(request.live, out=_beside(request.live.out), session=None, operator=house.following.operator)
    address = replace(request.address, port=port, new_token=False)
    return replace(request, address=address, live=live_request, slide=house.following, fresh=True)


def _beside(out: Path | None) -> Path | None:
    """The next free folder beside the one that was asked for."""
    if out is None:
        return None
    stem = re.sub(r"-\d+$", "", out.name)
    return next(folder for n in range(2, 10**6) if not (folder := out.with_name(f"{stem}-{n}")).exists())


@contextmanager
def _session(request: ServeRequest, say: Callable[[str], None]) -> Iterator[tuple[Session, Any, bool]]:
    """The session, the live count that goes on in it, and whether that count had been interrupted."""
    if request.live is None:
        if request.session is None:
            raise UsageError("Give a camera (--camera, or a SOURCE such as v4l2:0) to count, or --session DIR to review.")
        with open_session(request.session, say) as session:
            _describe(session, request.slide)
            yield session, None, False
        return
    from nca_edge.live import begin

    unfinished = None if request.fresh else _unfinished(request.live)
    with begin(replace(request.live, session=unfinished or request.live.session), say) as live:
        if unfinished:
            say("This session was not finished; the count is paused until somebody goes on.")
            live.pause()
        _describe(live.session, request.slide)
        yield live.session, live, bool(unfinished)


def _unfinished(live: LiveRequest) -> Path | None:
    """The newest session of this camera in ./sessions, where it is not signed or abandoned: after a power cut a service goes on
    with it. None where a folder was asked for."""
    if live.session is not None or live.out is not None:
        return None
    scheme = live.source.partition(":")[0]
    found = [
        (int(m[1]), path)
        for path in Path("sessions").glob("*")
        if (m := re.fullmatch(rf"{re.escape(scheme)}-(\d+)", path.name))
    ]
    for _, path in sorted(found, reverse=True)[:1]:
        try:
            with Session.open(path, read_only=True) as session:
                return None if session.state in OVER else path
        except NcaEdgeError:  # no session, or a damaged one: it stays as it is
            return None
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


def _describe(session: Session, given: SlideFacts) -> None:
    """Write down what the command line said of the slide; what it left out stays."""
    if session.read_only or session.state in OVER:
        return
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
    server = uvicorn.Server(config)
    house.closing = lambda: server.should_exit

    def end() -> None:
        server.should_exit = True

    house.end = end
    asyncio.run(_until_end(server.serve(sockets=[listening]), house))


async def _until_end(serving: Coroutine[Any, Any, None], house: House) -> None:
    """Serve, and tell the service manager so while the page answers and the microscope is watched."""

    async def beat() -> None:
        watchdog.ready()
        while True:
            if house.watch is None or house.watch.awake:
                watchdog.alive()
            await asyncio.sleep(ALIVE_EVERY_S)

    beating = asyncio.create_task(beat())
    try:
        await serving
    finally:
        beating.cancel()
