"""What a recipe holds: one frozen dataclass per section, every default in one place.

A recipe is data. It names what the registries know (models, methods, activations, policies) and numbers;
nothing in it is evaluated or imported.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from equibit import activations, convert, data, methods, models
from equibit.errors import InputError, unknown
from equibit.recipes import yaml_core
from equibit.recipes.checks import mapping, read_section, setting, text


@dataclass(frozen=True)
class Model:
    """Section `model`: the float network; `options` (block, ...) are those of `equibit.models.create`."""

    name: str
    num_classes: int = setting(low=1)
    in_shape: tuple[int, int, int] | None = setting(None, low=1)  # (channels, height, width); null: the data set's
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Section `data`. `mean` and `std` are per channel, of pixels in [0, 1]; null: the data set's own."""

    name: str
    augment: str = "none"
    batch_size: int = setting(128, low=1)
    mean: tuple[float, ...] | None = setting(None)
    std: tuple[float, ...] | None = setting(None, low=0, open_low=True)


@dataclass(frozen=True)
class Method:
    """Section `method`: how weights become binary, all arguments included. null is the float twin."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Activation:
    """Section `activation`: the sign before each binary layer (1W1A). null is 1W32A."""

    name: str
    pad_value: float = setting(0.0, low=-1, high=1)


@dataclass(frozen=True)
class Optimizer:
    """Section `optimizer`. For adam and adamw, `momentum` is the first beta (the second is 0.999)."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = setting(0.1, low=0, open_low=True)
    momentum: float = setting(0.9, low=0, high=1)
    nesterov: bool = False
    weight_decay: float = setting(0.0, low=0)


@dataclass(frozen=True)
class Schedule:
    """Section `schedule`: learning rate and method schedule over training.

    `update` says whether the learning rate changes every step or every epoch, `method` whether
    `equibit.advance` sees step / total or floor(epoch) / epochs. `milestones` (epochs) and `gamma` belong to
    `step`.
    """

    name: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: float = setting(0.0, low=0)
    milestones: tuple[int, ...] = setting((), low=1)
    gamma: float = setting(0.1, low=0, high=1, open_low=True)
    update: Literal["step", "epoch"] = "step"
    method: Literal["step", "epoch"] = "step"


@dataclass(frozen=True)
class Train:
    """Section `train`: length, seed and machine settings. `amp` is bf16 autocast of the training steps."""

    epochs: int = setting(low=1)
    seed: int = setting(0, low=0)
    label_smoothing: float = setting(0.0, low=0, high=1)
    amp: bool = False
    compile: bool = False
    channels_last: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class Recipe:
    """A complete experiment. `skip` names the policy for what stays float."""

    name: str
    model: Model
    data: Data
    train: Train
    method: Method | None = None
    activation: Activation | None = None
    skip: str = "first_and_last"
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, complete with every default; `from_dict` gives an equal recipe."""
        sections = {s: _plain_section(getattr(self, s)) for s in SECTIONS}
        return {"name": self.name, **sections}

    def to_yaml(self) -> str:
        """The recipe as YAML, complete; `equibit.recipes.load` of it gives an equal recipe."""
        return yaml_core.write(self.to_dict())


SECTIONS = ("model", "data", "method", "activation", "skip", "optimizer", "schedule", "train")


def from_dict(values: object, name: str) -> Recipe:
    """A checked recipe from plain values; `name` is used where they hold none.

    Raises:
        InputError: An unknown section, key or name, a wrong type, or a value out of range.
    """
    given = mapping("the recipe", values)
    for section in given:
        if section not in (*SECTIONS, "name"):
            raise unknown("section in the recipe:", section, (*SECTIONS, "name"))
    for section in ("model", "data", "train"):
        if section not in given:
            raise InputError(f"the recipe has no section {section!r}; model, data and train are required.")
    recipe = Recipe(
        name=text("name", given.get("name", name)),
        model=_model(given["model"]),
        data=_data(given["data"]),
        train=read_section(Train, "train", given["train"]),
        method=_method(given.get("method")),
        activation=_activation(given.get("activation")),
        skip=_policy(given.get("skip", "first_and_last")),
        optimizer=read_section(Optimizer, "optimizer", given.get("optimizer", {})),
        schedule=read_section(Schedule, "schedule", given.get("schedule", {})),
    )
    _check_together(recipe)
    return recipe


def _plain_section(section: Any) -> Any:
    if section is None or isinstance(section, str):
        return section
    plain: dict[str, Any] = {}
    for f in fields(section):
        value = getattr(section, f.name)
        if isinstance(value, Mapping):
            plain.update(value)
        else:
            plain[f.name] = list(value) if isinstance(value, tuple) else value
    return plain


def _model(value: object) -> Model:
    """The model section, completed with the network's own defaults."""
    section = read_section(Model, "model", value, extras="options")
    with torch.device("meta"):  # checks name, shape and options without making the weights
        create_model(section)
    known = next(entry.options for entry in models.entries() if entry.name == section.name)
    return replace(section, options={o: section.options.get(o, allowed[0]) for o, allowed in known.items()})


