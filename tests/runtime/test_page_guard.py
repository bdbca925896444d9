"""Nobody but our own page gets in: every route, from the router itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("starlette", reason="needs the web extra")
pytest.importorskip("uvicorn", reason="needs the web extra")

from pages import Answer, Browser, make_session, served
from starlette.applications import Starlette

from nca_edge import RESEARCH_USE
from nca_edge.session import Session
from nca_edge.web.app import build, routes
from nca_edge.web.desk import Bell
from nca_edge.web.guard import HEADERS, LARGEST_BODY, Door, Guard
from nca_edge.web.house import House

FILLED = {"{cell}": "000001-001", "{kind}": "crop", "{name}": "cells.csv"}


def addresses() -> list[tuple[str, str]]:
    """(method, path) of every route."""
    found = []
    for route in routes():
        path = route.path
        for name, value in FILLED.items():
            path = path.replace(name, "page.css" if route.path.startswith("/static") else value)
        found += [(method, path) for method in sorted((route.methods or set()) - {"HEAD"})]
    return found


ALL = addresses()
CHANGES = [(method, path) for method, path in ALL if method != "GET"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with served("--session", make_session(tmp_path_factory.mktemp("guard") / "s", operator="Amina")) as page:
            yield page


def refused(answer: Answer) -> bool:
    """Refused with a sentence, with every header, and without a word of the session."""
    assert answer.headers.items() >= HEADERS.items()
    return answer.status == 403 and RESEARCH_USE in answer.text and len(answer.text) < 300


def test_the_router_serves_these_routes_and_no_other() -> None:
    class Nothing:
        bell = Bell()

    guard = build(House(Nothing(), Door(frozenset({"127.0.0.1:1"}), "t" * 32, 1)))  # type: ignore[arg-type]
    app = guard.app
    assert isinstance(guard, Guard) and isinstance(app, Starlette)
    assert [(route.path, route.methods) for route in app.routes] == [(route.path, route.methods) for route in routes()]
    assert len(ALL) == len(set(ALL)) >= 20 and all(path.startswith("/do/") for _, path in CHANGES)


@pytest.mark.parametrize(("method", "path"), ALL)
def test_a_route_is_refused_without_token(browser: Browser, method: str, path: str) -> None:
    assert refused(browser.ask(method, path, b"{}", cookie=None))
    assert refused(browser.ask(method, path, b"{}", cookie=browser.cookie[:-1]))
    assert refused(browser.ask(method, f"{path}?token=", b"{}", cookie=None))


@pytest.mark.parametrize(("method", "path"), ALL)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example", ""])
def test_a_route_is_refused_under_a_foreign_host(browser: Browser, method: str, path: str, host: str) -> None:
    assert refused(browser.ask(method, path, b"{}", host=host))


@pytest.mark.parametrize(("method", "path"), ALL)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:1", "file://"])
def test_a_route_is_refused_to_a_foreign_origin(browser: Browser, method: str, path: str, origin: str) -> None:
    assert refused(browser.ask(method, path, b"{}", origin=origin))


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("token", [None, "", "0" * 64])
def test_a_change_is_refused_without_its_own_token(browser: Browser, method: str, path: str, token: str | None) -> None:
    assert refused(browser.ask(method, path, b"{}", x_csrf_token=token))
    assert refused(browser.ask(method, path, b"{}", origin=None))


@pytest.mark.parametrize("path", [path for method, path in ALL if method == "GET"])
def test_a_page_that_another_site_embeds_or_fetches_is_refused(browser: Browser, path: str) -> None:
    assert refused(browser.ask("GET", path, sec_fetch_site="cross-site", sec_fetch_mode="no-cors"))
    assert refused(browser.ask("GET", path, sec_fetch_site="same-site", sec_fetch_mode="cors"))


@pytest.mark.parametrize("path", [path for method, path in ALL if method == "GET"])
def test_our_own_page_is_answered_with_every_header_and_no_cors(browser: Browser, path: str) -> None:
    answer = browser.ask("GET", path)
    assert answer.status == (404 if path == "/live.jpg" else 200)
    assert set(HEADERS) <= set(answer.headers)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "unsafe-inline" not in answer.headers["content-security-policy"] or path == "/report"
    if answer.headers["content-type"].startswith("text/html"):
        assert RESEARCH_USE in answer.text or path == "/part/count"


@pytest.mark.parametrize("path", ["/nothing", "/cell/000009-009", "/cell/%2e%2e%2fsession.db", "/picture/000001-001/mask.png",
                                  "/file/session.db", "/file/..%2fsession.db", "/static/..%2fguard.py", "/cells/"])  # fmt: skip
def test_what_there_is_not_is_a_page_that_says_so(browser: Browser, path: str) -> None:
    answer = browser.ask("GET", path)
    assert answer.status == 404 and RESEARCH_USE in answer.text and "SQLite" not in answer.text


def test_the_printed_address_gives_a_cookie_that_scripts_and_other_sites_never_see(browser: Browser) -> None:
    welcome = browser.ask("GET", "/?" + browser.url.partition("?")[2], cookie=None)
    assert welcome.status == 303 and welcome.headers["location"] == "/"
    cookie = welcome.headers["set-cookie"]
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    token = browser.url.partition("token=")[2]
    assert len(token) >= 43 and token not in cookie and token not in browser.ask("GET", "/").text
    assert refused(browser.ask("GET", "/cells?" + browser.url.partition("?")[2], cookie=None))


def test_methods_that_no_page_uses_change_nothing(browser: Browser) -> None:
    assert browser.ask("DELETE", "/", origin=f"http://{browser.place}", x_csrf_token=browser.csrf).status == 405
    assert browser.ask("GET", "/do/undo").status == 405
    assert refused(browser.ask("OPTIONS", "/do/sign", origin="http://evil.example"))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b'{"name": ', b"[" * 40_000, b'{"name": "' + b"x" * LARGEST_BODY + b'"}']
)
def test_a_change_that_is_no_small_object_is_refused(browser: Browser, body: bytes) -> None:
    answer = browser.ask("POST", "/do/sign", body)
    assert answer.status == 400 and answer.json["error"]


def test_nothing_of_all_this_reached_the_session(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = next(tmp_path_factory.getbasetemp().glob("guard*/s"))
    with Session.open(folder, read_only=True) as session:
        assert [row.action for row in session.audit_log()] == ["created", *["committed"] * 3, "review_begun"]
