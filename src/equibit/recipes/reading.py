"""Reading recipes: from values, from YAML, and from the command line, all through one jsonargparse parser."""

import functools
import inspect
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from equibit import activations, convert, data, methods, models, yaml_format
from equibit.errors import FormatError, InputError, unknown
from equibit.recipes.schema import Data, Model, Recipe, Schedule

SECTIONS = tuple(f.name for f in fields(Recipe) if f.name != "name")
_KINDS: Mapping[str, Any] = {f.name: f.type for f in fields(Recipe)}
_FREE = ("method", "activation")  # their keys belong to whatever they name


def from_dict(values: object, name: str) -> Recipe:
    """A checked recipe from plain values; `name` is used where they hold none.

    `method: sign` is short for `method: {name: sign}`, and so for `activation`.

    Raises:
        InputError: An unknown section, key or name, a wrong type, or a value out of range.
    """
    given = _checked_keys(values, name)
    for section in _FREE:
        if isinstance(given.get(section), str):
            given[section] = {"name": given[section]}
    parser = _parser()
    try:
        recipe = Recipe(**vars(parser.instantiate(parser.parse_object(given))))
    except ArgumentError as error:
        raise InputError(_one_line(error)) from None
    recipe = replace(recipe, **{s: _plain(v) for s, v in vars(recipe).items() if is_dataclass(v)})
    _check_names(recipe)
    recipe = replace(
        recipe, model=_model(recipe.model), method=_method(recipe.method), activation=_activation(recipe.activation)
    )
    _check_together(recipe)
    return recipe


@functools.cache
def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, parser_mode=yaml_format.MODE)
    parser.add_class_arguments(Recipe)
    return parser


def from_yaml(text: str, name: str) -> Recipe:
    """A checked recipe from YAML as `yaml_format` reads it.

    Raises:
        FormatError: The text is not YAML.
        InputError: As `from_dict`.
    """
    try:
        values = yaml_format.load(text)
    except yaml.YAMLError as error:
        raise FormatError(f"not valid YAML: {' '.join(str(error).split())}") from None
    return from_dict(values, name)


def add_arguments(parser: ArgumentParser, recipe: Recipe | None) -> None:
    """Every key of a recipe as an option of a parser in `yaml_format.MODE`; the defaults are those of `recipe`."""
    parser.add_class_arguments(Recipe, skip={"name"})
    if recipe is not None:
        parser.set_defaults(_flat(recipe))


def from_arguments(arguments: Namespace, recipe: Recipe) -> Recipe:
    """The recipe that parsed options say, `recipe` being the one that gave them their defaults.

    A new `method.name`, `activation.name` or `model.name` starts from its own defaults.

    Raises:
        InputError: A value that is not allowed.
    """
    values: dict[str, Any] = {section: arguments[section] for section in SECTIONS}
    values = {k: v.as_dict() if isinstance(v, Namespace) else v for k, v in values.items()}
    for section in _FREE:
        old, new = getattr(recipe, section), values[section]
        if isinstance(old, dict) and isinstance(new, dict) and new.get("name") != old["name"]:
            values[section] = {k: v for k, v in new.items() if k == "name" or v != old.get(k)}
    if values["model"]["name"] != recipe.model.name:
        unchanged = {k for k, v in recipe.model.options.items() if values["model"][k] == v}
        values["model"] |= dict.fromkeys(unchanged)
    return from_dict(values, recipe.name)


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A copy with some keys changed, for example `{"train.epochs": 3, "method.ratio": 0.3}`; strings are YAML.

    Raises:
        InputError: Unknown section or key, or a value that is not allowed.
    """
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, parser_mode=yaml_format.MODE)
    add_arguments(parser, recipe)
    for key in changes:
        _check_key(key.split("."))
    words = [
        f"--{k}={v if isinstance(v, str) else yaml.safe_dump(v, default_flow_style=True)}" for k, v in changes.items()
    ]
    try:
        return from_arguments(parser.parse_args([word.removesuffix("\n...\n").strip() for word in words]), recipe)
    except ArgumentError as error:
        raise InputError(_one_line(error)) from None


def changes(before: Recipe, after: Recipe) -> dict[str, Any]:
    """What `override` needs to make `after` of `before`, by dotted key; another method or activation as a whole."""
    old, new = before.to_dict(), after.to_dict()
    found: dict[str, Any] = {}
    for section in SECTIONS:
        a, b = old[section], new[section]
        if not isinstance(a, dict) or not isinstance(b, dict) or (section in _FREE and a["name"] != b["name"]):
            found |= {section: b} if a != b else {}
        else:
            found |= {f"{section}.{key}": value for key, value in b.items() if a[key] != value}
    return found


def _one_line(error: ArgumentError) -> str:
    return " ".join(str(error).replace('Parser key "', "").replace('":', ":").split())


def _checked_keys(values: object, name: str) -> dict[str, Any]:
    """The values with a name, once every key is known; the nearest known one is named otherwise."""
    if not isinstance(values, Mapping):
        raise InputError(f"a recipe is a mapping of sections; this is {values!r}.")
    for section, content in values.items():
        if is_dataclass(_KINDS.get(section)) and not isinstance(content, Mapping):
            raise InputError(f"section {section!r} is {content!r}; it must be a mapping of keys to values.")
        keys = content if isinstance(content, Mapping) else ()
        for path in ([section], *([section, key] for key in keys)):
            _check_key(path)
    return {"name": name, **values}


def _check_key(path: list[str]) -> None:
    if path[0] not in _KINDS:
        raise unknown("section in the recipe:", path[0], _KINDS)
    section = _KINDS[path[0]]
    if is_dataclass(section) and len(path) > 1 and path[1] not in (keys := [f.name for f in fields(section)]):
        raise unknown(f"key in section {path[0]!r}:", path[1], keys)


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Dotted keys; `method` and `activation` stay whole."""
    flat: dict[str, Any] = {}
    for section in SECTIONS:
        value = getattr(recipe, section)
        flat |= {f"{section}.{k}": v for k, v in vars(value).items()} if is_dataclass(value) else {section: value}
    return flat


