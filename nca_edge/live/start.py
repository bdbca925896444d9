"""Beginning and ending a live count: camera, session and model, and the report at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nca_edge.camera import Reader, open_uri
from nca_edge.classifier import ModelChoice
from nca_edge.live.run import LiveOptions, LiveRun
from nca_edge.runner import RunOutcome, RunRequest, finish, open_session


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What the user asked for."""

    source: str
    """Camera URI, such as ``camera``, ``v4l2:0`` or ``test:``; see ``nca_edge.camera.uri``."""
    out: Path | None
    """New session folder; None: the first free ``./sessions/KIND-N``."""
    session: Path | None
    """Existing session to go on with."""
    um_per_px: float | None
    target: int | None
    choice: ModelChoice
    calibration: Path | None = None
    """File that ``nca-edge calibrate`` wrote; None: the session's own, or none."""
    operator: str = "operator"
    """Who counts, for the session's log."""


class LiveCount(LiveRun):
    """A live count with its session."""

    def finish(self) -> RunOutcome:
        """Stop, wait until all is stored, write report and tables."""
        self.stop()
        self.join()
        return finish(self.session, False)


@contextmanager
def begin(request: LiveRequest, say: Callable[[str], None]) -> Iterator[LiveCount]:
    """Open everything but the camera, which ``start`` opens; all is closed at the end.

    Raises
    ------
    UsageError, BundleError, StorageError
        Before anything is counted.
    """
    source = open_uri(request.source)
    name = Path(request.source.partition(":")[0] or "camera")
    asked = RunRequest(name, request.out, request.session, request.um_per_px, request.target, request.choice)
    with open_session(asked) as (session, classifier):
        say(f"session: {session.folder}")
        options = LiveOptions(session.facts.um_per_px, request.target, operator=request.operator)
        live = LiveCount(Reader(source), classifier, session, options)
        try:
            yield live
        finally:
            live.stop()
            live.join()
