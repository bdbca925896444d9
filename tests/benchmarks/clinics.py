"""How many cells of other clinics are given the right one of five groups, each cell cut out by a person.

Usage: python tests/benchmarks/clinics.py --data DIR [--model NAME|DIR] [--every N] [--json FILE]
DIR holds chula (boxes.csv and fields) and segwbc1, segwbc2 (manifest.csv and images of one cell). No scale is given. A cell's
answer is the best of the five groups; how often the model itself would have said artefact is told beside it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foreign import GROUPS, best_group, read_cells

from nca_edge.classifier import Classifier, ModelChoice, load
from nca_edge.differential import clopper_pearson
from nca_edge.errors import NcaEdgeError, UsageError
from nca_edge.pipeline import ARTEFACT
from nca_edge.single_cell import read_crop

SETS = ("chula", "segwbc1", "segwbc2")


@dataclass(frozen=True, slots=True)
class Result:
    """What was counted on one set."""

    set: str
    n: int
    accuracy: float
    interval: tuple[float, float]
    """95 %, Clopper-Pearson."""
    recall: dict[str, float | None]
    """By group; None where the set shows no such cell."""
    confusion: list[list[int]]
    """(5, 5): true group (row) against answer (column), in the order of ``GROUPS``."""
    artefact: int
    """Cells whose best class of all is the artefact."""


def measure(folder: Path, classifier: Classifier, every: int) -> Result:
    """Read every n-th cell as ``nca-edge classify`` does."""
    confusion: Counter[tuple[str, str]] = Counter()
    artefact = 0
    for cell in read_cells(folder, every):
        if cell.label not in GROUPS:
            raise UsageError(f"{folder}: the label {cell.label} is none of {', '.join(GROUPS)}; map or remove it.")
        prediction = read_crop(cell.rgb, classifier, None, explain=False).prediction
        confusion[cell.label, best_group(prediction.probabilities, classifier.bundle.manifest)] += 1
        artefact += prediction.label == ARTEFACT
    n, right = confusion.total(), sum(confusion[group, group] for group in GROUPS)
    table = [[confusion[truth, answer] for answer in GROUPS] for truth in GROUPS]
    recall = {group: row[i] / sum(row) if sum(row) else None for i, (group, row) in enumerate(zip(GROUPS, table, strict=True))}
    return Result(folder.name, n, right / n, clopper_pearson(right, n), recall, table, artefact)


def show(result: Result) -> None:
    """Print one set."""
    low, high = result.interval
    print(f"{result.set}: {result.n} cells, group right {result.accuracy:.3f} ({low:.3f} - {high:.3f})", end="")
    print(f", artefact the best class of {result.artefact}")
    print(f"  {'true':<12}{'recall':>7}" + "".join(f"{group:>12}" for group in GROUPS))
    for group, row in zip(GROUPS, result.confusion, strict=True):
        recall = result.recall[group]
        print(f"  {group:<12}{'-' if recall is None else f'{recall:.3f}':>7}" + "".join(f"{count:>12}" for count in row))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", help="name of a shipped bundle or a folder")
    parser.add_argument("--every", type=int, default=1, help="only every n-th cell")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    if given.every < 1:
        parser.error("--every must be 1 or more.")
    results = []
    try:
        classifier = load(ModelChoice(model=given.model))
        for name in SETS:
            results.append(measure(given.data / name, classifier, given.every))
            show(results[-1])
    except NcaEdgeError as error:
        parser.error(str(error))
    if given.json:
        bundle = classifier.bundle
        figures: dict[str, Any] = {
            "model": bundle.manifest.name, "manifest_sha256": bundle.sha256, "groups": GROUPS,
            "sets": [asdict(result) for result in results],
        }  # fmt: skip
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