def create_model(section: Model) -> nn.Module:
    """The float network of a model section."""
    shape: dict[str, Any] = {} if section.in_shape is None else {"in_shape": section.in_shape}
    return models.create(section.name, num_classes=section.num_classes, **shape, **section.options)


def _method(value: object) -> Method | None:
    """The method section, completed with the method's own defaults; a plain string is its name."""
    if value is None:
        return None
    named = {"name": value} if isinstance(value, str) else value
    section = read_section(Method, "method", named, extras="arguments")
    methods.create(section.name, **section.arguments)  # checks the name, the arguments and their ranges
    known = inspect.signature(methods.REGISTRY[section.name]).parameters
    return Method(section.name, {k: section.arguments.get(k, p.default) for k, p in known.items()})


def _activation(value: object) -> Activation | None:
    if value is None:
        return None
    section = read_section(Activation, "activation", {"name": value} if isinstance(value, str) else value)
    activations.create(section.name, pad_value=section.pad_value)
    return section


def _data(value: object) -> Data:
    section = read_section(Data, "data", value)
    for key, name, allowed in (
        ("name", section.name, data.names()),
        ("augment", section.augment, data.kinds()),
    ):
        if name not in allowed:
            raise unknown(f"data.{key}:", name, allowed)
    return section


def _policy(value: object) -> str:
    if not isinstance(value, str) or value not in convert.POLICIES:
        raise unknown("skip policy", value, convert.POLICIES)
    return value


def _check_together(recipe: Recipe) -> None:
    """The rules that join two keys."""
    optimizer, schedule, pixels = recipe.optimizer, recipe.schedule, recipe.data
    if optimizer.nesterov and (optimizer.name != "sgd" or optimizer.momentum == 0):
        raise InputError("optimizer.nesterov is true; it needs optimizer.name sgd and a momentum above 0.")
    if optimizer.name != "sgd" and optimizer.momentum >= 1:
        raise InputError(f"optimizer.momentum is {optimizer.momentum}; as the first beta it must be below 1.")
    if (schedule.name == "step") != bool(schedule.milestones):
        raise InputError(
            f"schedule.name is {schedule.name!r} and schedule.milestones is {list(schedule.milestones)}; "
            "milestones belong to 'step', which needs at least one."
        )
    if list(schedule.milestones) != sorted(set(schedule.milestones)):
        raise InputError(f"schedule.milestones is {list(schedule.milestones)}; it must increase.")
    if schedule.warmup_epochs > recipe.train.epochs:
        raise InputError(
            f"schedule.warmup_epochs is {schedule.warmup_epochs:g}; it must be at most train.epochs "
            f"({recipe.train.epochs})."
        )
    if recipe.activation is not None and recipe.method is None:
        raise InputError("activation is given without a method; a sign activation stands before binary layers only.")
    if pixels.mean is not None and pixels.std is not None and len(pixels.mean) != len(pixels.std):
        raise InputError(
            f"data.mean has {len(pixels.mean)} entries and data.std {len(pixels.std)}; both one per channel."
        )
