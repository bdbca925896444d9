"""Routes that change something. Each takes one JSON object and answers ``{"say": ..., "go": ...}`` or ``{"error": ...}``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from nca_edge.errors import NcaEdgeError, UsageError
from nca_edge.i18n import LANGUAGES
from nca_edge.session import SlideFacts, State
from nca_edge.session.people import person
from nca_edge.web.house import LANGUAGE_COOKIE, REVIEWER_COOKIE, house_of, reviewer_of, words_of
from nca_edge.web.refusal import reasons

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from nca_edge.session import Session

Change: TypeAlias = "Callable[[Request, dict[str, Any]], Awaitable[dict[str, Any]]]"
MOST_CELLS = 24
"""Cells that one change may accept: a page of the gallery, all of which were on the screen."""


async def change(make: Change, request: Request) -> Response:
    """Every change comes in here; ``make``: who makes it, of ``DO``."""
    from starlette.responses import JSONResponse

    values = await _values(request)
    if values is None:
        return JSONResponse({"error": words_of(request)("do.failed")}, 400)
    try:
        answer = await make(request, values)
    except NcaEdgeError as error:
        answer = {"error": str(error)}
    if "who" in answer:
        return JSONResponse({"error": words_of(request)("do.who"), "go": "/who"}, 409)
    response = JSONResponse(answer, 409 if "error" in answer else 200)
    if "language" in answer:
        response.set_cookie(LANGUAGE_COOKIE, answer["language"], max_age=31_536_000, httponly=True, samesite="strict")
    if "reviewer" in answer:  # until the browser is closed: the next shift says its own name
        response.set_cookie(REVIEWER_COOKIE, quote(answer["reviewer"]), httponly=True, samesite="strict")
    return response


async def _values(request: Request) -> dict[str, Any] | None:
    try:
        values = json.loads(await request.body())
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


async def reclassify(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Say what a cell is."""
    cell, label = _text(values, "cell"), _text(values, "label")
    return await _reviewed(request, lambda session, by: session.reclassify(cell, label, by))


async def accept(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Say that the cells of a page, or one cell, are what the model says."""
    cells = values.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells) or not 1 <= len(cells) <= MOST_CELLS:
        raise UsageError(f"A page holds 1 to {MOST_CELLS} cells: reload it and try again.")
    snapshot = await house_of(request).desk.look()
    together = [cell for cell in cells if (shown := snapshot.find(cell)) is not None and (shown.acceptable or len(cells) == 1)]
    return await _reviewed(request, lambda session, by: session.accept(together, by))


async def undo(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Take the last review back."""
    words, house = words_of(request), house_of(request)
    by = reviewer_of(request, await house.desk.look())
    if not by:
        return {"error": words("do.nothing_to_undo")}
    done = await house.desk.change(lambda session: session.undo(by))
    return {"say": words("do.undone")} if done else {"error": words("do.nothing_to_undo")}


async def sign(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Put a name to the session; refused, with everything that is missing."""
    from nca_edge.outbox import Outputs, write_outputs

    house, words, name = house_of(request), words_of(request), _text(values, "name")
    person(name, "signs")
    missing = reasons(words, house, await house.desk.look())
    if missing:
        return {"error": f"{words('sign.refused')}: " + " · ".join(reason.text for reason in missing)}

    def put(session: Session) -> None:
        if session.state is State.COUNTING:  # nobody counts any more: the live count has ended, or there is none
            session.begin_review(name)
        session.sign(name)

    await house.desk.change(put)
    folder, outputs = house.desk.session.folder, Outputs(fhir=True, outbox=house.outbox, language=words.language)
    house.desk.print(lambda: write_outputs(folder, outputs))
    return {"say": words("sign.signed_by", name=name), "go": "/sign"}


async def amend(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Open a signed session again."""
    name, reason = _text(values, "name"), _text(values, "reason")
    await house_of(request).desk.change(lambda session: session.amend(name, reason))
    return {"say": words_of(request)("do.saved"), "go": "/cells"}


async def abandon(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Give the session up."""
    name, reason = _text(values, "name"), _text(values, "reason")
    await house_of(request).desk.change(lambda session: session.abandon(name, reason))
    return {"say": words_of(request)("do.saved"), "go": "/sign"}


async def following(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Begin a session for the next slide at the same microscope; the page comes back under the same address."""
    house, words = house_of(request), words_of(request)
    snapshot = await house.desk.look()
    if house.watch is None:
        raise UsageError(words("count.no_source"))
    if not snapshot.over:
        raise UsageError(words("next.not_yet"))
    known = snapshot.slide
    house.following = SlideFacts(_text(values, "specimen"), _text(values, "slide"), known.operator, known.target).cleaned()
    house.end()
    return {"say": words("do.saved"), "stay": True}


async def operator(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Say whose name stands with the reviews from now on."""
    return {"go": "/queue", "reviewer": person(_text(values, "name"), "reviews the cells")}


async def language(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Choose the language of this browser."""
    code = _text(values, "language")
    return {"language": code if code in LANGUAGES else "en"}


async def live(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Pause, go on, take the last field back, end the count."""
    watch = house_of(request).watch
    if watch is None or not watch.act(_text(values, "action")):
        raise UsageError(words_of(request)("count.no_source"))
    return {"stay": True}


DO: dict[str, Change] = {
    "reclassify": reclassify, "accept": accept, "undo": undo, "sign": sign, "amend": amend, "abandon": abandon,
    "next": following, "operator": operator, "language": language, "live": live,
}  # fmt: skip
"""Name of a change -> who makes it."""


async def _reviewed(request: Request, what: Callable[[Session, str], object]) -> dict[str, Any]:
    house = house_of(request)
    by = reviewer_of(request, await house.desk.look())
    if not by:
        return {"who": True}
    await house.desk.change(lambda session: what(session, by))
    return {"say": words_of(request)("do.saved")}


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str):
        raise UsageError("The page and the server do not agree: reload the page and try again.")
    return value
