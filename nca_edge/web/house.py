"""What all routes share, and how a page is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from nca_edge.i18n import FALLBACK, LANGUAGES, Words, choose
from nca_edge.session import SlideFacts, State
from nca_edge.web.desk import Desk
from nca_edge.web.guard import Door
from nca_edge.web.snapshot import Snapshot
from nca_edge.web.watch import Watch

if TYPE_CHECKING:
    import jinja2
    from starlette.requests import Request
    from starlette.responses import Response

LANGUAGE_COOKIE = "nca_edge_language"
REVIEWER_COOKIE = "nca_edge_reviewer"
"""Who reviews in this browser, as the page asked her: two people may review one session, each under her own name."""


@dataclass(slots=True)
class House:
    """One server: its session, its microscope, its door."""

    desk: Desk
    door: Door
    watch: Watch | None = None
    """None: cells come from elsewhere, or are all there."""
    language: str | None = None
    """For everybody; None: what each browser asks for."""
    warning: str = ""
    """Stands on every page: not encrypted, or read only."""
    outbox: Path | None = None
    """Folder that a laboratory system watches: gets each signed result; None: none."""
    following: SlideFacts | None = None
    """The next slide, once the page asked for it."""
    end: Callable[[], None] = field(default=lambda: None)
    """Ends the server."""
    closing: Callable[[], bool] = field(default=lambda: False)
    """The server is about to end: streams must, too."""

    @property
    def counting(self) -> bool:
        """A live count goes on."""
        return self.watch is not None and not self.watch.view.ended


@dataclass(frozen=True, slots=True)
class Head:
    """What stands at the top of every page."""

    revision: int
    name: str
    state: str
    target: int | None
    fields: int
    queued: int
    to_review: int
    reviewed: int
    can_undo: bool
    can_sign: bool
    can_amend: bool
    can_abandon: bool
    reviewer: str
    signed_by: str
    signed_at: str


def house_of(request: Request) -> House:
    """The house of the server that got this request."""
    house: House = request.app.state.house
    return house


def words_of(request: Request) -> Words:
    """The language of this browser: chosen on the page, else the server's, else what the browser prefers."""
    house = house_of(request)
    wanted = [request.cookies.get(LANGUAGE_COOKIE, ""), house.language or ""]
    accepted = [part.split(";")[0] for part in request.headers.get("accept-language", "").split(",")]
    return Words(choose(w for w in [*wanted, *accepted] if w))


def reviewer_of(request: Request, snapshot: Snapshot) -> str:
    """Whose name stands with what this browser changes: who said so on the page, else the session's operator; may be empty."""
    return unquote(request.cookies.get(REVIEWER_COOKIE, "")) or snapshot.slide.operator


async def page(request: Request, place: str, status: int = 200, **values: Any) -> Response:
    """Draw ``PLACE.html.j2`` (or ``values['template']``)."""
    from starlette.responses import HTMLResponse

    house, words = house_of(request), words_of(request)
    snapshot = values.pop("snapshot", None) or await house.desk.look()
    template = values.pop("template", f"{place}.html.j2")
    shared = {
        "t": words, "place": place, "csrf": house.door.csrf, "head": head_of(snapshot, reviewer_of(request, snapshot)),
        "warning": " ".join(filter(None, (house.warning, house.desk.trouble))), "languages": LANGUAGES,
    }  # fmt: skip
    return HTMLResponse(environment().get_template(template).render(shared | values), status)


def head_of(snapshot: Snapshot, reviewer: str) -> Head:
    """The top of the page."""
    signature, to_review = snapshot.signature, len(snapshot.in_scope)
    return Head(
        revision=snapshot.revision,
        name=snapshot.slide.specimen or snapshot.name,
        state=snapshot.state.value,
        target=snapshot.slide.target,
        fields=snapshot.fields,
        queued=len(snapshot.queue),
        to_review=to_review,
        reviewed=to_review - snapshot.unreviewed,
        can_undo=snapshot.open,
        can_sign=snapshot.open or (snapshot.state is State.OPEN and not snapshot.read_only),
        can_amend=snapshot.state is State.SIGNED and not snapshot.read_only,
        can_abandon=not snapshot.read_only and snapshot.state not in (State.SIGNED, State.ABANDONED),
        reviewer=reviewer,
        signed_by=signature.name if signature else "",
        signed_at=signature.at if signature else "",
    )


def live_texts(words: Words) -> str:
    """Words that the script puts on the page by itself, as JSON that cannot end its element."""
    from nca_edge.i18n import catalogue

    keys = ("moving", "blurred", "rejected", "seen", "new", "counted", "paused", "waiting", "stopped")
    texts = {f"field.{key}": words(f"field.{key}") for key in keys}
    texts |= {f"camera.{key}": words(f"camera.{key}") for key in ("open", "opening", "stale", "lost", "retry", "ended")}
    texts |= {key: words(key) for key in catalogue(FALLBACK) if key.startswith("class.")}
    return json.dumps(texts).replace("<", "\\u003c")


def href(path: str, **values: object) -> str:
    """An address with its query; what is empty is left out."""
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in values.items() if value not in ("", None, False))
    return f"{path}?{query}" if query else path


@cache
def environment() -> jinja2.Environment:
    """Templates; every text is escaped, a name that is missing is an error."""
    import jinja2

    def source(name: str) -> str | None:
        path = files("nca_edge.web") / "templates" / name
        return path.read_text("utf-8") if path.is_file() else None

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(source), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, auto_reload=False,
    )  # fmt: skip


__all__ = ["FALLBACK", "Head", "House", "environment", "head_of", "house_of", "href", "live_texts", "page"]
