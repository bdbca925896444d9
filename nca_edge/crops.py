"""`nca-edge classify` and `nca-edge evaluate`: images of one white cell each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nca_edge import RESEARCH_USE, crop_files
from nca_edge.camera import list_images, read_image
from nca_edge.classifier import ModelChoice, load
from nca_edge.crop_files import Wishes
from nca_edge.errors import InputError, UsageError
from nca_edge.evaluate import Evaluation, Judged, Vocabulary, score
from nca_edge.labelled import LabelledImage, half, read_labelled
from nca_edge.passes import TURNS
from nca_edge.records import Explanation
from nca_edge.single_cell import CropReading, read_crop
from nca_edge.trust import STABLE_CELLS, Auditor, Trust, trust_text


def classify(
    images: list[Path],
    choice: ModelChoice,
    um_per_px: float | None,
    wishes: Wishes = Wishes(),  # noqa: B008  (frozen)
) -> Iterator[dict[str, Any]]:
    """Name each image, in the order given; a folder stands for the images in it.

    Yields
    ------
    As DESIGN section 5 has it: ``file, label, confidence, ...``, and ``no_cell``, the reason, where an image shows none; for a
    file that failed ``file, error``.
    """
    listed = [path for given in images for path in (list_images(given) if os.path.isdir(given) else [given])]
    crop_files.check(listed, wishes)
    classifier = load(choice)
    classifier.check(wishes.asked)
    asked = replace(wishes.asked, looks=0 if wishes.explain is None or choice.passes else len(TURNS))
    crop_files.make_folders(wishes)
    for given in listed:
        try:
            reading = read_crop(read_image(given), classifier, um_per_px, asked=asked)
        except InputError as error:
            yield {"file": str(given), "error": _reason(given, error)}
            continue
        if reading.explanation is None:
            raise RuntimeError("read_crop explains unless told otherwise")
        crop_files.write(given, reading, classifier, wishes)
        yield _row(given, reading, reading.explanation)


def _reason(path: Path, error: InputError) -> str:
    """The sentence without the file's name, which stands beside it wherever it is shown."""
    return str(error).removeprefix(f"{path.name}: ")


def _row(given: Path, reading: CropReading, explanation: Explanation) -> dict[str, Any]:
    prediction = reading.prediction
    return {
        "file": str(given), "label": prediction.label, "confidence": round(prediction.confidence, 6),
        "unsure": prediction.unsure, "passes": prediction.passes, "spread": _rounded(prediction.spread),
        "mask_agreement": _rounded(explanation.mask_agreement),
        "probabilities": {name: round(p, 6) for name, p in prediction.probabilities.items()},
        "top_channels": [
            {"channel": c.channel, "relevance": round(c.relevance, 6), "peak": list(c.peak)} for c in explanation.top_channels
        ],
        "explained": explanation.label, "against": explanation.against, "explained_looks": explanation.looks,
        "logit": _rounded(explanation.logit),
        "bias_share": _rounded(explanation.bias_share), "epsilon_share": _rounded(explanation.epsilon_share),
        "outside_share": _rounded(explanation.outside_share),
        "rests_on_background": crop_files.flag(reading) is not None,
        "measures": {name: _rounded(value) for name, value in asdict(explanation.measures).items()},
        "um_per_px": round(reading.scale.um_per_px, 6), "scale_source": reading.scale.source,
        **({} if reading.no_cell is None else {"no_cell": reading.no_cell}),
    }  # fmt: skip


def _rounded(value: Any) -> Any:
    return round(value, 6) + 0.0 if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """What the user asked for."""

    data: Path
    um_per_px: float | None
    mapping: dict[str, str | None]
    """Data label -> class, group, or None to leave it out."""
    fold: str | None
    """Only this fold (``3``) or this half of it (``3b``); None: all."""
    explanations: bool = False
    """Also how far the explanations can be trusted."""


@dataclass(frozen=True, slots=True)
class EvaluateOutcome:
    """The result and what was left out of it."""

    model: str
    manifest_sha256: str
    backend: str
    precision: str
    result: Evaluation
    failures: tuple[str, ...]
    """One sentence for each image that could not be read."""
    skipped: dict[str, int]
    """Label that means nothing to the model -> images."""
    scale_sources: dict[str, int]
    """How the scale of so many crops was known."""
    trust: Trust | None = None
    """Of the explanations; None where it was not asked for."""

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return {
            "model": self.model, "manifest_sha256": self.manifest_sha256, "backend": self.backend,
            "precision": self.precision, **self.result.to_json(),
            "failures": list(self.failures), "skipped": self.skipped, "scale_sources": self.scale_sources,
            **({} if self.trust is None else {"explanations": self.trust.to_json()}),
            "notice": RESEARCH_USE,
        }  # fmt: skip


