"""Recipes: every key known, typed and checked before the first step."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from nca_edge.errors import UsageError
from nca_train.recipe import Fields, Recipe, load_recipe, parse_recipe, shipped_recipes

MINIMAL: dict[str, Any] = {
    "name": "tiny",
    "model": {"grid": 8, "fold": 1, "channels": 8, "hidden": 8, "steps": 4, "pool": "max", "update": "half-lattice", "head": 8},
    "view": {"view_um": 8.0},
    "data": {"um_per_px": 0.5},
    "train": {"epochs": 2, "batch": 4, "learning_rate": 0.01},
}
FIELDS = {"folder": "fields", "um_per_px": 0.1, "patches": 5, "platelets": 2}
SOURCE = {"name": "a", "licence": "MIT", "attribution": "b", "used_for": "c"}


def table(**changes: Any) -> dict[str, Any]:
    """The minimal recipe; ``train__epochs=3`` changes one entry, a value of None leaves it out."""
    made = copy.deepcopy(MINIMAL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = made
        for parent in parents:
            inner = inner[parent]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    return made


def test_minimal_recipe() -> None:
    recipe = parse_recipe(MINIMAL)
    assert (recipe.name, recipe.fields, recipe.sources, recipe.train.ema) == ("tiny", None, [], 0.0)
    assert recipe.model.architecture(classes=3).classes == 3
    train = recipe.train
    assert (train.decay, train.focal_gamma, train.exits, train.consistency, train.checkpoint_steps) == (0, 0, [], 0, 0)
    assert parse_recipe(table(fields=FIELDS)).fields == Fields("fields", 0.1, 5, 2, white_cells=False)


def test_pool_of_maxima_and_means_doubles_the_features() -> None:
    architecture = parse_recipe(table(model__pool="max+mean", train__exits=[1, 3])).model.architecture(classes=3)
    assert architecture.features == 16 and architecture.shapes()["head1"] == (8, 16)


def test_whole_number_where_a_float_is_expected() -> None:
    recipe = parse_recipe(table(view__view_um=8, train__learning_rate=1))
    assert type(recipe.view.view_um) is float and recipe.view.view_um == 8.0


@pytest.mark.parametrize(
    "changed, said",
    [
        (table(colour="red"), "unknown key colour"),
        (table(train__epoch=3), "unknown key train.epoch"),
        (table(augment={"blur": 1.0}), "unknown key augment.blur"),
        (table(fields={**FIELDS, "file": "x"}), "unknown key fields.file"),
        (table(sources=[SOURCE, {**SOURCE, "year": "2020"}]), "unknown key sources[1].year"),
        (table(name=None), "name is missing"),
        (table(model=None), "give either model or teacher"),
        (table(model__steps=None), "model.steps is missing"),
        (table(fields={"folder": "x"}), "fields.um_per_px is missing"),
        (table(sources=[{"name": "a"}]), "sources[0].licence is missing"),
        (table(train__epochs=True), "train.epochs must be int"),
        (table(train__epochs=2.0), "train.epochs must be int"),
        (table(train__learning_rate=False), "train.learning_rate must be float"),
        (table(train__learning_rate="1e-3"), "train.learning_rate must be float"),
        (table(train__bf16=1), "train.bf16 must be bool"),
        (table(name=7), "name must be str"),
        (table(data__exclude="basophil"), "data.exclude must be list"),
        (table(data__exclude=["a", 3]), "data.exclude[1] must be str"),
        (table(data__map=["a"]), "data.map must be dict"),
        (table(data__map={"a": 1}), "data.map.a must be str"),
        (table(model=[]), "model must be a table"),
        (table(fields="bccd"), "fields must be a table"),
        (table(sources=["MIT"]), "sources[0] must be a table"),
        (table(model__grid=7), "even grid"),
        (table(model__channels=3), "hidden channels"),
        (table(model__fold=2), "hidden channels"),
        (table(model__pool="median"), "pool"),
        (table(model__update="always"), "update"),
        (table(model__steps=0), "steps"),
        (table(model__grid=-8), "grid"),
        (table(train__learning_rate=float("nan")), "train.learning_rate must be a finite number"),
        (table(train__learning_rate=float("inf")), "train.learning_rate must be a finite number"),
        (table(train__learning_rate=0), "train.learning_rate must be above 0"),
        (table(train__epochs=0), "train.epochs must be at least 1"),
        (table(train__batch=0), "train.batch must be at least 1"),
        (table(train__ema=1.0), "train.ema must be at least 0 and below 1"),
        (table(view__view_um=0), "view.view_um must be above 0"),
        (table(data__um_per_px=-0.2), "data.um_per_px must be above 0"),
        (table(data__corner_patches=-1), "data.corner_patches must be at least 0"),
        (table(augment={"swap_share": 1.5}), "augment.swap_share must be at least 0 and at most 1"),
        (table(augment={"noise_sd": -0.1}), "augment.noise_sd must be at least 0"),
        (table(fields={**FIELDS, "um_per_px": 0}), "fields.um_per_px must be above 0"),
        (table(fields={**FIELDS, "platelets": -1}), "fields.platelets must be at least 0"),
        (table(train__decay=1.0), "train.decay must be at least 0 and below 1"),
        (table(train__focal_gamma=-1), "train.focal_gamma must be at least 0"),
        (table(train__exits=[2.0]), "train.exits[0] must be int"),
        (table(train__exits=2), "train.exits must be list"),
        (table(train__exits=[1, 4]), "train.exits must lie between 0 and model.steps = 4"),
        (table(train__exits=[0]), "train.exits must lie between 0 and model.steps = 4"),
        (table(train__exit_weight=-0.1), "train.exit_weight must be at least 0"),
        (table(train__consistency=-1), "train.consistency must be at least 0"),
        (table(train__consistency_from=1.1), "train.consistency_from must be at least 0 and at most 1"),
        (table(train__checkpoint_steps=0.5), "train.checkpoint_steps must be int"),
        (table(train__checkpoint_steps=-1), "train.checkpoint_steps must be at least 0"),
        (table(augment={"tone_sd": -0.1}), "augment.tone_sd must be at least 0"),
        (table(augment={"fringe_um": "0.1"}), "augment.fringe_um must be float"),
        (table(augment={"jpeg": float("nan")}), "augment.jpeg must be a finite number"),
        (table(fields={**FIELDS, "white_cells": 1}), "fields.white_cells must be bool"),
        (table(teacher={"size": 16, "side": 32}), "give either model or teacher"),
        (table(model=None, teacher={"size": 16}), "teacher.side is missing"),
        (table(model=None, teacher={"size": 16, "side": 0}), "teacher.side must be at least 1"),
        (table(distill={"weight": 1.1}), "distill.weight must be at least 0 and at most 1"),
        (table(train__optimizer="sgd"), "train.optimizer must be one of adamw, muon"),
        (table(name=""), "name must be"),
        (table(name="../up"), "name must be"),
    ],
)
def test_errors_name_their_place(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(changed)
    assert said in str(caught.value)
    assert str(caught.value).startswith("recipe: ")


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert name.startswith(recipe.name)
    assert recipe.sources, "a shipped recipe says where its data come from"
    assert all(source.licence and source.attribution for source in recipe.sources)


def test_edge_is_among_the_shipped() -> None:
    recipe = load_recipe("edge")
    assert recipe.model.architecture(classes=11).size == 64


@pytest.mark.parametrize(
    "recipe", [parse_recipe(table(fields=FIELDS, sources=[SOURCE])), load_recipe("edge"), parse_recipe(MINIMAL)]
)
def test_recipe_survives_json(recipe: Recipe) -> None:
    assert parse_recipe(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_attribution_does_not_decide_a_run() -> None:
    plain, cited = parse_recipe(MINIMAL), parse_recipe(table(sources=[SOURCE]))
    assert plain != cited and plain.decisive() == cited.decisive()
    assert parse_recipe(table(train__epochs=3)).decisive() != plain.decisive()


def test_recipe_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    lines = ['name = "mine"', "[model]", "grid = 8", "fold = 1", "channels = 8", "hidden = 8", "steps = 4", 'pool = "mean"']
    lines += ['update = "bernoulli"', "head = 8", "[view]", "view_um = 9", "[data]", "um_per_px = 0.5", "[train]", "epochs = 1"]
    path.write_text("\n".join([*lines, "batch = 2", "learning_rate = 1e-3"]), "utf-8")
    assert load_recipe(str(path)).name == "mine"


@pytest.mark.parametrize("raw", [b"name = ", b"[model\n", b"\xff\xfe", b"a = 1\na = 2"])
def test_not_toml(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=r"broken\.toml: not TOML"):
        load_recipe(str(path))


def test_no_such_recipe(tmp_path: Path) -> None:
    for wrong in ("nothing", str(tmp_path), "../edge", ""):
        with pytest.raises(UsageError, match=r"no recipe .*edge"):
            load_recipe(wrong)
