"""Commands for the workstation: train, export."""

# No `from __future__ import annotations` here: typer reads the annotations of commands at run time.

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from nca_edge.cli.options import Threads, numbered, stand
from nca_edge.errors import UsageError
from nca_edge.formats import FORMATS, named
from nca_edge.terminal import bar, say

_either = " or ".join(form.name for form in FORMATS)


class Device(str, Enum):
    """Choices of --device."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe: a TOML file or the name of a shipped one.", metavar="RECIPE")],
    data: Annotated[Path, typer.Option(help="Labelled images with folds: manifest.csv (file,label,fold).", metavar="DIR")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default ./runs/RECIPE-N.", metavar="RUN")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    max_minutes: Annotated[float, typer.Option(help="Stop when these have passed; go on with --resume.", metavar="M")] = float(
        "inf"
    ),
    fold: Annotated[int, typer.Option(help="Fold that validates.", metavar="K")] = 3,
    seed: Annotated[int, typer.Option(help="Of everything random.", metavar="S")] = 0,
    init: Annotated[Path | None, typer.Option(help="Begin with the weights of this run.", metavar="RUN")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Learn from the teacher of this run.", metavar="RUN")] = None,
    device: Annotated[Device, typer.Option(help="Where it is computed; auto takes a GPU where there is one.")] = Device.auto,
    threads: Threads = 0,
) -> None:
    """Train a model on a workstation (needs the train extra); under torchrun on several GPUs or hosts."""
    loop = stand("nca_train.loop", "train", "training")
    load_recipe = stand("nca_train.recipe", "train", "training").load_recipe
    chosen = load_recipe(recipe)
    if resume and out is None:
        raise UsageError("--resume needs --out RUN: which run shall go on?")
    folder = out or numbered(Path("runs"), chosen.name)
    job = loop.Job(chosen, data, folder, fold, seed, resume, max_minutes, threads, init, device.value, teacher)
    typer.echo(loop.train(job, say, bar))


def export(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A run, a bundle or a released .pt; default: the newest finished run in ./runs, else the shipped model.",
            metavar="RUN",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data of the run: calibrates and measures the model.", metavar="DIR")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Bundle folder; default ./bundles/NAME.", metavar="DIR")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also in 8 bits.")] = False,
    form: Annotated[
        list[str] | None, typer.Option("--format", help=f"Only {_either}; may be repeated.", metavar="NAME")
    ] = None,
    mask_step: Annotated[
        int | None, typer.Option(help="Step whose state gives the masks; default the last.", metavar="N")
    ] = None,
) -> None:
    """Export a run, a bundle or released weights to a verified bundle (needs the export extra)."""
    exporter = stand("nca_export.bundle", "export", "exporting")
    names = tuple(dict.fromkeys(named(name).name for name in form or ()))
    typer.echo(exporter.export(exporter.Request(source, data, out, names, int8, mask_step), say))
