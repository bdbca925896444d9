"""The page as a person uses it, over real requests to a real server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape as html_escape
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the web extra")
pytest.importorskip("uvicorn", reason="needs the web extra")

from pages import Browser, acceptable, copy_of, make_session, queued, review_all, served

from nca_edge import RESEARCH_USE
from nca_edge.session import Session, State
from nca_edge.web.pages import PAGE_CELLS

pytestmark = pytest.mark.usefixtures("own_state")


BIDI = "\u202eadmin"
HEBREW = "דָּנָה לוי"
QUOTES = """O'Neill "Bo" <b>&amp; 'x"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same fields ten times over."""
    return make_session(tmp_path_factory.mktemp("many") / "s", 10, "Amina")


@pytest.fixture(scope="module")
def server(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for the tests that change nothing; at its end the session is as it was."""
    folder = copy_of(kept)
    with Session.open(folder, read_only=True) as session:
        before = (session.state, session.head)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with served("--session", folder) as page:
            yield page
    with Session.open(folder, read_only=True) as session:
        assert (session.state, session.head) == before


@pytest.fixture
def visitor(server: Browser) -> Browser:
    """A browser of its own at that server."""
    return Browser(server.url, server.process).enter()


def escape(text: str) -> str:
    """As the templates do it."""
    return html_escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def shown(page: Browser, query: str = "") -> list[str]:
    return re.findall(r'data-cell="([\d-]+)"', page.ask("GET", f"/cells{query}").text)


def test_a_session_is_reviewed_and_signed(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder) as page:
        first = queued(page)
        asked = page.do("reclassify", cell=first, label="monocyte")
        assert (asked.status, asked.json["go"]) == (409, "/who")  # nobody has said who reviews
        assert page.do("operator", name="Amina").status == 200
        early = page.do("sign", name="Amina")
        assert early.status == 409 and "Not signed: " in early.json["error"] and "Not yet reviewed" in early.json["error"]
        review_all(page)
        assert page.do("sign", name="Amina").json == {"say": "Signed by Amina", "go": "/sign"}
        assert "Signed by" in page.ask("GET", "/sign").text
        late = page.do("reclassify", cell=first, label="lymphocyte")
        assert late.status == 409 and "signed" in late.json["error"]
        assert page.do("amend", name="Amina", reason="one cell was wrong").status == 200
        assert page.do("reclassify", cell=first, label="lymphocyte").status == 200
        assert page.do("sign", name="Amina").status == 200
    with Session.open(folder, read_only=True) as session:
        assert session.state is State.SIGNED and len(session.signatures()) == 2
        assert {cell.id: cell.human_label for cell in session.cells()}[first] == "lymphocyte"
        assert {cell.reviewed_by for cell in session.cells() if cell.in_scope} == {"Amina"}


def test_a_cell_that_needs_a_look_of_its_own_is_never_accepted_with_others(many: Path) -> None:
    folder = copy_of(many)
    with served("--session", folder) as page:
        with Session.open(folder, read_only=True) as session:
            alone = [queued.cell.id for queued in session.review_queue()]
        cells = acceptable(page, "?open=1")
        assert cells and not set(cells) & set(alone)
        assert page.do("accept", cells=[cells[0], alone[0]]).status == 200
        with Session.open(folder, read_only=True) as session:
            assert [cell.id for cell in session.cells() if cell.reviewed] == [cells[0]]
        assert page.do("accept", cells=[alone[0]]).status == 200  # it was shown alone


def test_a_page_of_the_gallery_holds_24_cells_and_all_pages_hold_each_cell_once(many: Path) -> None:
    folder = copy_of(many)
    with served("--session", folder) as page:
        with Session.open(folder, read_only=True) as session:
            everything = [cell.id for cell in session.cells()]
        pages = -(-len(everything) // PAGE_CELLS)
        seen = [shown(page, f"?page={n}") for n in range(1, pages + 1)]
        assert [len(cells) for cells in seen[:-1]] == [PAGE_CELLS] * (pages - 1)
        assert sorted(cell for cells in seen for cell in cells) == sorted(everything)
        assert shown(page, "?page=999") == seen[-1] and shown(page, "?page=-1") == shown(page, "?page=x") == seen[0]
        assert page.do("accept", cells=everything[: PAGE_CELLS + 1]).status == 409


def test_two_people_review_each_under_her_own_name(kept: Path) -> None:
    folder = copy_of(kept)
    with served("--session", folder, "--operator", "Amina") as amina:
        bo = Browser(amina.url, amina.process).enter()
        assert bo.do("operator", name="Bo Ødegård").status == 200
        cells = [queued(amina)]
        assert amina.do("reclassify", cell=cells[0], label="monocyte").status == 200
        cells.append(queued(bo))
        assert bo.do("reclassify", cell=cells[1], label="monocyte").status == 200
        assert "Bo Ødegård" in bo.ask("GET", "/cells").text and "Bo" not in amina.ask("GET", "/cells").text
    with Session.open(folder, read_only=True) as session:
        by = {cell.id: cell.reviewed_by for cell in session.cells()}
        assert [by[cell] for cell in cells] == ["Amina", "Bo Ødegård"]


def test_undo_takes_back_the_last_change_and_then_says_that_there_is_nothing(kept: Path) -> None:
    with served("--session", copy_of(kept), "--operator", "Amina") as page:
        first = queued(page)
        page.do("reclassify", cell=first, label="basophil")
        assert queued(page) != first
        assert page.do("undo").json == {"say": "Undone"} and queued(page) == first
        assert page.do("undo").json == {"error": "There is nothing to undo."}


def test_names_are_kept_and_shown_as_they_were_typed(kept: Path) -> None:
    names = [QUOTES, HEBREW, "  Ana\tMaria\u00a0 da  Silva ", "李" * 200]
    folder = copy_of(kept)
    with served("--session", folder, "--operator", "A") as page:
        review_all(page)
        for name in names:
            assert page.do("sign", name=name).status == 200
            assert escape(" ".join(name.split())) in page.ask("GET", "/sign").text
            assert page.ask("GET", "/report").status == 200
            assert page.do("amend", name="A", reason=name).status == 200
    with Session.open(folder, read_only=True) as session:
        assert [signature.name for signature in session.signatures()] == [" ".join(name.split()) for name in names]


def test_names_that_cannot_be_shown_are_refused_with_one_sentence(visitor: Browser) -> None:
    for name in ("", " \t ", BIDI, "a\x00b", "x" * 201, "x" * 10_000):
        answers = [visitor.do(what, name=name, reason="x") for what in ("sign", "operator", "abandon")]
        assert [answer.status for answer in answers] == [409] * 3, name
        assert all(0 < len(answer.json["error"]) < 300 for answer in answers)


def test_changes_that_the_page_never_makes_are_refused(visitor: Browser) -> None:
    assert visitor.do("operator", name="A").status == 200
    wrong = ({}, {"cell": 3, "label": None}, {"cell": "000001-001", "label": "unicorn"}, {"cell": "../x", "label": "blast"})
    for values in wrong:
        answer = visitor.do("reclassify", **values)
        assert answer.status == 409 and answer.json["error"], values
    assert visitor.do("accept", cells=["000001-001", 3]).status == visitor.do("live", action="stop").status == 409


def test_every_language_is_served_and_the_choice_is_kept(visitor: Browser) -> None:
    assert '<html lang="en">' in visitor.ask("GET", "/").text
    for asked, code in (("fr-CM,fr;q=0.9", "fr"), ("es", "es"), ("pt-BR", "pt"), ("sw", "sw"), ("ja,de", "en")):
        told = visitor.ask("GET", "/sign", accept_language=asked).text
        assert f'<html lang="{code}">' in told and "⟦" not in told
    chosen = visitor.do("language", language="sw")
    assert chosen.status == 200 and '<html lang="sw">' in visitor.ask("GET", "/", accept_language="fr").text


def test_the_research_use_sentence_stands_on_every_page(visitor: Browser) -> None:
    for path in ("/", "/cells", "/queue", "/sign", "/who", "/report", "/cell/000001-001", "/nothing"):
        assert RESEARCH_USE in visitor.ask("GET", path).text, path