def _plain(section: Any) -> Any:
    """The section with Python's own numbers in place of jsonargparse's restricted ones."""
    values = {k: tuple(map(_number, v)) if isinstance(v, tuple) else _number(v) for k, v in vars(section).items()}
    return replace(section, **values)


def _number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"a recipe holds the number {value}; every number must be finite.")
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _model(section: Model) -> Model:
    """The model section, completed with the network's own defaults.

    Raises:
        InputError: An option the network does not have, or a value it does not allow.
    """
    known = next(entry.options for entry in models.entries() if entry.name == section.name)
    for option, value in section.options.items():
        if option not in known:
            raise InputError(f"model.{option} is {value!r}, but {section.name} has no option {option!r}.")
        if value not in known[option]:
            raise unknown(f"model.{option}:", value, known[option])
    filled: dict[str, Any] = {option: section.options.get(option, allowed[0]) for option, allowed in known.items()}
    return replace(section, **filled)


def _method(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """The method section, completed with the method's own defaults."""
    if value is None:
        return None
    name = _name("method", value)
    arguments = {k: v for k, v in value.items() if k != "name"}
    methods.create(name, **arguments)  # checks the name, the arguments and their ranges
    known = inspect.signature(methods.REGISTRY[name]).parameters
    return {"name": name, **{k: arguments.get(k, p.default) for k, p in known.items()}}


def _activation(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None:
        return None
    name = _name("activation", value)
    arguments = {k: v for k, v in value.items() if k != "name"}
    activations.create(name, **arguments)
    known = inspect.signature(activations.REGISTRY[name]).parameters
    return {"name": name, **{k: arguments.get(k, p.default) for k, p in known.items()}}


def _name(section: str, value: dict[str, Any]) -> str:
    name = value.get("name")
    if not isinstance(name, str):
        raise InputError(f"section {section!r} is {value!r}; it needs a name.")
    return name


def _check_names(recipe: Recipe) -> None:
    for key, name, allowed in (
        ("model.name", recipe.model.name, models.list()),
        ("data.name", recipe.data.name, data.names()),
        ("data.augment", recipe.data.augment, data.kinds()),
        ("skip", recipe.skip, convert.POLICIES),
    ):
        if name not in allowed:
            raise unknown(f"{key}:", name, allowed)


def _check_together(recipe: Recipe) -> None:
    """The rules that join two keys."""
    optimizer, pixels = recipe.optimizer, recipe.data
    _check_data(pixels)
    if optimizer.nesterov and (optimizer.name != "sgd" or optimizer.momentum == 0):
        raise InputError("optimizer.nesterov is true; it needs optimizer.name sgd and a momentum above 0.")
    if optimizer.name != "sgd" and optimizer.momentum >= 1:
        raise InputError(f"optimizer.momentum is {optimizer.momentum}; as the first beta it must be below 1.")
    _check_schedule(recipe.schedule, recipe.train.epochs)
    for key in ("ema", "channels_last"):
        if recipe.train.shard and getattr(recipe.train, key):
            raise InputError(f"train.shard is true and train.{key} is set; FSDP2 goes without it; use DDP.")
    if recipe.activation is not None and recipe.method is None:
        raise InputError("activation is given without a method; a sign activation stands before binary layers only.")
    if pixels.mean is not None and pixels.std is not None and len(pixels.mean) != len(pixels.std):
        raise InputError(
            f"data.mean has {len(pixels.mean)} entries and data.std {len(pixels.std)}; both one per channel."
        )


def _check_schedule(schedule: Schedule, epochs: int) -> None:
    """Milestones belong to the schedules that have them, and fit into the training with the warm-up."""
    milestones = list(schedule.milestones)
    if (schedule.name in ("step", "restarts")) != bool(milestones):
        raise InputError(
            f"schedule.name is {schedule.name!r} and schedule.milestones is {milestones}; "
            "milestones belong to 'step' and 'restarts', which need at least one."
        )
    if milestones != sorted(set(milestones)):
        raise InputError(f"schedule.milestones is {milestones}; it must increase.")
    if schedule.warmup_epochs > epochs:
        raise InputError(
            f"schedule.warmup_epochs is {schedule.warmup_epochs:g}; it must be at most train.epochs ({epochs})."
        )
    if schedule.name == "restarts" and (milestones[0] < schedule.warmup_epochs or milestones[-1] >= epochs):
        raise InputError(
            f"schedule.milestones is {milestones}; restarts lie after the warm-up ({schedule.warmup_epochs:g} epochs) "
            f"and before the end ({epochs} epochs)."
        )


def _check_data(pixels: Data) -> None:
    """What the data set takes: its options and the augmentations that fit its images."""
    known = data.entry(pixels.name)
    if pixels.augment not in known.augments:
        raise InputError(
            f"data.augment is {pixels.augment!r}, which does not fit {known.name}; "
            f"these do: {', '.join(known.augments)}."
        )
    known.require_options(pixels.options)
