"""The model card of a bundle, with its pictures.

Usage: python -m nca_export.card BUNDLE --run RUN --results DIR [--data DIR] [--out DIR]
"""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nca_edge.bundle import Bundle
from nca_edge.errors import MissingExtraError, NcaEdgeError, StorageError, UsageError
from nca_edge.terminal import bar, say
from nca_export.card_source import WRITTEN_BY, Source, read_source
from nca_export.card_text import CONFUSION, COVERAGE, MISTAKES, compose, confusions, credit

CARD = "MODEL_CARD.md"


def pictures(source: Source) -> dict[str, bytes]:
    """PNG files of the card, by name.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    from nca_export.card_pictures import confusion_picture, coverage_picture, sheet
    from nca_train.plots import png

    figures = {
        CONFUSION: confusion_picture(source.where, source.white),
        COVERAGE: coverage_picture(source.where, source.white, source.bundle.manifest.unsure_below),
    }
    if source.mistakes:
        figures[MISTAKES] = sheet(source.where, source.mistakes, credit(source))
    return {name: png(figure) for name, figure in figures.items()}


def with_mistakes(source: Source, data: Path) -> Source:
    """Add the mistakes that the card shows.

    Raises
    ------
    UsageError
        Not the data of the run, or nobody is named whose images they are.
    """
    from nca_export.card_pictures import choose, find_mistakes

    if not source.bundle.manifest.data:
        raise UsageError("--data: the bundle names no source, so nobody can be named for these images; leave --data out.")
    found = find_mistakes(source.bundle.folder, data, source.bundle.manifest.training, bar)
    return replace(source, mistakes=choose(found, [(truth, answer) for _, truth, answer in confusions(source.white)]))


def write(folder: Path, bundle: Bundle, files: dict[str, bytes]) -> None:
    """Write the card beside whatever is in the folder.

    Raises
    ------
    UsageError
        One of the files is a part of the bundle.
    StorageError
        The folder cannot be written.
    """
    parts = {"manifest.json", *(f.name for f in bundle.manifest.files)}
    taken = sorted(parts & set(files)) if folder.resolve() == bundle.folder.resolve() else []
    if taken:
        raise UsageError(f"{folder / taken[0]}: is a part of the bundle; choose another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); choose another --out.") from error


def make_card(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.", metavar="BUNDLE")],
    run: Annotated[Path, typer.Option(help="The run that it was exported from.", metavar="RUN")],
    results: Annotated[Path, typer.Option(help=f"Folder of {', '.join(WRITTEN_BY)}.", metavar="DIR")],
    data: Annotated[Path | None, typer.Option(help="Its training data: shows the worst mistakes.", metavar="DIR")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the card goes; default: into BUNDLE.", metavar="DIR")] = None,
) -> None:
    """Write MODEL_CARD.md of a bundle, and its pictures."""
    source = read_source(bundle, run, results)
    text = compose(source)  # before the images are read: a damaged file is said at once
    try:
        if data is not None:
            source = with_mistakes(source, data)
            text = compose(source)
        drawn = pictures(source)
    except ModuleNotFoundError as error:
        raise MissingExtraError("train", "a model card") from error
    folder = out or bundle
    write(folder, source.bundle, {**drawn, CARD: text.encode()})
    for name in sorted(set(WRITTEN_BY) - set(source.results)):
        say(f"{results / name}: not there; its section says so.")
    typer.echo(folder / CARD)


def main() -> None:
    """Entry point: errors become one sentence on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of folders may hold what is no text
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(make_card)
    try:
        app()
    except NcaEdgeError as error:
        say(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
