"""The routes of the page, behind the guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nca_edge.errors import MissingExtraError, NcaEdgeError
from nca_edge.web.guard import Guard
from nca_edge.web.house import House

if TYPE_CHECKING:
    from starlette.applications import Starlette
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
    changed = [Route(f"/do/{what}", _doing(what), methods=["POST"]) for what in changes.DO]
    return [Route(path, handler, methods=["GET"]) for path, handler in shown.items()] + changed


def _doing(what: str):  # type: ignore[no-untyped-def]
    from nca_edge.web import changes

    async def do(request):  # type: ignore[no-untyped-def]
        request.path_params["what"] = what
        return await changes.change(request)

    return do


def build(house: House) -> Starlette:
    """The application; nothing in it answers before the guard has looked."""
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
    except ModuleNotFoundError as error:
        raise MissingExtraError("web", "The page") from error
    from nca_edge.web import pages

    handlers = {404: pages.missing, NcaEdgeError: pages.failed}
    app = Starlette(routes=routes(), middleware=[Middleware(Guard, door=house.door)], exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.house = house
    return app
