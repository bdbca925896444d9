"""Runs for the tests: what is asked for, what was said and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nca_edge import runner
from nca_edge.classifier import ModelChoice
from nca_edge.records import Reading

Write = Callable[[Path], Path]
CHOICE = ModelChoice(backend="onnx", threads=1)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def request(source: Path, session: Path, *, resume: bool = False, target: int | None = None) -> runner.RunRequest:
    return runner.RunRequest(source, None if resume else session, session if resume else None, None, target, CHOICE)


class Heard(list[str]):
    """What a run said, and which fields it showed."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int]] = []

    def show(self, reading: Reading, done: int, total: int) -> None:
        self.shown.append((reading.field, done, total))
