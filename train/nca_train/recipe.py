"""A recipe is a TOML file; every key is known, typed and checked before the first step."""

from __future__ import annotations

import math
import re
import sys
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from nca_edge.automaton import Architecture
from nca_edge.errors import BundleError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes as in ``Architecture``; the number of classes comes from the data."""

    grid: int
    fold: int
    channels: int
    hidden: int
    steps: int
    pool: str
    update: str
    head: int

    def architecture(self, classes: int) -> Architecture:
        """Add the number of classes."""
        return Architecture(**asdict(self), classes=classes)


@dataclass(frozen=True, slots=True)
class View:
    """What a cell image spans."""

    view_um: float
    """Side of the view, um."""


@dataclass(frozen=True, slots=True)
class Data:
    """How the labelled images are read."""

    um_per_px: float
    """Scale of the images."""
    exclude: list[str] = field(default_factory=list)
    """Labels that are left out."""
    map: dict[str, str] = field(default_factory=dict)
    """Data label -> class, where they differ."""
    corner_patches: int = 0
    """Artefact patches taken away from the centred cell."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Whole fields with boxes that give artefact patches."""

    folder: str
    """Relative to the data folder; holds ``boxes.csv`` (file, label, x, y, w, h)."""
    um_per_px: float
    """Scale of the fields."""
    patches: int
    """Patches whose centre is far from every WBC box."""
    platelets: int
    """Patches centred on a box labelled Platelets."""


@dataclass(frozen=True, slots=True)
class Train:
    """Optimisation."""

    epochs: int
    batch: int
    learning_rate: float
    warmup_updates: int = 0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    balance: float = 0.0
    """A class of n images is drawn with weight n ** -balance an image."""
    ema: float = 0.0
    """Decay of the averaged weights that are evaluated and exported; 0: the weights themselves."""
    clip: float = 1.0
    """Largest gradient norm."""
    overflow_bound: float = 0.0
    overflow_weight: float = 0.0
    bf16: bool = False


@dataclass(frozen=True, slots=True)
class Augment:
    """Random variation of training images; rotation by any angle and mirroring are always on."""

    scale_sd: float = 0.0
    """Standard deviation of the logarithm of the scale."""
    shift_um: float = 0.0
    """Standard deviation of the shift in x and in y."""
    swap_share: float = 0.0
    """Share of images whose surroundings come from another image of the batch."""
    cut_share: float = 0.0
    """Share of images that the field's edge cuts."""
    stain_mix_sd: float = 0.0
    stain_strength_min: float = 1.0
    """Weakest stain, as a share of the one in the image: stray light and pale dyes; drawn log-uniformly up to 1."""
    tint_sd: float = 0.0
    gradient_sd: float = 0.0
    glare: float = 0.0
    blur_um: float = 0.0
    sharpen: float = 0.0
    """Strongest sharpening, as cameras do it and thick optics look: bright and dark rims around cells."""
    noise_sd: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that the weights come from: what the model card owes its authors."""

    name: str
    licence: str
    attribution: str
    used_for: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training run besides the data and the seed."""

    name: str
    """Letters, digits, ``-``, ``_`` and ``.``: run and bundle folders are named after it."""
    model: Model
    view: View
    data: Data
    train: Train
    augment: Augment = field(default_factory=Augment)
    fields: Fields | None = None
    sources: list[Source] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``run.json``."""
        return asdict(self)

    def decisive(self) -> dict[str, Any]:
        """What a resumed run must share with its beginning: everything but the attribution."""
        return {key: value for key, value in self.to_json().items() if key != "sources"}


def shipped_recipes() -> list[str]:
    """Names of the recipes inside the package."""
    return sorted(
        entry.name[: -len(".toml")] for entry in (files("nca_train") / "recipes").iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name or a file by path.

    Raises
    ------
    UsageError
        No such recipe, unknown or missing key, wrong type.
    """
    path = Path(name_or_path)
    if name_or_path in shipped_recipes():
        text = (files("nca_train") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
    elif path.is_file():
        text = _text(path)
    else:
        raise UsageError(f"no recipe {name_or_path!r}: give a TOML file or one of {', '.join(shipped_recipes())}.")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {name_or_path}: not TOML ({error}).") from error
    return parse_recipe(table)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"recipe {path}: not TOML, which is UTF-8 ({error}).") from error
    except OSError as error:
        raise UsageError(f"recipe {path}: cannot be read ({error.strerror}).") from error


def parse_recipe(table: dict[str, Any]) -> Recipe:
    """Check a recipe's table, as read from TOML or from ``run.json``.

    Raises
    ------
    UsageError
        Unknown or missing key, wrong type, a value out of range, sizes that make no automaton.
    """
    recipe: Recipe = _build(Recipe, table, "")
    _check_ranges(recipe)
    try:
        recipe.model.architecture(classes=1)
    except BundleError as error:
        raise UsageError(f"recipe: {error}") from error
    return recipe


_POSITIVE = (
    "view.view_um", "data.um_per_px", "fields.um_per_px", "train.learning_rate", "train.clip", "augment.stain_strength_min",
)  # fmt: skip
_AT_LEAST_1 = ("train.epochs", "train.batch")
_BELOW_1 = ("train.ema", "train.label_smoothing")
_SHARES = ("augment.swap_share", "augment.cut_share", "augment.stain_strength_min")


def _check_ranges(recipe: Recipe) -> None:
    """Every number besides the sizes of the model, which ``Architecture`` checks, is 0 or more; some are held closer."""
    if not re.fullmatch(r"[\w-][\w.-]*", recipe.name, re.ASCII):
        raise UsageError(f"recipe: name must be letters, digits, '-', '_' and '.', not {recipe.name!r}.")
    for table_name in ("view", "data", "fields", "train", "augment"):
        table = getattr(recipe, table_name)
        for key, value in (asdict(table) if table is not None else {}).items():
            if not isinstance(value, int | float):
                continue
            where = f"{table_name}.{key}"
            rules = [
                (where in _POSITIVE and value <= 0, "above 0"),
                (where in _AT_LEAST_1 and value < 1, "at least 1"),
                (where in _BELOW_1 and not 0 <= value < 1, "at least 0 and below 1"),
                (where in _SHARES and not 0 <= value <= 1, "at least 0 and at most 1"),
                (value < 0, "at least 0"),
            ]
            for broken, bound in rules:
                if broken:
                    raise UsageError(f"recipe: {where} must be {bound}, not {value!r}.")


def _build(kind: Any, table: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in table:
        if key not in known:
            raise UsageError(f"recipe: unknown key {where}{key}; known here: {', '.join(known)}.")
    values: dict[str, Any] = {}
    for name, spec in known.items():
        if name in table:
            values[name] = _value(hints[name], table[name], where + name)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise UsageError(f"recipe: {where}{name} is missing.")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"recipe: {where} must be a table.")
        return _build(hint, value, where + ".")
    plain = typing.get_origin(hint) or hint
    if plain is float and type(value) is int:
        value = float(value)
    if plain is float and isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"recipe: {where} must be a finite number, not {value!r}.")
    if type(value) is not plain:
        raise UsageError(f"recipe: {where} must be {plain.__name__}, not {value!r}.")
    if plain is list:
        (item,) = typing.get_args(hint)
        return [_value(item, entry, f"{where}[{n}]") for n, entry in enumerate(value)]
    if plain is dict:
        return {key: _value(str, entry, f"{where}.{key}") for key, entry in value.items()}
    return value
