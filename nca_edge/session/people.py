"""What people type: names and facts of the slide, made safe to keep and to show."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nca_edge.errors import UsageError

LONGEST = 200
"""Characters of a name or a label; longer text is refused, not cut: half a name is another name."""
_DIRECTIONS = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
"""Bidirectional controls: with them a name can be shown as another one. Right-to-left letters need none of them."""


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What is counted, by whom and how far; a person gives it, and may mend it until the session is signed."""

    specimen: str = ""
    """The laboratory's number of the specimen."""
    slide: str = ""
    """The slide's own label."""
    operator: str = ""
    """Who counts."""
    target: int | None = None
    """Leukocytes to count; None: no limit."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Of the microscope, as ``nca-edge calibrate`` stored it; empty: none."""

    def cleaned(self) -> SlideFacts:
        """The same with its texts cleaned; UsageError for what cannot be kept."""
        if self.target is not None and self.target < 1:
            raise UsageError(f"A target of {self.target} cells cannot be counted: give 1 or more.")
        texts = {name: clean(getattr(self, name), f"The {name}") for name in ("specimen", "slide", "operator")}
        return SlideFacts(**texts, target=self.target, calibration=dict(self.calibration))


def clean(text: str, what: str) -> str:
    """``text`` with every run of white space as one space and none at its ends.

    Raises
    ------
    UsageError
        It is too long, or holds what cannot be shown as it is written (control characters, changes of direction).
    """
    short = " ".join(text.split())
    if len(short) > LONGEST:
        raise UsageError(f"{what} has {len(short)} characters: give at most {LONGEST}.")
    for character in short:
        if unicodedata.category(character) in ("Cc", "Cs", "Cn") or unicodedata.bidirectional(character) in _DIRECTIONS:
            raise UsageError(f"{what} holds the character U+{ord(character):04X}, which cannot be shown: leave it out.")
    return short


def person(name: str, what: str) -> str:
    """The cleaned name of somebody; UsageError where it is empty."""
    cleaned = clean(name, f"The name of who {what}")
    if not cleaned:
        raise UsageError(f"Give the name of who {what}.")
    return cleaned
