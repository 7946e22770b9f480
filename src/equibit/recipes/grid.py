"""Several values for keys of a recipe: what `equibit sweep --over` says, and every combination of it."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from equibit import yaml_format
from equibit.errors import InputError

SEED = "train.seed"  # what repetitions change
NAMED = ("method", "activation")  # of which a name stands for all
_SEPARATOR = re.compile(r",(?![^\[{]*[\]}])")  # a comma outside brackets
_REST = "..."
_MOST_VALUES = 10_000  # of one key: more is a slip of the pen


@dataclass(frozen=True)
class Axis:
    """One key of a recipe and the values it takes, as YAML reads them."""

    key: str
    values: tuple[Any, ...]


def axis(text: str) -> Axis:
    """What `--over` says: `method.ratio=0.1,0.3,0.5`, or `method.ratio=0.1,...,0.9` for the numbers between.

    The numbers of `a,b,...,z` go in steps of b - a; those of `a,...,z` in steps of one unit of the last decimal place
    of a or z, whichever is finer: 0.1 for `0.1,...,0.9`, 1 for `1,...,5`. They are exact decimals, z among them.
    `method=sign,bi_half` is short for `method.name=sign,bi_half`, and so for `activation`.

    Raises:
        InputError: No key, no value, a value that is not YAML, or numbers that do not lead from a to z.
    """
    key, equals, listed = text.partition("=")
    words = [word.strip() for word in _SEPARATOR.split(listed)]
    if not key or not equals or "" in words:
        raise InputError(f"--over is {text!r}; write it as KEY=A,B,C, for example method.ratio=0.1,0.3,0.5.")
    if key == SEED:
        raise InputError(f"--over is {text!r}; seeds are what --repeat N is for: N of them from --train.seed on.")
    values = tuple(_value(word, text) for word in _filled_in(words, text))
    if len(set(map(str, values))) < len(values):
        raise InputError(f"--over is {text!r}, which holds a value twice.")
    named = key in NAMED and all(isinstance(value, str) for value in values)
    return Axis(f"{key}.name" if named else key, values)


def _value(word: str, text: str) -> Any:
    try:
        return yaml_format.load(word)
    except yaml.YAMLError:
        raise InputError(f"--over is {text!r}, where {word!r} is not valid YAML.") from None


def _filled_in(words: Sequence[str], text: str) -> list[str]:
    """The words with every `...` replaced by the numbers it stands for."""
    filled: list[str] = []
    for i, word in enumerate(words):
        if word != _REST:
            filled.append(word)
        elif 0 < i < len(words) - 1:
            before = words[i - 2] if i > 1 and words[i - 2] != _REST else None
            filled += _between(before, words[i - 1], words[i + 1], text)
        else:
            raise InputError(f"--over is {text!r}; `...` stands between two numbers.")
    return filled


def _between(before: str | None, first: str, last: str, text: str) -> list[str]:
    """The numbers strictly between `first` and `last`, in steps of `first - before`, or of the last decimal place."""
    try:
        start, end = Decimal(first), Decimal(last)
        unit = min(Decimal(1).scaleb(int(number.as_tuple().exponent)) for number in (start, end))
        step = start - Decimal(before) if before is not None else unit.copy_sign(end - start)
    except (InvalidOperation, TypeError, ValueError):  # no number; infinite
        raise InputError(f"--over is {text!r}; `...` stands between two numbers.") from None
    steps = (end - start) / step if step else Decimal(0)
    if not 0 < steps <= _MOST_VALUES or steps != int(steps):
        raise InputError(f"--over is {text!r}; steps of {step} do not lead from {first} to {last}.")
    return [format(start + i * step, "f") for i in range(1, int(steps))]


def grid(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination of values, by key; the last key changes fastest.

    Raises:
        InputError: Two axes are of one key.
    """
    keys = [given.key for given in axes]
    for key, count in Counter(keys).items():
        if count > 1:
            raise InputError(f"--over names {key} {count} times; give all its values at once.")
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(given.values for given in axes))]
