"""Recipes by name or file, and changes to single keys."""

import os
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from equibit.errors import FileError, InputError, unknown
from equibit.recipes import yaml_core
from equibit.recipes.checks import mapping
from equibit.recipes.schema import SECTIONS, Recipe, from_dict

_SUFFIXES = (".yaml", ".yml")
_RENAMABLE = ("method", "activation")  # a new name there brings its own arguments


def names() -> list[str]:
    """Names of the recipes that ship with Equibit, sorted."""
    return sorted(_shipped())


def load(recipe: str | os.PathLike[str]) -> Recipe:
    """A recipe by name (`mnist-lenet5-bi_half-1w32a`) or from a YAML file.

    Raises:
        InputError: Unknown name, section, key or value.
        FileError: The file cannot be read.
        FormatError: The file is not YAML.
    """
    given = os.fspath(recipe)
    if given.endswith(_SUFFIXES) or os.sep in given:
        path = Path(given)
        return _read(path, path.stem)
    shipped = _shipped()
    if given not in shipped:
        raise InputError(f"{unknown('recipe', given, shipped)} `equibit recipes` describes them; a file ends in .yaml.")
    return _read(shipped[given], given)


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A copy with some keys changed, for example `{"train.epochs": 3, "method.ratio": "0.3"}`.

    Strings are read as YAML. `method`, `activation` and `skip` can be set whole; a new `method.name` or
    `activation.name` starts from that method's defaults.

    Raises:
        InputError: Unknown section or key, or a value that is not allowed.
    """
    values = recipe.to_dict()
    for key, given in sorted(changes.items(), key=lambda change: _rank(change[0])):
        value = yaml_core.parse(given, key) if isinstance(given, str) else given
        _set(values, key, value)
    return from_dict(values, recipe.name)


def _rank(key: str) -> int:
    """Whole sections are set first, then names, then what belongs to them."""
    return 0 if "." not in key else 1 if key.endswith(".name") else 2


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    if section not in SECTIONS:
        raise unknown("section in the recipe:", section, SECTIONS)
    if not name:
        values[section] = {"name": value} if section in _RENAMABLE and isinstance(value, str) else value
        return
    if name == "name" and section in _RENAMABLE:
        current = values[section]
        values[section] = current if current and current["name"] == value else {"name": value}
        return
    if not isinstance(values[section], dict):
        raise InputError(
            f"cannot set {key}: the recipe has {section}: {values[section] or 'null'}. Set {section} first."
        )
    values[section][name] = value


def _shipped() -> dict[str, Traversable]:
    folder = resources.files("equibit.recipes") / "files"
    return {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}


def _read(file: Traversable, name: str) -> Recipe:
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read the recipe {file}: {error}") from None
    try:
        return from_dict(mapping("the recipe", yaml_core.parse(content, str(file))), name)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
