"""Entry point: errors and exit codes."""

import difflib
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import jsonargparse

from equibit import yaml_format
from equibit.cli.output import note
from equibit.cli.verbs import VERBS
from equibit.errors import EquibitError, StateError, unknown


class UsageError(Exception):
    """The words on the command line cannot be parsed."""


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises instead of printing the usage and leaving."""
        raise UsageError(_hint(" ".join(message.split()), self))


def _hint(message: str, parser: Any) -> str:
    """Adds the nearest option to a complaint about an unknown one."""
    word = message.rpartition("unrecognized arguments: ")[2].split("=")[0].split(" ")[0]
    if "unrecognized arguments" not in message or not word.startswith("-"):
        return message
    known = [option for action in parser._actions for option in action.option_strings]
    near = difflib.get_close_matches(word, known, n=1)
    return f"{message}. Did you mean {near[0]}?" if near else f"{message}. See --help."


def make_parser(words: Sequence[str], verbs: Iterable[str]) -> _Parser:
    """The parser of the whole command, in which only some verbs have their arguments: those must be loaded.

    Args:
        words: What follows the verb on the command line.
        verbs: Names of the verbs to load; others than verbs are passed over.
    """
    common: dict[str, Any] = {"allow_abbrev": False, "parser_mode": yaml_format.MODE}
    parser = _Parser(prog="equibit", description="Train, explain and deploy 1-bit neural networks.", **common)
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    parser.add_argument("--version", action="store_true", dest="show_version", help="as the verb `version`")
    subcommands = parser.add_subcommands(dest="verb", title="verbs", metavar="VERB")
    for entry in VERBS.values():
        own = _Parser(**common)
        if entry.name in verbs:
            verb = entry.load()
            own.description = verb.description
            verb.add(own, list(words))
        subcommands.add_subcommand(entry.name, own, help=entry.help)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (failure), 2 (bad input) or 130 (interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    warnings.showwarning = _show_warning
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        verb = VERBS.get(words[0]) if words else None
        note(f"equibit: interrupted; {verb.interrupted if verb else 'run the command again'}")
        return 130
    except BrokenPipeError:  # the reader of a pipe has left; python must not complain at its last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (EquibitError, UsageError) as error:
        if debug:
            traceback.print_exc()
        note(f"equibit: {error}")
        return 1 if isinstance(error, StateError) else 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        note(f"equibit: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)")
        return 1


def _dispatch(words: list[str]) -> int:
    words = words or ["--help"]
    if words[0] == "--version":
        words[0] = "version"
    if words[0] not in VERBS and not words[0].startswith("-"):
        raise unknown("verb", words[0], VERBS)
    arguments = make_parser(words[1:], words[:1]).parse_args(words)
    return VERBS[arguments.verb].load().run(arguments[arguments.verb])


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    note(f"equibit: warning: {message}")
