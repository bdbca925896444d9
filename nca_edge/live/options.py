"""What a live count is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from nca_edge.calibration import Calibration


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What the user asked for."""

    um_per_px: float | None = None
    """Scale; None: estimated from each field."""
    target: int | None = None
    """End at so many counted leukocytes; None: when stopped."""
    calibration: Calibration | None = None
    """Of the microscope: its light is divided out of every field; None: each field's own light alone."""
    view_px: int = 960
    """Long side of the pictures in events, at most."""
    operator: str = "operator"
    """Who takes fields back, for the session's log."""
