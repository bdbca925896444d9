"""What a command of a test left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]
"""The fixture ``call``: ``nca-edge`` with these arguments."""
