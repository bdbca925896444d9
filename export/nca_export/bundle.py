"""A run, a bundle or released weights become a bundle whose every graph has passed the parity gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nca_edge.backends import NumpyBackend
from nca_edge.backends.native.library import missing
from nca_edge.bundle import Bundle
from nca_edge.bundle_writer import Contents, packed, refuse_other, write_bundle
from nca_edge.classifier import ModelChoice, load
from nca_edge.errors import BundleError, MissingStepError, NcaEdgeError, UsageError
from nca_edge.formats import FORMATS, Format
from nca_edge.records import Image32
from nca_export.parity import Parity, measure
from nca_export.prepare import REACH, Prepared, prepare_bundle, prepare_released, prepare_run
from nca_export.run import Run
from nca_export.source import find_source
from nca_export.variants import runner
from nca_train.patches import ARTEFACT


@dataclass(frozen=True, slots=True)
class Request:
    """An export as the user asked for it."""

    source: Path | None = None
    """Run, bundle or released state dict; None: the newest finished run, else the shipped bundle."""
    data: Path | None = None
    """The data of the run: calibrates, and measures what each variant gets right."""
    out: Path | None = None
    formats: tuple[str, ...] = ()
    """Names; none: all."""
    int8: bool = False
    """Besides fp32."""
    mask_step: int | None = None
    """Step whose state gives the masks; None: the last, or the bundle's own."""


def export(request: Request, say: Callable[[str], None]) -> Path:
    """Write a verified bundle.

    Raises
    ------
    UsageError
        Nothing of that kind to export, or not its data.
    BundleError
        The source is damaged, or not one variant passed; nothing is written then.
    NcaEdgeError
        Some variants did not pass and are left out of the bundle that was written.
    """
    if request.data is not None and not request.data.is_dir():
        raise UsageError(f"--data {request.data}: no such folder; check the path.")
    source, where = find_source(request.source)
    if request.out is not None:
        refuse_other(request.out)  # before the work, not after it
    prepared = _prepare(source, where, request, say)
    graphs: dict[str, bytes] = {}
    measured: list[dict[str, Any]] = []
    refused: list[str] = []
    cells = prepared.normalised(prepared.cells)
    reference = _reference(prepared, cells)
    wanted = _wanted(request, say)
    for form, precision in wanted:
        parity = measure(form.name, precision, prepared.automaton, cells, reference)
        if problem := parity.problem():
            refused.append(problem)
            continue
        graphs[parity.file] = parity.graph
        measured.append({**parity.to_json(), **_right(prepared, form, graphs[parity.file])})
        say(_sentence(parity, measured[-1]))
    if not graphs:
        raise BundleError("\n".join([*refused, "nothing was written: no variant passed."]))
    folder = request.out or Path("bundles") / prepared.manifest.name
    write_bundle(folder, _contents(prepared, graphs, measured))
    for form, precision in wanted:
        if form.file(precision) in graphs:
            load(ModelChoice(str(folder.resolve()), form.name, precision, trial=False))
            say(f"{form.name} {precision} reproduces the golden cells")
    if refused:
        raise NcaEdgeError("\n".join([*refused, f"{folder}: written without them."]))
    return folder


def _prepare(source: Run | Bundle | Path, where: Path, request: Request, say: Callable[[str], None]) -> Prepared:
    if isinstance(source, Run):
        return prepare_run(source, where, request.data, request.mask_step, say)
    if isinstance(source, Bundle):
        if request.data is not None:
            say("--data is not used: a bundle keeps what its 8-bit graphs are calibrated by.")
        return prepare_bundle(source, request.mask_step)
    return prepare_released(source, request.data, say)


def _wanted(request: Request, say: Callable[[str], None]) -> list[tuple[Format, str]]:
    """What can be written and measured here of what was asked for; no format named means all.

    Raises
    ------
    UsageError
        A format that was named cannot be had like this.
    """
    precisions = ("fp32", "int8") if request.int8 else ("fp32",)
    wanted = [(form, p) for form in FORMATS if form.name in (request.formats or (form.name,)) for p in precisions]
    for form in {form for form, _ in wanted if form.name in request.formats}:
        if not set(form.precisions) & set(precisions):
            raise UsageError(f"--format {form.name}: holds 8 bits alone; add --int8.")
    if request.int8 and any(form.name == "native" for form, _ in wanted) and (why := missing()) is not None:
        if "native" in request.formats:
            raise MissingStepError(why)
        say(f"native is left out: {why}; the other formats are written")
        wanted = [(form, p) for form, p in wanted if form.name != "native"]
    return [(form, p) for form, p in wanted if p in form.precisions]


def _reference(prepared: Prepared, images: Image32) -> NDArray[np.float32]:
    """The reference's logits of normalised cells."""
    m = prepared.automaton
    return NumpyBackend(m.architecture, m.weights, m.fire)(images).logits


def _right(prepared: Prepared, form: Format, graph: bytes) -> dict[str, Any]:
    """What a variant gets right of the labelled white cells, an artefact answer being an error; empty without labels."""
    if prepared.labelled is None:
        return {}
    classes = np.array(prepared.manifest.classes)
    white = classes[prepared.labelled.labels] != ARTEFACT
    images = prepared.normalised(prepared.labelled.images[white])
    answers = runner(form.name, graph)(images)["logits"].argmax(1)
    return {"labelled": len(images), "right": int((answers == prepared.labelled.labels[white]).sum())}


def _sentence(parity: Parity, row: dict[str, Any]) -> str:
    right = f", {row['right']} of {row['labelled']} labelled cells right" if "right" in row else ""
    return (
        f"{parity.file}: {parity.agreement:.1%} of {parity.n} answers as the reference's, "
        f"logits within {parity.logits:.1g} of their scale, state within {parity.state:.1g}{right}"
    )


def _contents(prepared: Prepared, graphs: dict[str, bytes], measured: list[dict[str, Any]]) -> Contents:
    """All files of the bundle."""
    m = prepared.automaton
    golden = prepared.normalised(prepared.golden)
    logits = {"logits": _reference(prepared, golden)}
    for form in FORMATS:
        for precision in form.precisions:
            file = form.file(precision)
            if file in graphs:
                logits[f"{form.name}-{precision}"] = runner(form.name, graphs[file])(golden)["logits"]
    files = dict(graphs)
    if m.reach is not None:
        files[REACH] = packed({name: getattr(m.reach, name) for name in ("low", "high", "hidden", "delta")})
    manifest = replace(prepared.manifest, metrics={**prepared.manifest.metrics, "variants": measured})
    return Contents(manifest, m.weights, m.fire, {"views": prepared.golden, **logits}, files)
