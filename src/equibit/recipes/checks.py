"""Strict reading of a recipe's sections: exact types, ranges, and errors that name the key."""

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, Literal, TypeVar

from equibit.errors import InputError, unknown

T = TypeVar("T")
_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def setting(default: Any = MISSING, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False) -> Any:
    """A dataclass field with a range (of each entry of a list); `open_low` excludes `low` itself."""
    return field(default=default, metadata={"range": (low, high, open_low)})


def read_section(cls: type[T], section: str, value: object, extras: str | None = None) -> T:
    """A dataclass from a mapping; keys that are no field go to the field `extras`, if there is one.

    Raises:
        InputError: An unknown or missing key, a wrong type, or a value out of range; names key and value.
    """
    given = mapping(f"section {section!r}", value)
    known = {f.name: f for f in fields(cls) if f.name != extras}  # type: ignore[arg-type]
    rest = {key: v for key, v in given.items() if key not in known}
    if rest and extras is None:
        raise unknown(f"key in section {section!r}:", next(iter(rest)), known)
    for name, spec in known.items():
        if spec.default is MISSING and name not in given:
            raise InputError(f"section {section!r} needs the key {name!r}, which is not given.")
    hints = typing.get_type_hints(cls)
    values = {n: _read(hints[n], f"{section}.{n}", given[n], f) for n, f in known.items() if n in given}
    return cls(**values, **({extras: rest} if extras else {}))


def mapping(section: str, value: object) -> Mapping[str, Any]:
    """`value` as a mapping with string keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{section} is {value!r}; it must be a mapping of keys to values.")
    return value


def text(key: str, value: object) -> str:
    """`value` as a string."""
    if not isinstance(value, str):
        raise InputError(f"{key} is {value!r}; it must be a string.")
    return value


def _read(hint: Any, key: str, value: object, spec: "Field[Any]") -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = next(t for t in typing.get_args(hint) if t is not type(None))
        return None if value is None else _read(inner, key, value, spec)
    if origin is Literal:
        return _choice(typing.get_args(hint), key, value)
    if origin is tuple:
        return _sequence(typing.get_args(hint), key, value, spec)
    return _in_range(key, _plain(hint, key, value), spec)


def _choice(allowed: tuple[str, ...], key: str, value: object) -> str:
    if value not in allowed or not isinstance(value, str):
        raise unknown(f"{key}:", value, allowed)
    return value


def _sequence(kinds: tuple[Any, ...], key: str, value: object, spec: "Field[Any]") -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{key} is {value!r}; it must be a list, for example [1, 2].")
    if kinds[-1] is not Ellipsis and len(value) != len(kinds):
        raise InputError(f"{key} is {list(value)}; it must have {len(kinds)} entries.")
    return tuple(_in_range(f"{key}[{i}]", _plain(kinds[0], f"{key}[{i}]", v), spec) for i, v in enumerate(value))


def _plain(kind: Any, key: str, value: object) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{key} is {value!r}; it must be {_WORDS[kind]}.")
    return value


def _in_range(key: str, value: Any, spec: "Field[Any]") -> Any:
    if "range" not in spec.metadata:
        return value
    low, high, open_low = spec.metadata["range"]
    if math.isfinite(value) and (low < value if open_low else low <= value) and value <= high:
        return value
    above = "" if low == -math.inf else f" {'above' if open_low else 'at least'} {low:g}"
    below = "" if high == math.inf else f"{' and' if above else ''} at most {high:g}"
    raise InputError(f"{key} is {value!r}; it must be finite,{above}{below}.")
