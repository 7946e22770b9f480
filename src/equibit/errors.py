"""The errors Equibit raises.

Each kind is also the built-in error a caller would expect, so `except ValueError` and `except EquibitError` both
work. A message names what was given, what is allowed, and what to do next.
"""

import difflib
from collections.abc import Iterable

_LISTED = 40  # names that a message lists at most; of a longer table it says the nearest
_NEAREST = 5


class EquibitError(Exception):
    """Base of every error raised on purpose by Equibit."""


class InputError(EquibitError, ValueError):
    """An argument, option or recipe is outside what is allowed."""


class StateError(EquibitError, RuntimeError):
    """The operation is not possible in the present state, for example a training that diverged."""


class FileError(EquibitError, OSError):
    """A file is missing, unreadable, or cannot be written."""


class FormatError(EquibitError, ValueError):
    """A file exists but does not hold what its format requires."""


class DependencyError(EquibitError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def between(name: str, value: object, low: float, high: float) -> float:
    """`value` as a number strictly between `low` and `high`.

    Raises:
        InputError: It is no number, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise InputError(f"{name} is {value!r}; it must be a number above {low:g} and below {high:g}.")
    return value


def unknown(kind: str, given: object, allowed: Iterable[str]) -> InputError:
    """The error for a name that is not in a table: names the nearest known one, and all of them or the nearest few."""
    known = sorted(allowed)
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed, label = known, "Known"
    if len(known) > _LISTED:
        listed = difflib.get_close_matches(str(given), known, n=_NEAREST, cutoff=0)
        label = f"Nearest of {len(known)}"
    return InputError(f"unknown {kind} {given!r}.{hint} {label}: {', '.join(listed) or 'none'}.")
