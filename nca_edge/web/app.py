"""The routes of the page, behind the guard."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from nca_edge.errors import NcaEdgeError
from nca_edge.web.guard import Guard
from nca_edge.web.house import House

if TYPE_CHECKING:
    from starlette.routing import Route


def routes() -> list[Route]:
    """Every address that is served, and by whom."""
    from starlette.routing import Route

    from nca_edge.web import changes, pages

    shown = {
        "/": pages.count, "/cells": pages.cells, "/cell/{cell}": pages.cell, "/queue": pages.queue, "/sign": pages.sign,
        "/who": pages.who, "/report": pages.report, "/file/{name}": pages.download, "/part/count": pages.count_part,
        "/picture/{cell}/{kind}.png": pages.picture, "/live.jpg": pages.live_picture, "/events": pages.events,
        "/static/{name}": pages.static,
    }  # fmt: skip
    changed = {f"/do/{what}": partial(changes.change, make) for what, make in changes.DO.items()}
    return [Route(path, handler, methods=["GET"]) for path, handler in shown.items()] + [
        Route(path, handler, methods=["POST"]) for path, handler in changed.items()
    ]


def build(house: House) -> Guard:
    """The application; nothing in it answers before the guard has looked, not even an error."""
    from starlette.applications import Starlette

    from nca_edge.web import pages

    app = Starlette(
        routes=routes(), exception_handlers={404: pages.missing, NcaEdgeError: pages.failed, Exception: pages.failed}
    )
    app.router.redirect_slashes = False
    app.state.house = house
    return Guard(app, house.door)
