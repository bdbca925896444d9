"""Routes that show something; none of them changes anything."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nca_edge.errors import NcaEdgeError
from nca_edge.web.house import (
    House,
    environment,
    head_of,
    house_of,
    href,
    live_texts,
    page,
    reviewer_of,
    words_of,
)
from nca_edge.web.refusal import reasons
from nca_edge.web.snapshot import Shown, Snapshot
from nca_edge.wording import blast_sentence, flag_sentence

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from nca_edge.i18n import Words
    from nca_edge.session import Session

PAGE_CELLS = 24
"""Cells of one page of the gallery: as many as a person sees at once on a screen of 800 x 480."""
LATEST = 12
MAPS = 5
HEARTBEAT_S = 1.0
"""How often a stream looks whether the server is ending."""
SILENT_S = 15.0
"""After so long without news a sign of life is sent, so that a browser that went away is noticed."""
STATIC = {"page.css": "text/css", "page.js": "text/javascript"}
FILES = {
    "differential.csv": "text/csv", "cells.csv": "text/csv", "report.json": "application/json",
    "report.fhir.json": "application/fhir+json",
}  # fmt: skip
"""What can be downloaded."""
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The report brings its own, stricter policy: this one adds to it what a meta element cannot say."""


async def count(request: Request) -> Response:
    """Live view and running differential."""
    house, words = house_of(request), words_of(request)
    snapshot = await house.desk.look()
    live = house.watch.view if house.watch else None
    values = _count_values(words, snapshot) | {"live": live, "live_texts": _safe(live_texts(words))}
    return await page(request, "count", snapshot=snapshot, **values)


async def count_part(request: Request) -> Response:
    """What of the count page changes with every field."""
    from starlette.responses import HTMLResponse

    house, words = house_of(request), words_of(request)
    snapshot = await house.desk.look()
    values = _count_values(words, snapshot) | {"t": words, "head": head_of(snapshot, reviewer_of(request, snapshot))}
    return HTMLResponse(environment().get_template("count_part.html.j2").render(values))


def _count_values(words: Words, snapshot: Snapshot) -> dict[str, Any]:
    latest = snapshot.cells[: -LATEST - 1 : -1]
    return {"table": snapshot.table, "blasts": blast_sentence(words, snapshot.table), "latest": latest}


