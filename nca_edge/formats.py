"""The kinds of graph files that a bundle may hold: what drives exporter, help and benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from nca_edge.errors import UsageError

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of graph file."""

    name: str
    """As on the command line, and of the backend that runs it."""
    suffix: str
    """Of the file."""
    precisions: tuple[str, ...]
    """That it can be written in."""
    extra: str | None
    """Optional part of the installation that the device needs for it; None: the bare one runs it."""
    operators: str
    """What a runtime must know."""

    def file(self, precision: str) -> str:
        """Name of the graph file of that precision in a bundle."""
        return f"model{'' if precision == 'fp32' else '.' + precision}{self.suffix}"


FORMATS = (
    Format(
        "onnx", ".onnx", PRECISIONS, None, "ONNX opset 18; int8 also QLinearConv and QGemm of com.microsoft, ONNX Runtime's own"
    ),
    Format("litert", ".tflite", PRECISIONS, "litert", "TFLite built-in operators that the XNNPACK delegate takes"),
    Format("native", ".npz", ("int8",), None, "none: numbers for the compiled step, which the installation brings"),
)


def named(name: str) -> Format:
    """The format of that name.

    Raises
    ------
    UsageError
        There is none; the sentence names the nearest.
    """
    names = {key: form for form in FORMATS for key in (form.name, form.suffix.lstrip("."))}
    for form in FORMATS:
        if form.name == name:
            return form
    near = get_close_matches(name.lower().lstrip("."), names, 1, 0.4)
    *others, last = (form.name for form in FORMATS)
    known = f"{', '.join(others)} and {last}"
    hint = f"did you mean {names[near[0]].name}? " if near else ""
    raise UsageError(f"--format {name}: {hint}known are {known}.")


def format_of(file: str) -> tuple[str, str] | None:
    """(format, precision) of a file of a bundle; None where it is no graph."""
    known = {form.file(precision): (form.name, precision) for form in FORMATS for precision in form.precisions}
    return known.get(file)
