"""The recipes that ship with Equibit, and recipes in files."""

import os
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from equibit import yaml_format
from equibit.errors import EquibitError, FileError, InputError, unknown
from equibit.recipes.reading import from_yaml
from equibit.recipes.schema import Recipe

_SUFFIXES = (".yaml", ".yml")


def names() -> list[str]:
    """Names of the recipes that ship with Equibit, sorted."""
    return sorted(_shipped())


def overview() -> list[dict[str, Any]]:
    """One row per shipped recipe: name, data, model, method, epochs, as the files say.

    The files are parsed but not checked against the registries, which for hundreds of them takes seconds.
    """
    files = sorted(_shipped().items())
    return [{"name": name, **_row(yaml_format.load(file.read_text(encoding="utf-8")))} for name, file in files]


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    binary = values.get("method")
    return {
        "data": values["data"]["name"],
        "model": values["model"]["name"],
        "method": binary["name"] if binary else "float",
        "epochs": values["train"]["epochs"],
    }


def load(recipe: str | os.PathLike[str]) -> Recipe:
    """A recipe by name (`mnist-lenet5-bi_half-1w32a`) or from a YAML file.

    Raises:
        InputError: Unknown name, section, key or value.
        FileError: The file cannot be read.
        FormatError: The file is not YAML.
    """
    given = os.fspath(recipe)
    if given.endswith(_SUFFIXES) or os.sep in given:
        return _read(Path(given), Path(given).stem)
    shipped = _shipped()
    if given not in shipped:
        raise InputError(f"{unknown('recipe', given, shipped)} `equibit recipes` describes them; a file ends in .yaml.")
    return _read(shipped[given], given)


def _shipped() -> dict[str, Traversable]:
    folder = resources.files("equibit.recipes") / "files"
    return {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}


def _read(file: Traversable, name: str) -> Recipe:
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read the recipe {file}: {error}") from None
    try:
        return from_yaml(content, name)
    except EquibitError as error:
        raise type(error)(f"{file}: {error}") from None