async def cells(request: Request) -> Response:
    """The gallery: one class or all, at most 24 cells a page."""
    house = house_of(request)
    snapshot = await house.desk.look()
    label, query = request.query_params.get("class", ""), request.query_params
    only_open = query.get("open") == "1"
    some = [c for c in snapshot.sorted_cells() if label in ("", c.label) and not (only_open and c.settled)]
    pages = max(1, -(-len(some) // PAGE_CELLS))
    number = min(max(_whole(query.get("page", "1")), 1), pages)
    shown = some[(number - 1) * PAGE_CELLS : number * PAGE_CELLS]
    mark = "1" if only_open else ""

    def at(to: int) -> str:
        return href("/cells", **{"class": label, "open": mark, "page": to if to > 1 else ""}) if 1 <= to <= pages else ""

    return await page(
        request, "cells", snapshot=snapshot, cells=shown, page=number, pages=pages, only_open=only_open,
        previous=at(number - 1), next=at(number + 1), classes=_classes(snapshot, label, mark),
        toggle_open=href("/cells", **{"class": label, "open": "" if only_open else "1"}),
        alone=sum(bool(cell.why) for cell in shown),
        acceptable=[cell.id for cell in shown if cell.acceptable] if snapshot.open else [],
    )  # fmt: skip


def _classes(snapshot: Snapshot, label: str, mark: str) -> list[dict[str, object]]:
    counts = snapshot.counts()
    lines = [("all", "", len(snapshot.cells))] + [(name, key, counts[name]) for name, key in snapshot.palette]
    return [
        {
            "label": name, "key": key, "count": n, "current": name == (label or "all"),
            "href": href("/cells", **{"class": "" if name == "all" else name, "open": mark}),
        }
        for name, key, n in lines
    ]  # fmt: skip


async def cell(request: Request) -> Response:
    """One cell: pictures, why, and what it may be called."""
    snapshot = await house_of(request).desk.look()
    shown = snapshot.find(request.path_params["cell"])
    if shown is None:
        return await page(request, "error", 404, snapshot=snapshot, sentence=words_of(request)("cell.no_such"))
    return await page(request, "cell", snapshot=snapshot, **_one(shown, snapshot))


async def queue(request: Request) -> Response:
    """The next cell that wants a look of its own."""
    snapshot = await house_of(request).desk.look()
    if not snapshot.queue:
        return await page(request, "queue", snapshot=snapshot, cell=None)
    shown = snapshot.queue[0]
    return await page(request, "queue", snapshot=snapshot, reason=shown.why, **_one(shown, snapshot))


def _one(shown: Shown, snapshot: Snapshot) -> dict[str, Any]:
    return {"cell": shown, "palette": snapshot.palette, "tops": shown.row.top_channels[:MAPS], "can_change": snapshot.open}


async def sign(request: Request) -> Response:
    """The result, what is missing for a signature, and the signature."""
    house, words = house_of(request), words_of(request)
    snapshot = await house.desk.look()
    return await page(
        request, "sign", snapshot=snapshot, table=snapshot.table, blasts=blast_sentence(words, snapshot.table),
        flags=[flag_sentence(words, flag) for flag in snapshot.flags], reasons=reasons(words, house, snapshot),
        downloads=tuple(FILES), following=house.watch is not None and snapshot.over,
        facts=[(words(key), value) for key, value in snapshot.facts],
    )  # fmt: skip


async def who(request: Request) -> Response:
    """Whose name stands with the reviews."""
    return await page(request, "who")


async def report(request: Request) -> Response:
    """The report, built anew beside everything else: of many cells it takes seconds, in which the page goes on."""
    from starlette.responses import Response as Raw

    folder, language = house_of(request).desk.session.folder, words_of(request).language
    html = await asyncio.get_running_loop().run_in_executor(None, _report, folder, language)
    return Raw(html, media_type="text/html; charset=utf-8", headers={"content-security-policy": REPORT_POLICY})


def _report(folder: Path, language: str) -> bytes:
    from nca_edge.report import render_report
    from nca_edge.session import Session

    with Session.open(folder, read_only=True) as session, session.snapshot():
        return b"".join(render_report(session, language=language))


async def download(request: Request) -> Response:
    """One of the session's tables, built anew."""
    from starlette.responses import Response as Raw

    name = request.path_params["name"]
    if name not in FILES:
        return await missing(request, None)
    data = await house_of(request).desk.ask(lambda session: b"".join(_table(session, name)))
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Raw(data, media_type=FILES[name], headers=headers)


def _table(session: Session, name: str) -> Iterator[bytes]:
    from nca_edge.fhir import fhir_bundle
    from nca_edge.session.derived import cells_csv
    from nca_edge.summary import differential_csv, report_json, summarize

    if name == "cells.csv":
        return cells_csv(tuple(session.cells()), session.facts.classes)
    summary = summarize(session)
    if name == "differential.csv":
        return differential_csv(summary)
    return iter([report_json(summary) if name == "report.json" else fhir_bundle(summary)])


async def picture(request: Request) -> Response:
    """Crop, overlay or channel maps of a cell."""
    from starlette.responses import Response as Raw

    house, kind = house_of(request), request.path_params["kind"]
    shown = (await house.desk.look()).find(request.path_params["cell"])
    if shown is None or kind not in ("crop", "overlay", "maps"):
        return await missing(request, None)
    data = await house.desk.ask(lambda session: _picture(session, shown, kind))
    if data is None:
        return await missing(request, None)
    # A cell's pictures never change; the session's id stands in the address.
    return Raw(data, media_type="image/png", headers={"cache-control": "private, max-age=86400, immutable"})


def _picture(session: Session, shown: Shown, kind: str) -> bytes | None:
    if kind == "maps":
        return _maps(session, shown)
    try:
        return (session.folder / (shown.row.crop if kind == "crop" else shown.row.overlay)).read_bytes()
    except OSError:  # lost or unreadable: the page shows its text instead
        return None


def _maps(session: Session, shown: Shown) -> bytes | None:
    from PIL import Image

    from nca_edge.drawing import map_strip

    maps = session.channel_maps(shown.row)
    if not len(maps):
        return None
    try:
        with Image.open(session.folder / shown.row.crop) as crop:
            width, height = crop.size
    except OSError:
        return None
    tops = shown.row.top_channels[: len(maps)]
    buffer = io.BytesIO()
    map_strip(maps, [((top.peak[0] + 0.5) / width, (top.peak[1] + 0.5) / height) for top in tops]).save(buffer, "PNG")
    return buffer.getvalue()


async def live_picture(request: Request) -> Response:
    """The newest picture of the microscope."""
    from starlette.responses import Response as Raw

    watch = house_of(request).watch
    data = await asyncio.get_running_loop().run_in_executor(None, watch.jpeg) if watch else b""
    return Raw(data, media_type="image/jpeg") if data else await missing(request, None)


async def static(request: Request) -> Response:
    """Style and script."""
    from starlette.responses import Response as Raw

    name = request.path_params["name"]
    if name not in STATIC:
        return await missing(request, None)
    data = (files("nca_edge.web") / "static" / name).read_bytes()
    return Raw(data, media_type=STATIC[name], headers={"cache-control": "no-cache"})


async def events(request: Request) -> Response:
    """Server-sent events: how often the session changed, and how the microscope stands."""
    from starlette.responses import StreamingResponse

    stream = _stream(house_of(request), words_of(request))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _stream(house: House, words: Words) -> AsyncIterator[str]:
    rung, revision, silent_s = house.desk.bell.listen(), 0, 0.0
    rung.set()  # begin with how things stand
    try:
        yield "retry: 1000\n\n"
        while not house.closing():
            try:
                await asyncio.wait_for(rung.wait(), HEARTBEAT_S)
            except asyncio.TimeoutError:
                silent_s += HEARTBEAT_S
                if silent_s >= SILENT_S:
                    silent_s = 0.0
                    yield ": still here\n\n"
                continue
            rung.clear()
            snapshot = await house.desk.look() if revision != house.desk.revision else None
            revision = snapshot.revision if snapshot else revision
            yield f"data: {_news(house, words, revision, snapshot)}\n\n"
    finally:
        house.desk.bell.leave(rung)


def _news(house: House, words: Words, revision: int, snapshot: Snapshot | None) -> str:
    news: dict[str, object] = {"revision": revision, "changed_ms": house.desk.changed_ms}
    if house.watch:
        news["live"] = asdict(house.watch.view)
    if snapshot is not None:
        state = snapshot.state.value
        news["head"] = {"queued": len(snapshot.queue), "state": state.lower(), "text": words(f"state.{state}")}
    return json.dumps(news)


async def missing(request: Request, error: Exception | None) -> Response:
    """404."""
    return await page(request, "error", 404, sentence=words_of(request)("error.not_found"))


async def failed(request: Request, error: Exception) -> Response:
    """A disk or a session that does not do what it should."""
    from starlette.responses import JSONResponse, PlainTextResponse

    sentence = str(error) if isinstance(error, NcaEdgeError) else words_of(request)("do.failed")
    if request.method == "POST":
        return JSONResponse({"error": sentence}, 409)
    return PlainTextResponse(f"{sentence}\n{words_of(request)('research_use')}\n", 500)


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1


class _safe(str):
    """Text of our own that is safe inside its element."""

    def __html__(self) -> str:
        return self
