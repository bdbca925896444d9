"""What a model card is made of: a bundle, the run that it was exported from, and what was measured with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nca_edge.bundle import Bundle, load_bundle
from nca_edge.errors import UsageError
from nca_train.store import METRICS, read_facts

if TYPE_CHECKING:
    from nca_export.card_pictures import Mistake

WRITTEN_BY = {
    "validation.json": "nca-edge evaluate --data DATA --fold {fold}b --um-per-px {um_per_px:g} --model BUNDLE --json > {file}",
    "clinics.json": "python tests/benchmarks/clinics.py --data SETS --model BUNDLE --json {file}",
    "schedules.json": "python tests/benchmarks/schedules.py --data SETS --model BUNDLE --json {file}",
    "explanations.json": "python tests/benchmarks/explanations.py --data DATA --model BUNDLE --json {file}",
}
"""Result file -> the command that writes it; DATA is the training data, SETS the folder that holds all data sets."""
OF_THE_RUN = {"recipe": "recipe", "seed": "seed", "fold": "fold", "epochs_done": "epochs", "training_minutes": "minutes"}
"""Key in ``run.json`` -> key in the manifest's ``training``: equal where the bundle was exported from the run."""


@dataclass(frozen=True, slots=True)
class Source:
    """All that the card is made of."""

    bundle: Bundle
    facts: dict[str, Any]
    """``run.json``."""
    epochs: list[dict[str, Any]]
    """Rows of ``metrics.jsonl``."""
    results: dict[str, dict[str, Any]]
    """Those of the result files that exist, by file name."""
    mistakes: list[Mistake] | None
    """What the sheet shows; None: the images were not given."""

    @property
    def white(self) -> dict[str, Any]:
        """The evaluation of the white cells of half b."""
        evaluation: dict[str, Any] = self.bundle.manifest.metrics["white_cells"]
        return evaluation

    @property
    def where(self) -> str:
        """What the figures at home are measured on."""
        return f"Half b of fold {self.facts['fold']}, white cells"

    def command(self, file: str) -> str:
        """The command that writes a result file."""
        given = {"fold": self.facts["fold"], "um_per_px": self.facts["recipe"]["data"]["um_per_px"]}
        return WRITTEN_BY[file].format(file=f"RESULTS/{file}", **given)

    def missing(self, file: str) -> str:
        """The sentence that stands in place of a section."""
        return f"Not measured yet: `{self.command(file)}` writes what belongs here."


def read_source(folder: Path, run: Path, results: Path) -> Source:
    """Read and check all but the images.

    Raises
    ------
    BundleError
        The bundle is damaged.
    UsageError
        The run or a result is damaged, or of another bundle.
    """
    bundle = load_bundle(folder)
    facts = read_facts(run)
    training = bundle.manifest.training
    if facts is None or any(key not in facts or facts[key] != training.get(other) for key, other in OF_THE_RUN.items()):
        raise UsageError(f"--run {run}: is not the run that {folder} was exported from; give that one or export again.")
    if not results.is_dir():
        raise UsageError(f"--results {results}: no such folder; make it, and write into it what was measured.")
    epochs = _objects(run / METRICS, lines=True)
    found = {name: _objects(results / name)[0] for name in WRITTEN_BY if (results / name).exists()}
    for name, result in found.items():
        of = result.get("manifest_sha256", bundle.sha256), result.get("model")
        if of != (bundle.sha256, bundle.manifest.name):
            raise UsageError(f"{results / name}: was measured with another bundle than {folder}; measure again or remove it.")
    return Source(bundle, facts, epochs, found, None)


def _objects(path: Path, lines: bool = False) -> list[dict[str, Any]]:
    """The JSON object of a file, or one of each line."""
    try:
        text = path.read_text("utf-8")
        values = [json.loads(part) for part in (text.splitlines() if lines else [text])]
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); write it again.") from error
    if not all(isinstance(value, dict) for value in values):
        raise UsageError(f"{path}: holds something else than JSON objects; write it again.")
    return values
