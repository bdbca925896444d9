"""The report in every language: whole, and in English what it always was."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from done import Done
from pages import make_session

from nca_edge.i18n import LANGUAGES, Words, catalogue
from nca_edge.session import Session
from nca_edge.summary import summarize
from nca_edge.wording import standing


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_session(tmp_path_factory.mktemp("languages") / "s", operator="Amina")


def words_on(html: str) -> str:
    return re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_speaks_one_language(kept: Path, tmp_path: Path, call: Callable[..., Done], language: str) -> None:
    assert call("report", kept, "--out", tmp_path, "--language", language).code == 0
    html = (tmp_path / "report.html").read_text("utf-8")
    texts = catalogue(language)
    assert f'<html lang="{language}">' in html and "⟦" not in html
    assert texts["research_use"].replace("'", "&#39;") in html
    told = words_on(html.partition('id="facts"')[0])  # facts of the model stand as its makers wrote them
    english = {key: text for key, text in catalogue("en").items() if key.startswith("report.") and len(text) > 12}
    foreign = {text for key, text in english.items() if "{" not in text and texts[key] != text and text in told}
    assert not foreign or language == "en"


def test_a_language_that_there_is_not_is_refused(kept: Path, tmp_path: Path, call: Callable[..., Done]) -> None:
    done = call("report", kept, "--out", tmp_path / "x", "--language", "tlh")
    assert done.code == 2 and "known are en, fr, es, pt, sw" in done.err and not (tmp_path / "x").exists()


def test_where_a_session_stands_is_said_in_english_as_everywhere_else(kept: Path) -> None:
    words = Words("en")

    def same() -> str:
        with Session.open(kept, read_only=True) as session:
            summary = summarize(session)
        assert standing(words, summary) == summary.standing
        return summary.standing

    assert same() == "Not signed: 0 of 4 cells reviewed."
    with Session.open(kept) as session:
        for cell in session.unreviewed():
            session.reclassify(cell.id, "monocyte", "Amina")
        session.sign("Amina {name}")
    assert same().startswith("Signed by Amina {name} on ")
    with Session.open(kept) as session:
        session.amend("Bo", "one {reason} more")
    assert same() == "Not signed: opened again by Bo (one {reason} more), 4 of 4 cells reviewed."
    with Session.open(kept) as session:
        session.sign("Bo")
    assert "revision 2 (amended: one {reason} more)" in same()
    with Session.open(kept) as session:
        session.amend("Bo", "x")
        session.abandon("Bo", "another slide")
    assert same() == "Abandoned by Bo: another slide."


def test_a_number_of_nought_is_one_or_many_as_the_language_has_it() -> None:
    assert Words("en").plural("plural.cell", 0) == "0 cells" and Words("fr").plural("plural.cell", 0) == "0 cellule"
    assert Words("en").plural("plural.cell", 1) == "1 cell" and Words("sw").plural("plural.field", 2) == "maeneo 2"
