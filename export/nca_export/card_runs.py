"""What a model card says of the run: what it cost, and how to make it again."""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from nca_export.card_source import WRITTEN_BY, Source
from nca_export.card_table import table
from nca_train.recipe import load_recipe, shipped_recipes
from nca_train.store import FACTS


def _earlier(facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The runs that a run began from and learnt from, each after its own and once, and what they were to it."""
    before = [(role, facts.get(key)) for key, role in (("begun_from", "begun from"), ("taught_by", "teacher"))]
    steps: list[tuple[str, dict[str, Any]]] = []
    for step in (step for role, run in before if run for step in (*_earlier(run), (role, run))):
        if step not in steps:  # one teacher may have taught several
            steps.append(step)
    return steps


def cost(s: Source) -> str:
    """The section: the minutes of the run, and of all that it needs."""
    f = s.facts
    runs = [*_earlier(f), ("this run", f)]
    rows = [(k, r["recipe"]["name"], str(r["epochs_done"]), f"{r['training_minutes']:.1f}") for k, r in runs]
    total = sum(r["training_minutes"] for _, r in runs)
    speed = f", {median(row['images_per_s'] for row in s.epochs):.0f} images/s (median over epochs)" if s.epochs else ""
    selected = f" The weights are those of epoch {f['selected']['epoch']}." if f["selected"] else ""
    early = "" if f["finished"] else f" It was stopped early: the recipe asks for {f['recipe']['train']['epochs']} epochs."
    return (
        table(("Run", "recipe", "epochs", "minutes"), rows)
        + f"\n\n{total:.1f} minutes in all. This run: processes {f['processes']}, CPU threads of each {f['cpu_threads']}, "
        f"device {f['device']}{speed}.{selected}{early}"
    )


def _training(facts: dict[str, Any], fold: int, out: str, made: dict[str, str]) -> list[str]:
    """Commands that train a run, those of the runs that it needs first.

    Parameters
    ----------
    out : names the run's folder
    made : facts of a run, as JSON -> folder, of the runs that earlier commands made; grows
    """
    lines, options = [], ""
    for key, option in (("begun_from", "init"), ("taught_by", "teacher")):
        if facts.get(key):
            known = json.dumps(facts[key], sort_keys=True)
            if known not in made:
                place = f"{out}-{option.upper()}"
                lines += _training(facts[key], fold, place, made)
                made[known] = place
            options += f" --{option} {made[known]}"
    seed = f" --seed {facts['seed']}" if "seed" in facts else ""
    return [*lines, f"nca-edge train {facts['recipe']['name']} --data DATA --fold {fold}{seed} --out {out}{options}"]


def again(s: Source) -> str:
    """The section: the commands that make the run, the bundle, its results and its card once more."""
    f, m = s.facts, s.bundle.manifest
    name, earlier = f["recipe"]["name"], _earlier(f)
    *lines, last = _training(f, f["fold"], "RUN", {})
    launch = f"torchrun --nproc-per-node {f['processes']} --no-python " if f["processes"] > 1 else ""
    lines += [f"{launch}{last} --device {'cpu' if f['device'] == 'cpu' else 'cuda'}"]
    options = "" if m.mask_step is None else f" --mask-step {m.mask_step}"
    options += " --int8" if any(file.precision == "int8" for file in m.files) else ""
    lines += [f"nca-edge export RUN --data DATA --out BUNDLE{options}"]
    lines += [s.command(file) for file in WRITTEN_BY]
    lines += ["python -m nca_export.card BUNDLE --run RUN --results RESULTS --data DATA"]
    shipped = name in shipped_recipes() and load_recipe(name).to_json() == f["recipe"]
    stands = "is shipped" if shipped else "is not among those shipped now: it stands whole in manifest.json, under training"
    others = f" What came before stands in {FACTS}, under taught_by and begun_from, with the epochs made." if earlier else ""
    return "```\n" + "\n".join(lines) + f"\n```\n\nThe recipe `{name}` {stands}.{others} DATA is the training data, SETS " \
        "the folder of all data sets."  # fmt: skip
