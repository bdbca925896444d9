"""The one way from the page to the session: a single thread that asks and changes it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nca_edge.errors import NcaEdgeError
from nca_edge.session import Session
from nca_edge.web.snapshot import Snapshot, take

T = TypeVar("T")


class Bell:
    """Wakes everybody who listens. Many rings that nobody heard are one: a slow browser is never owed a pile of news."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def ring(self) -> None:
        """Wake all; from any thread."""
        with self._lock:
            waiting = list(self._waiting.items())
        for event, loop in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def listen(self) -> asyncio.Event:
        """An event that every ring sets; the listener clears it."""
        event = asyncio.Event()
        with self._lock:
            self._waiting[event] = asyncio.get_running_loop()
        return event

    def leave(self, event: asyncio.Event) -> None:
        """Listen no more."""
        with self._lock:
            self._waiting.pop(event, None)


class Desk:
    """Asks and changes the session, one thing at a time."""

    def __init__(self, session: Session, bell: Bell) -> None:
        self.session = session
        """Only the desk's own thread touches it, and a live count, which takes turns with it by the session's lock."""
        self.bell = bell
        self.changed_ms = time.time() * 1000
        """Wall clock of the last change, ms: a browser on this machine can tell how late it hears of it."""
        self._revision = 1
        self._snapshot: Snapshot | None = None
        self._pool = ThreadPoolExecutor(1, "session")
        self._press = ThreadPoolExecutor(1, "press")
        self.trouble = ""
        """Why the last files could not be written; empty: they were."""

    @property
    def revision(self) -> int:
        """Rises with every change."""
        return self._revision

    def touched(self) -> None:
        """The session has changed; from any thread."""
        self.changed_ms = time.time() * 1000
        self._revision += 1
        self.bell.ring()

    async def look(self) -> Snapshot:
        """How the session stands now."""
        return await self.ask(self._look)

    async def ask(self, question: Callable[[Session], T]) -> T:
        """Run ``question`` in the session's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, question, self.session)

    async def change(self, what: Callable[[Session], T]) -> T:
        """Run ``what`` in the session's thread and tell everybody that the session has changed."""
        try:
            return await self.ask(what)
        finally:
            self.touched()  # also where it failed in the middle: what stands is read again

    def print(self, work: Callable[[], object]) -> None:
        """Write files, which may take long, beside everything else: ``work`` opens the session for itself, to read."""

        def done() -> None:
            try:
                work()
                self.trouble = ""
            except NcaEdgeError as error:
                self.trouble = str(error)
            self.bell.ring()

        self._press.submit(done)

    def close(self) -> None:
        """Let what was begun end."""
        self._press.shutdown(wait=True)
        self._pool.shutdown(wait=True)

    def _look(self, session: Session) -> Snapshot:
        if self._snapshot is None or self._snapshot.revision != self._revision:
            self._snapshot = take(session, self._revision)
        return self._snapshot