def evaluate(request: EvaluateRequest, choice: ModelChoice, progress: Callable[[int, int], None]) -> EvaluateOutcome:
    """Judge a model on labelled crops.

    Raises
    ------
    UsageError
        No such data or fold, or a map that does not fit the model.
    InputError
        Not one image could be read.
    """
    listed = read_labelled(request.data)
    if request.fold is not None:
        listed = _of_fold(listed, request.fold)
        if not listed:
            raise UsageError(f"{request.data}: has no image of fold {request.fold}; leave --fold out or choose another.")
    classifier = load(choice)
    manifest = classifier.bundle.manifest
    vocabulary = Vocabulary(manifest.classes, manifest.groups, request.mapping, (image.label for image in listed))
    chosen = [image for image in listed if image.label in vocabulary.truth_of]
    judged: list[Judged] = []
    failures: list[str] = []
    sources: Counter[str] = Counter()
    auditor = Auditor(classifier, choice, len(chosen) // STABLE_CELLS) if request.explanations else None
    for done, image in enumerate(chosen, start=1):
        try:
            image8 = read_image(request.data / image.file)
            reading = read_crop(image8, classifier, request.um_per_px, explain=auditor is not None)
        except InputError as error:
            failures.append(f"{image.file}: {_reason(Path(image.file), error)}")
        else:
            p = reading.prediction
            judged.append(Judged(image.file, vocabulary.truth_of[image.label], *vocabulary.answer(p), p.unsure))
            sources[reading.scale.source] += 1
            if auditor is not None:
                auditor.add(reading, judged[-1].truth == judged[-1].answer)
        progress(done, len(chosen))
    if failures and not judged:
        raise InputError(f"{request.data}: none of the {len(failures)} images could be read; the first: {failures[0]}")
    skipped = Counter(image.label for image in listed if image.label in vocabulary.skipped)
    return EvaluateOutcome(
        manifest.name,
        classifier.bundle.sha256,
        classifier.backend.name,
        classifier.precision,
        score(judged),
        tuple(failures),
        dict(skipped),
        dict(sources),
        None if auditor is None else auditor.result(),
    )


def _of_fold(listed: list[LabelledImage], fold: str) -> list[LabelledImage]:
    given = re.fullmatch(r"([0-9]+)([ab]?)", fold)
    if given is None:
        raise UsageError(f"--fold {fold}: give a number, or a number and a half, such as 3 or 3b.")
    number, wanted = int(given[1]), given[2] or "ab"
    return [image for image in listed if image.fold == number and half(image.file) in wanted]


def evaluation_text(outcome: EvaluateOutcome) -> str:
    """The plain table for people."""
    r = outcome.result
    sure = "" if r.accuracy_when_sure is None else f", {r.accuracy_when_sure:.3f} of the answers that are not unsure"
    f1, error = r.macro_f1_interval, r.calibration_error_interval
    lines = [
        f"{outcome.model} ({outcome.backend} {outcome.precision}), n = {r.n}",
        f"accuracy {r.accuracy:.3f} ({r.accuracy_low:.3f} - {r.accuracy_high:.3f}), "
        f"macro-F1 {r.macro_f1:.3f} ({f1[0]:.3f} - {f1[1]:.3f})",
        f"calibration error {r.calibration_error:.3f} ({error[0]:.3f} - {error[1]:.3f})",
        f"not unsure: {r.coverage:.3f} of the crops{sure}",
        "",
        f"{'':<24}{'n':>6}{'recall':>8}   95 % interval   {'precision':>9}",
    ]
    for c in r.classes:
        precision = "-" if c.precision is None else f"{c.precision:.3f}"
        lines.append(f"{c.name:<24}{c.n:>6}{c.recall:>8.3f}   {c.low:.3f} - {c.high:.3f}   {precision:>9}")
    width = max(len(name) for name in r.labels) + 2
    lines += ["", "confusion (row: label, column: answer)"]
    lines += [" " * width + "".join(f"{i + 1:>6}" for i in range(len(r.labels)))]
    lines += [
        f"{name:<{width}}" + "".join(f"{v:>6}" for v in row) + f"   {i + 1}"
        for i, (name, row) in enumerate(zip(r.labels, r.confusion, strict=True))
    ]
    lines += [] if outcome.trust is None else ["", trust_text(outcome.trust)]
    return "\n".join([*lines, "", RESEARCH_USE])
