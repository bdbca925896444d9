"""Repeated runs summed into the rows of a paper's table, and its figure of accuracy against channels.

Usage: python -m nca_train.table RUN [RUN ...] [--tested NAME=RUN=FILE.json] [--json FILE] [--figure FILE.png]
"""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

import io
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import typer

from nca_edge import RESEARCH_USE
from nca_edge.automaton import Architecture
from nca_edge.errors import BundleError, MissingExtraError, NcaEdgeError, StorageError, UsageError
from nca_edge.terminal import say
from nca_train.store import FACTS, read_facts

NOTES = (
    "accuracy: mean +- standard deviation (n - 1) over the runs; minutes: their mean, with those of the teacher and of the run "
    "each began from.",
    "A validation half selected the epochs of its runs: accuracy on it is optimistic.",
)
BEFORE = ("begun_from", "taught_by")
"""Keys of ``run.json`` that hold the facts of another run."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run folder says."""

    folder: Path
    """As it was given."""
    name: str
    """Of the recipe."""
    method: dict[str, Any]
    """Dotted key -> value of all that repetitions share: the recipe, the sizes, the recipe that it began from."""
    sources: tuple[str, ...]
    """Names of the data sets that it learnt from."""
    architecture: Architecture
    seed: int
    fold: int
    finished: bool
    epoch: int
    """The selected one."""
    accuracy: float
    """Of the selected epoch on the white cells of its validation half, 0..1."""
    minutes: float
    """Of training, with those of its teacher and of the run that it began from."""

    def to_json(self) -> dict[str, Any]:
        """What tells it from its repetitions."""
        return {
            "run": str(self.folder), "seed": self.seed, "fold": self.fold, "finished": self.finished,
            "selected_epoch": self.epoch, "validation_cell_accuracy": self.accuracy, "minutes": self.minutes,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tested:
    """The runs of one row on one test set."""

    name: str
    accuracies: tuple[float, ...]
    """0..1, one a run."""

    @property
    def mean(self) -> float:
        return fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; None: one run has none."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True, slots=True)
class Row:
    """Runs that differ in seed and fold alone."""

    label: str
    """The recipe's name, numbered where other rows share name and channels."""
    runs: tuple[Run, ...]
    tested: tuple[Tested, ...]
    """The validation half first."""

    @property
    def architecture(self) -> Architecture:
        return self.runs[0].architecture

    @property
    def minutes(self) -> float:
        return fmean(run.minutes for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """All numbers; accuracies 0..1."""
        tested = [
            {"on": t.name, "n": len(t.accuracies), "mean": t.mean, "deviation": t.deviation, "accuracies": t.accuracies}
            for t in self.tested
        ]
        return {
            "recipe": self.label, "trained_on": self.runs[0].sources, "architecture": self.architecture.to_json(),
            "parameters": self.architecture.parameters, "macs": self.architecture.macs, "minutes": self.minutes,
            "tested": tested, "runs": [run.to_json() for run in self.runs],
        }  # fmt: skip


def read_run(folder: Path) -> Run:
    """Read ``run.json``.

    Raises
    ------
    UsageError
        It holds no run, or none with a selected epoch.
    """
    facts = read_facts(folder)
    if facts is None:
        raise UsageError(f"{folder}: holds no training run (no {FACTS}); give the folder that nca-edge train wrote.")
    if facts.get("selected") is None:
        raise UsageError(f"{folder}: has no selected epoch; go on with --resume or leave it out.")
    try:
        architecture = Architecture(**facts["architecture"])
        method = {**_flat(facts["recipe"]), **_flat({"architecture": facts["architecture"]})}
        for key in BEFORE:
            method |= _flat({key: (facts.get(key) or {}).get("recipe")})
        return Run(
            folder, str(facts["recipe"]["name"]), method,
            tuple(str(source["name"]) for source in facts["recipe"]["sources"]), architecture,
            int(facts["seed"]), int(facts["fold"]), bool(facts["finished"]), int(facts["selected"]["epoch"]),
            _share(facts["selected"]["validation_cell_accuracy"]),
            _minutes(facts),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError, BundleError) as error:
        raise UsageError(f"{folder / FACTS}: is not the record of a training run ({error}); train again.") from error


def _flat(table: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; of the data sets, only the names."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if key == "sources":
            value = sorted(source["name"] for source in value)
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
    return flat


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"accuracy {value!r} is no number from 0 to 1")
    return float(value)


def read_tested(texts: Iterable[str], runs: Sequence[Run]) -> dict[str, dict[Path, float]]:
    """Read evaluations, given as ``NAME=RUN=FILE.json``: name -> run folder -> accuracy.

    Raises
    ------
    UsageError
        Another form, an unknown run, a second evaluation of a run on the same set, a file without an accuracy.
    """
    folders = {run.folder.resolve(): run.folder for run in runs}
    tested: dict[str, dict[Path, float]] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        run, _, file = rest.partition("=")
        if not (name and run and file):
            raise UsageError(f"--tested {text}: must be NAME=RUN=FILE.json, such as chula=runs/edge-1=chula.json.")
        folder = folders.get(Path(run).resolve())
        if folder is None:
            raise UsageError(f"--tested {text}: {run} is none of the runs; give it as a RUN too.")
        if folder in tested.setdefault(name, {}):
            raise UsageError(f"--tested {text}: {name} was given for {run} already; leave one out.")
        try:
            tested[name][folder] = _share(json.loads(Path(file).read_text("utf-8"))["accuracy"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"--tested {text}: holds no evaluation ({error}); give what evaluate --json printed.") from error
    return tested


def rows(runs: Sequence[Run], tested: dict[str, dict[Path, float]]) -> tuple[Row, ...]:
    """Group repetitions, in the order in which the runs were given.

    Raises
    ------
    UsageError
        A run was given twice, or has the recipe, seed and fold of another: a deviation over copies says nothing.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        group = groups.setdefault(json.dumps(run.method, sort_keys=True), [])
        for other in group:
            if (other.seed, other.fold) == (run.seed, run.fold):
                raise UsageError(f"{run.folder} repeats {other.folder}: same recipe, seed and fold; leave one out.")
        group.append(run)
    places = [_place(group[0]) for group in groups.values()]
    made: list[Row] = []
    for n, group in enumerate(groups.values()):
        number = f" #{places[:n].count(places[n]) + 1}" if places.count(places[n]) > 1 else ""
        halves = ", ".join(f"{fold}a" for fold in sorted({run.fold for run in group}))
        sets = [Tested(f"validation half {halves}, white cells", tuple(run.accuracy for run in group))]
        for test, by_run in tested.items():
            accuracies = tuple(by_run[run.folder] for run in group if run.folder in by_run)
            sets += [Tested(test, accuracies)] if accuracies else []
        made.append(Row(group[0].name + number, tuple(group), tuple(sets)))
    return tuple(made)


def _minutes(facts: dict[str, Any]) -> float:
    """Training minutes, those of its teacher and of the run that it began from included, and so on; each run counts once."""
    seen: dict[str, float] = {}
    left = [facts]
    while left:
        run = left.pop()
        seen[json.dumps(run, sort_keys=True)] = float(run["training_minutes"])
        left += [run[key] for key in BEFORE if run.get(key)]
    return sum(seen.values())


def _place(run: Run) -> tuple[str, int]:
    """What tells a row from another at first sight."""
    return run.name, run.architecture.channels


def differences(table: Sequence[Row]) -> list[str]:
    """A sentence for each set of rows that share name and channels: the keys in which they differ."""
    sentences = []
    for place in dict.fromkeys(_place(row.runs[0]) for row in table):
        same = [row for row in table if _place(row.runs[0]) == place]
        methods = [row.runs[0].method for row in same]
        apart = {key for m in methods for key in m if any(o.get(key) != m[key] for o in methods)}
        keys = sorted({next((name for name in BEFORE if key.startswith(name + ".")), key) for key in apart})
        sentences += [f"{', '.join(row.label for row in same)} differ in {', '.join(keys)}."] if keys else []
    return sentences


def table_text(table: Sequence[Row]) -> str:
    """The plain table for people."""
    lines = [("recipe", "channels", "trained on", "tested on", "accuracy, %", "runs", "parameters", "GMAC", "minutes")]
    for row in table:
        for place, test in enumerate(row.tested):
            spread = "" if test.deviation is None else f" +- {100 * test.deviation:.1f}"
            measured = (test.name, f"{100 * test.mean:5.1f}{spread}", f"n = {len(test.accuracies)}")
            a = row.architecture
            front = (row.label, str(a.channels), ", ".join(row.runs[0].sources) or "-")
            back = (f"{a.parameters:,}", f"{a.macs / 1e9:.3g}", f"{row.minutes:.1f}")
            lines.append((*front, *measured, *back) if place == 0 else ("", "", "", *measured, "", "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    numbers = (1, 6, 7, 8)
    text = [
        "  ".join(f"{cell:{'>' if column in numbers else '<'}{widths[column]}}" for column, cell in enumerate(line)).rstrip()
        for line in lines
    ]
    early = [str(run.folder) for row in table for run in row.runs if not run.finished]
    stopped = [f"{folder}: stopped early; counted with what it had learnt." for folder in early]
    return "\n".join([*text, "", *NOTES, *differences(table), *stopped, RESEARCH_USE])


def _png(table: Sequence[Row]) -> bytes:
    try:
        from nca_train.plots import channels_figure, png
    except ModuleNotFoundError as error:
        raise MissingExtraError("train", "--figure") from error
    return png(channels_figure(table))


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); choose another file.") from error


def summarise(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    tested: Annotated[
        list[str] | None, typer.Option(help="What nca-edge evaluate --json said of a run.", metavar="NAME=RUN=FILE.json")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers here.", metavar="FILE")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw accuracy against channels here.", metavar="FILE.png")] = None,
) -> None:
    """Sum repeated runs into the rows of a table: accuracy over seeds and folds, parameters, work, minutes."""
    read = [read_run(folder) for folder in runs]
    table = rows(read, read_tested(tested or (), read))
    if json_file is not None:
        document = {"rows": [row.to_json() for row in table], "notes": [*NOTES, *differences(table)], "notice": RESEARCH_USE}
        _write(json_file, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    if figure is not None:
        _write(figure, _png(table))
    typer.echo(table_text(table))


def main() -> None:
    """Entry point: errors become one sentence on stderr and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of data sets and folders may hold what is no text
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(summarise)
    try:
        app()
    except NcaEdgeError as error:
        say(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
