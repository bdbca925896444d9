"""Who may use the page. Stands before every route, so that a new one cannot be forgotten.

A web page that is open in the same browser, or another user of the network, must neither read patients' cells nor change them:
the Host header is one of ours (against DNS rebinding), a foreign Origin is refused, every request carries the token that the
command line printed (as a cookie after the first use), and a change also carries a second token that only our own page knows.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from nca_edge import RESEARCH_USE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSRF_HEADER = "x-csrf-token"
LARGEST_BODY = 65_536
"""Bytes of a change: a name of 10,000 characters fits, a flood does not."""
POLICY = "; ".join((
    "default-src 'none'", "img-src 'self' data:", "style-src 'self'", "script-src 'self'", "connect-src 'self'",
    "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
))  # fmt: skip
"""Content security policy: our own files and nothing else; no inline script, no frame."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""On every answer, unless the answer brings its own."""


@dataclass(frozen=True, slots=True)
class Door:
    """What a request must show."""

    hosts: frozenset[str]
    """Host headers that are ours, lower case, with the port."""
    token: str
    """Secret of the printed address."""
    port: int
    """Browsers share cookies between the ports of a host: it stands in the cookie's name."""
    tls: bool = False
    """Served over HTTPS."""

    @property
    def origins(self) -> frozenset[str]:
        """Origin headers that are ours."""
        return frozenset(f"{'https' if self.tls else 'http'}://{host}" for host in self.hosts)

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return f"nca_edge_{self.port}"

    @property
    def cookie_value(self) -> str:
        """What the cookie holds: not the token itself, so that a stolen cookie does not give the address away."""
        return self._derived("cookie")

    @property
    def csrf(self) -> str:
        """What the page sends with every change."""
        return self._derived("csrf")

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.token.encode(), purpose.encode(), hashlib.sha256).hexdigest()


class Guard:
    """ASGI middleware that lets only our own page through."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, let in with a cookie, or pass on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSocket is served: uvicorn closes it

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                have = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in have]
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._wrong_place(headers) or self._unknown(scope, headers) or self._wrong_change(scope, headers)
        if refusal is None:
            await self.app(scope, _limited(receive), guarded)
        elif refusal == "welcome":
            await _answer(guarded, 303, "", self._welcome())
        else:
            await _answer(guarded, 403, refusal, [])

    def _wrong_place(self, headers: dict[str, str]) -> str | None:
        if headers.get("host", "").lower() not in self.door.hosts:
            return "This address is not the one that nca-edge serve printed: open that one."
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self.door.origins:
            return "Another page asked for this; only nca-edge's own page may."
        navigates = headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not navigates:
            return "Another page asked for this; only nca-edge's own page may."
        return None

    def _unknown(self, scope: Scope, headers: dict[str, str]) -> str | None:
        """None for a browser with the cookie, ``welcome`` for one with the token, else a sentence."""
        try:
            jar = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            jar = SimpleCookie()
        shown = jar[self.door.cookie].value if self.door.cookie in jar else ""
        if _same(shown, self.door.cookie_value):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "GET" and scope["path"] == "/" and _same(given, self.door.token):
            return "welcome"
        return "This browser has not been let in yet: open the whole address that nca-edge serve printed, with its token."

    def _wrong_change(self, scope: Scope, headers: dict[str, str]) -> str | None:
        if scope["method"] in ("GET", "HEAD"):
            return None
        if "origin" not in headers or not _same(headers.get(CSRF_HEADER, ""), self.door.csrf):
            return "This change did not come from a page that is up to date: reload the page and try again."
        return None

    def _welcome(self) -> list[tuple[str, str]]:
        flags = "; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if self.door.tls else "")
        return [("location", "/"), ("set-cookie", f"{self.door.cookie}={self.door.cookie_value}{flags}")]


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _limited(receive: Receive) -> Receive:
    """The same request, cut off where its body grows beyond ``LARGEST_BODY``; what is then read is no whole JSON."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > LARGEST_BODY:
            return {"type": "http.request", "body": b"", "more_body": False}
        return message

    return limited


async def _answer(send: Send, status: int, sentence: str, headers: list[tuple[str, str]]) -> None:
    body = f"{sentence}\n{RESEARCH_USE}\n".encode() if sentence else b""
    headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body))), *headers]
    raw = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
