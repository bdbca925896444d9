"""The catalogues: complete, alike, used, and a gap that can be seen."""

from __future__ import annotations

import re
import string
from importlib.resources import files

import pytest

from nca_edge import RESEARCH_USE, i18n
from nca_edge.differential import differential
from nca_edge.flags import load_rules
from nca_edge.i18n import LANGUAGES, Words, catalogue, choose
from nca_edge.web.snapshot import KEYS
from nca_edge.wording import blast_sentence

ENGLISH = catalogue("en")
SOURCES = "".join(
    path.read_text("utf-8")
    for folder in ("web", "web/templates", "web/static", "templates", ".")
    for path in (files("nca_edge") / folder).iterdir()
    if path.name.endswith((".js", ".j2"))
    or (path.name.endswith(".py") and (folder == "web" or path.name in ("report.py", "wording.py")))
)
BUILT = (
    "class.",
    "state.",
    "field.",
    "camera.",
    "queue.",
    "nav.",
    "number.",
    "flag.",
    "standing.",
    "plural.",
    "history.",
    "report.scale_",
)
"""Keys that the code puts together from a name."""


def places(text: str) -> set[str]:
    """What is filled in."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_catalogue_has_the_same_keys_and_the_same_places_to_fill(language: str) -> None:
    texts = catalogue(language)
    assert list(texts) == list(ENGLISH)
    assert {key: places(text) for key, text in texts.items()} == {key: places(text) for key, text in ENGLISH.items()}
    assert all(text.strip() == text and text for text in texts.values())


@pytest.mark.parametrize("language", [code for code in LANGUAGES if code != "en"])
def test_a_catalogue_is_translated(language: str) -> None:
    texts = catalogue(language)
    same = {key for key in ENGLISH if texts[key] == ENGLISH[key]}
    # words that are the same in several languages
    assert same <= {
        "number.point", "table.percent", "cell.channel", "count.pause", "class.lymphocyte", "class.monocyte", "nav.report",
        "report.classes", "plural.thread_one", "plural.thread_many",
    }, same  # fmt: skip
    assert not re.search(r"Research|Not a medical", texts["research_use"])


def test_every_key_that_is_used_exists_and_every_key_is_used() -> None:
    used = set(re.findall(r"""(?:\bt|words(?:_of\(request\))?|Words\([^)]*\))\(\s*["']([\w.]+)["']\s*[,)]""", SOURCES))
    assert used and used <= set(ENGLISH), used - set(ENGLISH)
    literal = set(re.findall(r"""["']([a-z_]+\.[\w]+)["']""", SOURCES))
    assert {key for key in ENGLISH if not key.startswith(BUILT)} <= used | literal | {"research_use"}


def test_every_name_that_is_put_together_exists() -> None:
    assert {f"class.{label}" for label in KEYS} | {f"flag.{rule.name}" for rule in load_rules()} <= set(ENGLISH)
    for built in re.findall(r"""t\("(\w+)\." ~""", SOURCES):
        assert any(key.startswith(f"{built}.") for key in ENGLISH)


def test_a_text_that_a_language_lacks_is_english_between_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {key: text for key, text in catalogue("fr").items() if key != "cells.accept"}
    monkeypatch.setattr(i18n, "catalogue", lambda language: short if language == "fr" else ENGLISH)
    words = Words("fr")
    assert words("cells.accept", n=3) == "⟦Accept 3 cells⟧" and words("cells.next") == "Suivante"
    with pytest.raises(KeyError):
        words("cells.nothing")


def test_english_says_what_the_rest_of_the_program_says() -> None:
    words = Words("en")
    assert words("research_use") == RESEARCH_USE
    one = type("Cell", (), {"label": "blast", "unsure": False, "counted": True})
    other = type("Cell", (), {"label": "lymphocyte", "unsure": False, "counted": True})
    for cells in ([], [other] * 7, [other] * 200, [one, other], [one] * 2):
        for classes in (["lymphocyte"], ["lymphocyte", "blast"]):
            table = differential([cell() for cell in cells], classes, {})
            assert blast_sentence(words, table) == table.blast_statement


@pytest.mark.parametrize(
    ("wanted", "code"),
    [(["fr-CM"], "fr"), (["de", "pt_BR", "fr"], "pt"), ([], "en"), (["", "*"], "en"), (["EN-us"], "en"), ([" sw "], "sw")],
)
def test_the_first_language_that_there_is_is_taken(wanted: list[str], code: str) -> None:
    assert choose(wanted) == code


def test_numbers_are_written_as_the_language_does() -> None:
    assert Words("en").number(1234.56, 1) == "1\u202f234.6" and Words("fr").number(1234.56, 1) == "1\u202f234,6"
    assert Words("xx").language == "en" and Words("en").label("odd_class") == "Odd class"
