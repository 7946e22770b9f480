"""Experiments as data: one YAML file each, read strictly.

`list()` names the shipped ones, `overview()` says what they train, `load(name_or_file)` reads one,
`override(recipe, {"train.epochs": 3})` changes keys, `build(recipe)` makes the network.
"""

from equibit.recipes.build import build
from equibit.recipes.catalog import load, names, overview
from equibit.recipes.reading import SECTIONS, add_arguments, changes, from_arguments, from_dict, override
from equibit.recipes.schema import Recipe

list = names  # `equibit.recipes.list()` is the public name

__all__ = [
    "SECTIONS",
    "Recipe",
    "add_arguments",
    "build",
    "changes",
    "from_arguments",
    "from_dict",
    "list",
    "load",
    "names",
    "override",
    "overview",
]
