"""What a command of a test left behind."""

from __future__ import annotations

from typing import NamedTuple


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str
