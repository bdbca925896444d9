"""Beginning and ending a live count: camera, session and model, and the report at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nca_edge.calibration import Calibration, of_document, read_calibration
from nca_edge.camera import Reader, Source, open_uri
from nca_edge.classifier import ModelChoice
from nca_edge.errors import UsageError
from nca_edge.live.options import LiveOptions
from nca_edge.live.run import LiveRun
from nca_edge.runner import RunOutcome, RunRequest, finish, open_session
from nca_edge.session import Session, SlideFacts


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
    operator: str = ""
    """Who counts, for the session's log."""


class LiveCount(LiveRun):
    """A live count with its session."""

    def finish(self, interrupted: bool = False) -> RunOutcome:
        """Stop, wait until all is stored, write report and tables; ``interrupted``: the count is to go on another time."""
        self.stop()
        self.join()
        return finish(self.session, interrupted)


@contextmanager
def begin(request: LiveRequest, say: Callable[[str], None], source: Source | None = None) -> Iterator[LiveCount]:
    """Open camera, session and model; all is closed at the end.

    Parameters
    ----------
    source : the camera, where the caller has made it; else what ``request.source`` names

    Raises
    ------
    UsageError, BundleError, StorageError, CameraError
        Before anything is counted; where the camera cannot be opened, no session is begun.
    """
    if request.out is not None and request.session is not None:
        raise UsageError("--out begins a session and --session goes on with one: give one of them.")
    given = read_calibration(request.calibration) if request.calibration is not None else None
    um_per_px = request.um_per_px if request.um_per_px is not None or given is None else given.um_per_px
    asked = RunRequest(Path(_name(request)), request.out, request.session, um_per_px, request.target, request.choice)
    kept = {} if given is None else given.document()
    slide = SlideFacts(operator=request.operator, target=request.target, calibration=kept)
    with Reader(source or open_uri(request.source)) as reader, open_session(asked, slide) as (session, classifier):
        calibration = _fixed(session, given)
        say(f"session: {session.folder}")
        options = LiveOptions(
            session.facts.um_per_px, request.target, calibration, operator=request.operator or "operator at the microscope"
        )
        live = LiveCount(reader, classifier, session, options)
        if live.earlier:
            say(live.earlier)
        try:
            yield live
        finally:
            live.stop()
            live.join()


def _fixed(session: Session, given: Calibration | None) -> Calibration | None:
    """The calibration that the session began with; UsageError where another one is given."""
    kept = session.slide.calibration
    own = of_document(kept, f"The calibration in {session.folder}") if kept else None
    if given is not None and (own is None or own.document()["light_sha256"] != given.document()["light_sha256"]):
        raise UsageError(
            f"The session {session.folder} began with {'another calibration' if own else 'no calibration'}: leave "
            "--calibration away to go on, or start a new session with --out."
        )
    return own


def _name(request: LiveRequest) -> str:
    """What a session folder is called after."""
    scheme, colon, _ = request.source.partition(":")
    return scheme if colon else Path(request.source).stem
