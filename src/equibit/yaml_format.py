"""The YAML of recipes and of options (1.2): only the words `true` and `false` are booleans, and 1e-4 is a number.

PyYAML reads YAML 1.1, in which `off` is false and 1e-4 a string; `off` is a value of a method here.
"""

import re
from typing import Any, ClassVar

import yaml
from jsonargparse import set_loader

MODE = "equibit"  # as `parser_mode` of a parser, lets it read the values of options in this way
_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
_SCALARS = {  # tag: pattern, first letters
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "float": (rf"{_NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C part may be missing
    """Builds plain values only."""

    yaml_implicit_resolvers: ClassVar[Any] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in (*_SCALARS, "timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _name, (_pattern, _letters) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), list(_letters))


def load(text: str) -> Any:
    """Plain values from YAML.

    Raises:
        yaml.YAMLError: The text is not YAML, or asks for objects.
    """
    return yaml.load(text, _Loader)


set_loader(MODE, load, exceptions=(yaml.YAMLError,))
