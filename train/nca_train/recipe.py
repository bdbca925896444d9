"""A recipe is a TOML file; every key is known, typed and checked before the first step."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from nca_edge.automaton import Architecture
from nca_edge.errors import BundleError, UsageError
from nca_train.tables import build

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
class Teacher:
    """The recipe trains no automaton but the network that automata learn from."""

    size: int
    """Side of a view, px: the automaton's ``grid * fold``."""
    side: int
    """Side that the network sees the view enlarged to, px."""


@dataclass(frozen=True, slots=True)
class Distill:
    """The automaton learns from a teacher's answers."""

    weight: float
    """Share of the loss that is the divergence from the teacher's answers; the rest is of the labels."""


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
    """Data label -> class, where they differ; ``a|b`` says that it is one of these, and trains without validating."""
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
    white_cells: bool = False
    """Also learn from the WBC boxes that they are some white cell, whichever."""


@dataclass(frozen=True, slots=True)
class Train:
    """Optimisation."""

    epochs: int
    batch: int
    learning_rate: float
    optimizer: str = "adamw"
    """``adamw``, or ``muon`` for the matrices of the automaton and ``adamw`` for the rest."""
    decay: float = 0.0
    """Factor on the learning rate after every update, as the papers have it; 0: a cosine down to a hundredth."""
    warmup_updates: int = 0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    """Exponent of the focal loss (Lin et al. 2017), 0: cross-entropy."""
    balance: float = 0.0
    """A class of n images is drawn with weight n ** -balance an image."""
    ema: float = 0.0
    """Decay of the averaged weights that are evaluated and exported; 0: the weights themselves."""
    clip: float = 1.0
    """Largest gradient norm."""
    overflow_bound: float = 0.0
    overflow_weight: float = 0.0
    exits: list[int] = field(default_factory=list)
    """Steps after which the head is trained to answer already, besides the last."""
    exit_weight: float = 0.0
    """Weight of each of these answers; the last one's is 1."""
    consistency: float = 0.0
    """Weight of the divergence from what the averaged weights say under another fire schedule."""
    consistency_from: float = 0.0
    """Share of the training after which it counts."""
    bf16: bool = False
    checkpoint_steps: int = 0
    """Keep the state after every so many steps and compute the rest again in the backward pass; 0: keep everything."""


@dataclass(frozen=True, slots=True)
class Augment:
    """Random variation of training images; rotation by any angle and mirroring are always on."""

    scale_sd: float = 0.0
    """Standard deviation of the logarithm of the scale."""
    own_scale_share: float = 0.0
    """Share of images whose scale is taken from the cell's own size, as the device does where nothing else tells it."""
    shift_um: float = 0.0
    """Standard deviation of the shift in x and in y."""
    swap_share: float = 0.0
    """Share of images whose surroundings come from another image of the batch."""
    cut_share: float = 0.0
    """Share of images that the field's edge cuts."""
    own_colour_share: float = 0.0
    """Share of images that keep their own colours and sharpness: nothing below this line happens to them."""
    stain_mix_sd: float = 0.0
    stain_strength_min: float = 1.0
    """Weakest stain, as a share of the one in the image: stray light and pale dyes; drawn log-uniformly up to 1."""
    tone_sd: float = 0.0
    """Of the logarithm of the exponent of a camera's tone curve on absorbance."""
    tint_sd: float = 0.0
    gradient_sd: float = 0.0
    glare: float = 0.0
    blur_um: float = 0.0
    fringe_um: float = 0.0
    """Standard deviation of the shift of each colour: lateral chromatic aberration; takes effect with ``blur_um``."""
    sharpen: float = 0.0
    """Strongest sharpening, as cameras do it and thick optics look: bright and dark rims around cells."""
    noise_sd: float = 0.0
    jpeg: float = 0.0
    """Coarsest quantization step of a block's mean, as a share of white."""


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
    view: View
    data: Data
    train: Train
    model: Model | None = None
    """Left out only where ``teacher`` stands."""
    teacher: Teacher | None = None
    distill: Distill | None = None
    augment: Augment = field(default_factory=Augment)
    fields: Fields | None = None
    sources: list[Source] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Side of a view, px."""
        if self.teacher is not None:
            return self.teacher.size
        return self.automaton.grid * self.automaton.fold

    @property
    def automaton(self) -> Model:
        """Sizes of the automaton.

        Raises
        ------
        UsageError
            The recipe trains a teacher.
        """
        if self.model is None:
            raise UsageError(f"recipe {self.name}: trains a teacher, which is no automaton; choose another.")
        return self.model

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
    recipe: Recipe = build(Recipe, table, "")
    _check_ranges(recipe)
    if (recipe.model is None) == (recipe.teacher is None):
        raise UsageError("recipe: give either model or teacher.")
    if recipe.train.optimizer not in OPTIMIZERS:
        raise UsageError(f"recipe: train.optimizer must be one of {', '.join(OPTIMIZERS)}, not {recipe.train.optimizer!r}.")
    steps = recipe.model.steps if recipe.model is not None else 0
    if any(not 0 < step < steps for step in recipe.train.exits):
        raise UsageError(f"recipe: train.exits must lie between 0 and model.steps = {steps}.")
    try:
        if recipe.model is not None:
            recipe.model.architecture(classes=1)
    except BundleError as error:
        raise UsageError(f"recipe: {error}") from error
    if recipe.augment.jpeg and recipe.size % 8:
        raise UsageError("recipe: augment.jpeg needs views of whole 8x8 blocks; make model.grid * model.fold a multiple of 8.")
    return recipe


OPTIMIZERS = ("adamw", "muon")
_POSITIVE = (
    "view.view_um", "data.um_per_px", "fields.um_per_px", "train.learning_rate", "train.clip", "augment.stain_strength_min",
)  # fmt: skip
_AT_LEAST_1 = ("train.epochs", "train.batch", "teacher.size", "teacher.side")
_BELOW_1 = ("train.ema", "train.label_smoothing", "train.decay")
_SHARES = (
    "augment.swap_share",
    "augment.cut_share",
    "augment.own_colour_share",
    "augment.own_scale_share",
    "augment.stain_strength_min",
    "train.consistency_from",
    "distill.weight",
)


def _check_ranges(recipe: Recipe) -> None:
    """Every number besides the sizes of the model, which ``Architecture`` checks, is 0 or more; some are held closer."""
    if not re.fullmatch(r"[\w-][\w.-]*", recipe.name, re.ASCII):
        raise UsageError(f"recipe: name must be letters, digits, '-', '_' and '.', not {recipe.name!r}.")
    for table_name in ("view", "data", "fields", "train", "augment", "teacher", "distill"):
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
