"""What several commands share: options, and small helpers of the command line."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nca_edge.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from nca_edge.classifier import ModelChoice


class BackendName(str, Enum):
    """Choices of --backend."""

    auto = "auto"
    onnx = "onnx"
    litert = "litert"
    native = "native"
    numpy = "numpy"


class PrecisionName(str, Enum):
    """Choices of --precision."""

    fp32 = "fp32"
    int8 = "int8"


Model = Annotated[str | None, typer.Option(help="Model bundle: a shipped or installed name, or a folder.", metavar="NAME|DIR")]
Backend = Annotated[BackendName, typer.Option(help="Who computes the model.")]
Precision = Annotated[PrecisionName, typer.Option(help="Which variant of the model.")]
SessionPrecision = Annotated[
    PrecisionName | None, typer.Option(help="Which variant of the model; default: the session's own, else fp32.")
]
Camera = Annotated[bool, typer.Option("--camera", help="This board's own camera, or the USB microscope.")]
Out = Annotated[Path | None, typer.Option(help="New session folder; default ./sessions/SOURCE-N.", metavar="DIR")]
Target = Annotated[int | None, typer.Option(help="Stop at N counted leukocytes.", metavar="N", min=1)]
CalibrationFile = Annotated[
    Path | None, typer.Option("--calibration", help="What nca-edge calibrate wrote, for a camera.", metavar="FILE")
]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: what this board's profile says.", metavar="N", min=0, max=256)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output and nothing else.")]
UmPerPx = Annotated[float | None, typer.Option(help="Scale of the images in um per pixel; without it, estimated.", metavar="X")]
Passes = Annotated[
    int,
    typer.Option(
        help="Look at every cell N times, turned and mirrored: the spread says how far to trust an answer. "
        "0: once, and again only where that leaves it open.",
        metavar="N", min=0, max=8,
    ),
]  # fmt: skip


def choice(
    model: str | None, backend: BackendName, precision: PrecisionName | None, threads: int, passes: int = 0
) -> "ModelChoice":
    """``precision`` None becomes ``auto``, which only a session can resolve."""
    from nca_edge.classifier import ModelChoice

    return ModelChoice(model, backend.value, "auto" if precision is None else precision.value, threads, passes=passes)


def check_scale(um_per_px: float | None) -> None:
    if um_per_px is not None and not 0.01 <= um_per_px <= 2:
        raise UsageError(f"--um-per-px {um_per_px:g}: a microscope gives 0.01 to 2 um per pixel; check the unit.")


def refuse_calibration(calibration: Path | None) -> None:
    """Of a source that is no camera."""
    if calibration is not None:
        raise UsageError(
            "--calibration is for a camera; images of files bring their own light, give --um-per-px for their scale."
        )


def stand(module: str, extra: str, what: str) -> Any:
    """Import a package that stands above the runtime, or say which extra brings what it needs."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(extra, what) from error


def numbered(parent: Path, name: str) -> Path:
    return next(parent / f"{name}-{n}" for n in range(1, 10**6) if not (parent / f"{name}-{n}").exists())
