"""The words of the page and the report: one plain TOML file a language.

A text that a language lacks is shown in English between white brackets, so that nobody mistakes it for a finished translation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LANGUAGES = {"en": "English", "fr": "Français", "es": "Español", "pt": "Português", "sw": "Kiswahili"}
"""Code -> the language's own name. English is complete by definition: it is what the others are compared with."""
FALLBACK = "en"


class Words:
    """The texts of one language: ``words("queue.title")``, ``words("cells.n", n=3)``."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else FALLBACK
        """Code of the language."""

    def __call__(self, key: str, **values: object) -> str:
        """The text of ``key`` with ``{name}`` replaced by the values.

        A KeyError means that English lacks it: a mistake of ours, which a test finds before a user does.
        """
        text = catalogue(self.language).get(key)
        if text is None:
            text = f"⟦{catalogue(FALLBACK)[key]}⟧"
        return text.format(**values) if values else text

    def label(self, label: str) -> str:
        """Name of a class or group as a haematologist uses it, of one cell; a class without a name shows its own."""
        key = f"class.{label}"
        return self(key) if key in catalogue(FALLBACK) else label.replace("_", " ").capitalize()

    def knows(self, key: str) -> bool:
        """Whether there is such a text."""
        return key in catalogue(FALLBACK)

    def plural(self, key: str, n: int, shown: str | None = None) -> str:
        """``KEY_one`` or ``KEY_many`` with ``n``, written as ``shown``; nought is one in French and Portuguese."""
        one = n == 1 or (n == 0 and self.language in ("fr", "pt"))
        return self(f"{key}_{'one' if one else 'many'}", n=n if shown is None else shown)

    def number(self, value: float, digits: int = 0) -> str:
        """Decimals and thousands set apart as the language writes them."""
        return f"{value:,.{digits}f}".replace(",", "\u202f").replace(".", self("number.point"))


@cache
def catalogue(language: str) -> dict[str, str]:
    """Dotted key -> text of one language."""
    text = (files("nca_edge") / "i18n" / f"{language}.toml").read_text("utf-8")
    return dict(_flat(tomllib.loads(text), ""))


def _flat(table: dict[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, str(value)


def choose(wanted: Iterable[str]) -> str:
    """The first language of ``wanted`` that there is (``fr-CM`` counts as ``fr``), else English."""
    for name in wanted:
        code = name.strip().lower().replace("_", "-").split("-")[0]
        if code in LANGUAGES:
            return code
    return FALLBACK
